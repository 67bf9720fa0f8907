"""What a model may declare, and what it is told when it can't be."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Identity,
    Integer,
    MetaData,
    Sequence,
    Table,
    Text,
    Uuid,
    func,
    select,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from sqla_rls import (
    Policy,
    Role,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    declare_on,
    default_privileges,
    disable_row_level_security,
    grant,
    grant_on,
    in_jwt_claim,
    jwt_claim,
    jwt_claim_contains,
    member_of,
    view,
)
from sqla_rls.declare.collect import declared
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC, SequenceKey, TableKey
from tests.support.written import MEMBERS, table

pytestmark = pytest.mark.sqlalchemy


def test_a_class_body_knows_its_columns_before_they_have_a_type() -> None:
    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[UUID] = mapped_column(primary_key=True)

    class Todo(Base):
        __tablename__ = "todos"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[UUID] = mapped_column()
        author_id = mapped_column(ForeignKey("users.id"))
        __table_args__ = (crud_policy("authenticated", read=auth_uid(user_id), modify=auth_uid(author_id)),)

    policies = {policy.name: policy for policy in declared([Base.metadata]).policies.values()}
    assert list(policies) == [
        f"crud-authenticated-policy-{command}" for command in ("select", "insert", "update", "delete")
    ]
    assert policies["crud-authenticated-policy-select"].using == "(SELECT auth.uid()) = todos.user_id"
    assert policies["crud-authenticated-policy-insert"].with_check == "(SELECT auth.uid()) = todos.author_id"


def test_each_class_of_a_mixin_gets_policies_on_its_own_columns() -> None:
    class Base(DeclarativeBase):
        pass

    class Owned:
        user_id: Mapped[str] = mapped_column("owner", Text)

        @declared_attr.directive
        @classmethod
        def __table_args__(cls) -> Any:
            return (crud_policy(authenticated, read=auth_uid(cls.user_id), modify=cls.user_id == "x"),)

    class Todo(Owned, Base):
        __tablename__ = "todos"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Note(Owned, Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Draft(Owned, Base):
        __tablename__ = "drafts"
        id: Mapped[int] = mapped_column(primary_key=True)
        __table_args__ = (Policy("read", using=auth_uid(Owned.user_id)),)  # pyright: ignore[reportAssignmentType]

    written = {policy.key: policy.using for policy in declared([Base.metadata]).policies.values()}
    for name in ("todos", "notes"):
        select_policy = (TableKey(None, name), "crud-authenticated-policy-select")
        assert written[select_policy] == f"(SELECT auth.user_id()) = {name}.owner"  # type: ignore[index]
    assert written[TableKey(None, "drafts"), "read"] == "(SELECT auth.user_id()) = drafts.owner"  # type: ignore[index]


def test_a_mixin_that_shares_one_policy_is_told_about_declared_attr() -> None:
    class Base(DeclarativeBase):
        pass

    class Owned:
        __table_args__ = (Policy("read", using="true"),)

    class Todo(Owned, Base):
        __tablename__ = "todos"
        id: Mapped[int] = mapped_column(primary_key=True)

    with pytest.raises(DeclarationError, match=r"on table todos already.*declared_attr"):

        class Note(Owned, Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)


def test_a_copied_table_takes_its_policies_along() -> None:
    original = table(crud_policy(authenticated, read=auth_uid("user_id"), modify=None))
    copy = original.to_metadata(MetaData(), schema="archive")

    (policy,) = declared([copy.metadata]).policies.values()
    assert policy.table == TableKey("archive", "todos")
    assert policy.using == "(SELECT auth.user_id()) = archive.todos.user_id"
    assert not original.info


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "it"}, "no expression"),
        (
            {"name": "it", "command": "MERGE", "using": True},
            "MERGE isn't a command of a policy. Give one of ALL",
        ),
        (
            {"name": "it", "command": ["UPDATE", "DELETE"], "using": True},
            r"\['UPDATE', 'DELETE'\] isn't a command of a policy. Give one of ALL",
        ),
        ({"name": "it", "command": "INSERT", "using": True}, "Give with_check=, not using="),
        ({"name": "it", "command": "SELECT", "with_check": True}, "Give using=, not with_check="),
        ({"name": "it", "command": "DELETE", "using": True, "with_check": True}, "not with_check="),
        ({"name": "", "using": True}, "1 to 63 bytes"),
        ({"name": "ä" * 32, "using": True}, "1 to 63 bytes"),
        ({"name": "it", "roles": [], "using": True}, "list of roles is empty"),
    ],
)
def test_a_policy_of_a_wrong_shape_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Policy(**arguments)


def test_a_crud_policy_must_say_something() -> None:
    with pytest.raises(DeclarationError, match="both None"):
        crud_policy(authenticated, read=None, modify=None)


def test_names_are_unique_on_a_table() -> None:
    with pytest.raises(DeclarationError, match="declared twice on table todos"):
        table(Policy("it", using=True), Policy("it", using=False))


def test_a_policy_belongs_on_a_table() -> None:
    with pytest.raises(DeclarationError, match="belongs on a Table"):
        Policy("it", using=True)._set_parent_with_dispatch(Column("id", Integer))


@pytest.mark.exhaustive
def test_declarations_are_added_to_a_mapped_class_or_its_table() -> None:
    class Base(DeclarativeBase):
        pass

    class Todo(Base):
        __tablename__ = "todos"
        id: Mapped[int] = mapped_column(primary_key=True)

    declare_on(Todo, Policy("of a class", using=True))
    declare_on(Todo.__table__, Policy("of a table", using=True))
    assert {key.name for key in declared([Base.metadata]).policies} == {"of a class", "of a table"}
    for other in (Base, Todo.__table__.alias()):
        with pytest.raises(DeclarationError, match="belongs on a Table"):
            declare_on(other, Policy("it", using=True))


def test_a_table_is_open_or_has_policies() -> None:
    with pytest.raises(DeclarationError, match="Remove one of them"):
        declared([table(disable_row_level_security(), Policy("it", using=True)).metadata])


@pytest.mark.parametrize("privilege", ["ALL", "TRUNCATE", "TRIGGER", "REFERENCES", "FLY"])
def test_privileges_that_row_security_does_not_reach_are_refused(privilege: str) -> None:
    with pytest.raises(DeclarationError, match="policies don't apply"):
        grant(privilege, to=authenticated)
    with pytest.raises(DeclarationError, match="policies don't apply"):
        default_privileges(MetaData(), privilege, to=authenticated)


@pytest.mark.parametrize("privilege", ["TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"])
def test_privileges_that_row_security_does_not_reach_need_an_explicit_word(privilege: str) -> None:
    with pytest.raises(DeclarationError, match="Set bypasses_row_security=True if you want this"):
        grant(privilege, to=authenticated)
    todos = table(grant(privilege, to="etl", bypasses_row_security=True))
    (found,) = declared([todos.metadata]).privileges
    assert found.privilege == privilege


@pytest.mark.parametrize("privilege", ["TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"])
@pytest.mark.parametrize("caller", ["editor", "PUBLIC", "authenticated", "anonymous"])
def test_those_who_call_never_hold_them(privilege: str, caller: str) -> None:
    message = f"{privilege} on .* can't be granted to (?i:{caller}), a role of callers"
    on_table = table(grant(privilege, to=["etl", caller], bypasses_row_security=True))
    policy = Policy("it", roles=Role("editor"), using=True)
    Table("documents", on_table.metadata, Column("id", Integer), policy)
    later = table(Policy("it", roles="editor", using=True)).metadata
    default_privileges(later, privilege, to=["etl", caller], bypasses_row_security=True)
    with pytest.raises(DeclarationError, match=message):
        declared([on_table.metadata])
    with pytest.raises(DeclarationError, match=message):
        declared([], tables=[on_table])
    with pytest.raises(DeclarationError, match=message):
        declared([later])


def test_nor_on_columns_and_schemas() -> None:
    columns = table(grant("REFERENCES", columns=["id"], to=authenticated, bypasses_row_security=True))
    with pytest.raises(DeclarationError, match="REFERENCES on todos can't be granted to authenticated"):
        declared([columns.metadata])
    schema = MetaData()
    grant_on(schema, "USAGE", "CREATE", schema="app", to=authenticated, bypasses_row_security=True)
    with pytest.raises(DeclarationError, match="CREATE on app can't be granted to authenticated"):
        declared([schema])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({}, "exactly one object"),
        ({"sequence": "s", "function": "f()"}, "exactly one object"),
        ({"function": "f"}, r"the types, as in 'is_member\(uuid\)'"),
    ],
)
def test_a_grant_is_on_one_thing(what: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        grant_on(MetaData(), "USAGE", to=authenticated, **what)


def test_a_grant_on_columns_names_some_of_its_table() -> None:
    with pytest.raises(DeclarationError, match="columns= names none"):
        grant("SELECT", columns=[], to=authenticated)
    todos = table(grant("SELECT", columns=["owner"], to=authenticated))
    with pytest.raises(DeclarationError, match="grant of SELECT failed: table todos has no column 'owner'"):
        declared([todos.metadata])


def test_roles_named_in_declarations_are_made_if_they_are_role_objects() -> None:
    todos = table(
        Policy("one", roles=[Role("editor"), "somebody", "authenticated"], using=True),
        Policy("all", roles=["PUBLIC", "somebody"], using=True),
        grant("SELECT", to=Role("reporting", login=True)),
    )
    snapshot = declared([todos.metadata])
    assert set(snapshot.roles) == {"editor", "authenticated", "anonymous", "reporting"}
    assert snapshot.policies[TableKey(None, "todos"), "all"].roles == {PUBLIC}  # type: ignore[index]


@pytest.mark.parametrize(
    ("declarations", "needed"),
    [
        ([Policy("it", using=auth_uid("user_id"))], True),
        ([Policy("it", using=jwt_claim("a") == "b")], True),
        ([Policy("it", using=jwt_claim_contains("a", value="b"))], True),
        ([Policy("it", using=~in_jwt_claim("key", "a"))], True),
        ([Policy("it", using=member_of("key", MEMBERS.c.key, MEMBERS.c.user_id))], True),
        ([Policy("it", using=member_of("key", select(MEMBERS.c.key)))], False),
        ([Policy("it", using="current_user = 'x'")], False),
        ([Policy("it", using="is_mine(user_id)")], True),
        ([Column("by", Text, server_default=text("auth.user_id()"))], True),
        ([Policy("it", using=lambda: auth.uid() == auth.uid())], True),
        ([Policy("it", using=func.now() > func.now())], False),
        ([Policy("it", using=True)], False),
        ([Column("by", Text, server_default=auth.user_id())], True),
        ([Column("by", Text, server_default=func.now())], False),
    ],
)
def test_the_auth_functions_are_needed_where_they_are_called(declarations: list[Any], needed: bool) -> None:
    assert declared([table(*declarations).metadata]).auth_functions is needed


@pytest.mark.parametrize(
    ("column", "sequences"),
    [
        (Column("id", Integer, primary_key=True), {SequenceKey(None, "t", "id")}),
        (
            Column("id", Integer, Sequence("s", optional=True), primary_key=True),
            {SequenceKey(None, "t", "id")},
        ),
        (Column("id", Integer, primary_key=True, autoincrement=False), set()),
        (Column("id", Integer, primary_key=True, default=lambda: 1), set()),
        (Column("id", Integer, Identity(), primary_key=True), set()),
        (Column("id", Uuid, primary_key=True), set()),
        (Column("id", Integer, Sequence("s"), primary_key=True), set()),
    ],
)
def test_which_columns_are_serial(column: Column[Any], sequences: set[SequenceKey]) -> None:
    todos = Table("t", MetaData(), column, Policy("it", using=True))
    assert declared([todos.metadata]).sequences == sequences


S = SequenceKey(None, "s")


@pytest.mark.parametrize(
    ("said", "sequence"),
    [
        ({"default": Sequence("s")}, S),
        ({"default": Sequence("s").next_value()}, S),
        ({"server_default": Sequence("s").next_value()}, S),
        ({"server_default": func.concat("x", Sequence("s").next_value())}, S),
        ({"server_default": Sequence("s", schema="other").next_value()}, SequenceKey("other", "s")),
        ({"server_default": text("nextval('s')")}, SequenceKey(None, "t", "n")),
        ({"server_default": func.nextval("s")}, SequenceKey(None, "t", "n")),
    ],
)
def test_which_sequences_defaults_call(said: dict[str, Any], sequence: SequenceKey) -> None:
    todos = Table("t", MetaData(), Column("n", Integer, **said), Policy("it", using=True))
    assert {one.sequence for one in declared([todos.metadata]).called_sequences} == {sequence}


def test_two_metadata_may_repeat_a_declaration_but_not_change_it() -> None:
    def models(schema: str | None, *items: Any, query: str = "SELECT 1 AS one") -> MetaData:
        metadata = MetaData()
        Table("t", metadata, Column("id", Integer), *items, schema=schema)
        view("v", metadata, query, schema=schema)
        return metadata

    first = models(None, Policy("p", using="id = 1"))
    both = declared([first, models("public", Policy("p", using="id = 1"))], default_schema="public")
    assert len(both.policies) == len(both.views) == 1
    for other, refused in (
        (models("public", Policy("p", using="true")), "policy 'p'"),
        (models("public", disable_row_level_security()), "row security of table 't'"),
        (models("public", query="SELECT 2 AS one"), "view 'v'"),
    ):
        with pytest.raises(DeclarationError, match=f"{refused} is declared twice, and the declarations"):
            declared([first, other], default_schema="public")
