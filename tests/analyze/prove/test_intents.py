"""The intent, stated and declared, evaluated in Python."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    and_,
    exists,
    func,
    not_,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import CITEXT

from sqla_rls import (
    Caller,
    Policy,
    Role,
    anonymous,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    declare_on,
    in_jwt_claim,
    jwt_claim_contains,
    member_of,
    memberships,
    own_rows,
)
from sqla_rls.analyze.intent import Row, Rule, World, everyone, intends, intents, member, no_one, owner
from sqla_rls.analyze.prove.declared import NotDerivable, declared_intent, declared_tables
from sqla_rls.analyze.why.explanation import Command, Part
from sqla_rls.declare.base import TableDeclarations
from sqla_rls.exc import DeclarationError
from tests.support.sessions import Todo

ALICE = Caller(role="authenticated", subject="alice", claims={"orgs": [1, "2", None], "may": ["read"]})
STRANGER = Caller(role="authenticated")
WORLD: World = {
    "members": [
        {"org_id": 1, "user_id": "alice", "role": "admin"},
        {"org_id": 2, "user_id": "alice", "role": "reader"},
        {"org_id": 3, "user_id": "bob", "role": "admin"},
    ]
}


def docs(*declarations: Any, metadata: MetaData | None = None) -> Table:
    metadata = metadata or MetaData()
    Table(
        "members",
        metadata,
        Column("org_id", Integer, primary_key=True),
        Column("user_id", Text, primary_key=True),
        Column("role", Text),
        own_rows("user_id"),
    )
    return Table(
        "docs",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("org_id", Integer),
        Column("user_id", Text),
        Column("uid", Uuid),
        Column("name", CITEXT),
        Column("gone", Boolean),
        *declarations,
    )


def rows_of(
    table: Table, caller: Caller, rows: list[Row], command: Command = "SELECT", part: Part = "using"
) -> list[int]:
    intent = declared_intent(table, command, part, caller.role, [])
    return [number for number, row in enumerate(rows) if intent(caller, row, WORLD)]


def shown(table: Table, expression: Any, rows: list[Row]) -> list[int]:
    """The rows that alice can read by a policy with *expression*."""
    name = f"p{len(TableDeclarations.of(table).items)}"
    declare_on(table, Policy(name, "SELECT", name, using=expression))
    return rows_of(table, Caller(role=name, subject=ALICE.subject, claims=ALICE.claims), rows)


@pytest.mark.parametrize(
    ("expression", "rows", "expected"),
    [
        (auth_uid("user_id"), [{"user_id": "alice"}, {"user_id": "bob"}, {"user_id": None}], [0]),
        (auth_uid("id"), [{"id": 1}], []),
        (auth_uid("name"), [{"name": "ALICE"}, {"name": "bob"}], [0]),
        (auth_uid("uid"), [{"uid": UUID(int=1)}], []),
        (True, [{}], [0]),
        (False, [{}], []),
        (in_jwt_claim("org_id", "orgs"), [{"org_id": n} for n in (1, 2, 3, None)], [0, 1]),
        (jwt_claim_contains("may", value="read"), [{}], [0]),
        (jwt_claim_contains("may", value="write"), [{}], []),
        (jwt_claim_contains("nothing", value="write"), [{}], []),
        (~jwt_claim_contains("nothing", value="write"), [{}], []),
        (not_(auth_uid("user_id")), [{"user_id": "alice"}, {"user_id": "bob"}, {"user_id": None}], [1]),
        (
            or_(auth_uid("user_id"), in_jwt_claim("org_id", "orgs")),
            [
                {"user_id": None, "org_id": 1},
                {"user_id": "alice", "org_id": None},
                {"user_id": None, "org_id": 5},
            ],
            [0, 1],
        ),
    ],
)
def test_a_declared_expression_is_evaluated_as_in_sql(
    expression: Any, rows: list[Row], expected: list[int]
) -> None:
    assert rows_of(docs(crud_policy(authenticated, read=expression, modify=None)), ALICE, rows) == expected


def test_memberships_count_only_if_they_are_the_callers() -> None:
    metadata = MetaData()
    columns = {"group": "members.org_id", "user": "members.user_id", "role": "members.role"}
    my_teams = memberships("my_teams", metadata, **columns, to=authenticated)
    table = docs(metadata=metadata)
    members = metadata.tables["members"].c
    rows: list[Row] = [{"org_id": number} for number in (1, 2, 3, None)]
    admins = select(members.org_id).where(auth_uid(members.user_id), members.role == "admin")
    for expression, expected in (
        (member_of("org_id", members.org_id, members.user_id), [0, 1]),
        (lambda: member_of("org_id", members.org_id, members.user_id), [0, 1]),
        (member_of("org_id", admins), [0]),
        (and_(member_of("org_id", admins), table.c.org_id != 1), []),
        (member_of("org_id", my_teams()), [0, 1]),
        (member_of("org_id", my_teams("reader", "writer")), [1]),
    ):
        assert shown(table, expression, rows) == expected


def test_policies_are_joined_as_postgres_joins_them() -> None:
    table = docs()
    declare_on(
        table,
        crud_policy(authenticated, read=auth_uid("user_id"), modify=False),
        Policy("editors", "ALL", "editor", using=True, with_check=auth_uid("user_id")),
        Policy("kept", "UPDATE", "PUBLIC", using=not_(table.c.gone), permissive=False),
        Policy("half", "UPDATE", "writer", with_check=True, imply_privileges=False),
    )
    mine: Row = {"user_id": "alice", "gone": False}
    gone: Row = {"user_id": "alice", "gone": True}
    unknown: Row = {"user_id": "alice", "gone": None}
    assert rows_of(table, ALICE, [mine, gone]) == [0, 1]
    assert rows_of(table, ALICE, [mine], "INSERT", "check") == []
    editor = Caller(role="editor", subject="alice")
    assert rows_of(table, editor, [mine, gone, unknown], "UPDATE") == [0]
    assert rows_of(table, editor, [{**mine, "user_id": "bob"}, mine], "INSERT", "check") == [1]
    assert rows_of(table, Caller(role="stranger"), [mine, gone]) == []
    writer = Caller(role="writer")
    assert rows_of(table, writer, [mine], "UPDATE") == []
    assert rows_of(table, writer, [mine, gone], "UPDATE", "check") == [0]
    chief = declared_intent(table, "DELETE", "using", "chief", [Role("chief", member_of=["editor"])])
    assert chief(Caller(role="chief"), mine, WORLD)
    outside = declared_intent(
        table, "DELETE", "using", "outside", [Role("outside", inherit=False, member_of=["editor"])]
    )
    assert not outside(Caller(role="outside"), mine, WORLD)
    assert declared_intent(table, "UPDATE", "using", "editor", []).is_exact
    assert not declared_intent(table, "UPDATE", "using", "writer", []).is_exact
    assert set(declared_tables([table.metadata])) == {(None, "docs"), (None, "members")}


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (lambda c: "user_id = 'x'", "policy 'p' is SQL text: user_id = 'x'"),
        (lambda c: func.lower(c.user_id) == auth.user_id(), "an expression of your own"),
        (lambda c: or_(auth_uid("user_id"), c.name == func.now()), "an expression of your own"),
        (
            lambda c: exists().where(c.user_id == c.user_id.table.metadata.tables["members"].c.user_id),
            r"your own: EXISTS \(SELECT 1 FROM members WHERE docs.user_id = members.user_id\)",
        ),
    ],
)
def test_an_expression_that_python_cannot_evaluate_states_no_intent(expression: Any, text: str) -> None:
    table = docs()
    declare_on(table, Policy("p", "SELECT", authenticated, using=expression(table.c)))
    with pytest.raises(NotDerivable, match=text):
        declared_intent(table, "SELECT", "using", "authenticated", [])
    # For another role, the policy doesn't count.
    assert declared_intent(table, "SELECT", "using", "anonymous", []).permissive == ()


def test_an_intent_is_stated_beside_the_model() -> None:
    table = docs()

    @intends(table, "SELECT", role=authenticated)
    def may_read(caller: Caller, row: Row, world: World) -> bool:
        return bool(row["name"] == "public" or row["user_id"] == caller.subject)

    intends(table, "UPDATE", "DELETE", role=[authenticated, "editor"], rows=owner("user_id"), new_rows=no_one)
    intends(table, "SELECT", role=anonymous, rows=everyone)
    read, write, public = intents(table.metadata)
    assert (read.test, read.new, read.roles) == (may_read, may_read, ("authenticated",))
    assert (write.commands, write.roles, write.new) == (
        ("UPDATE", "DELETE"),
        ("authenticated", "editor"),
        no_one,
    )
    assert public.test(STRANGER, {}, {})
    assert not intents(Todo.metadata)


def test_rules_are_joined() -> None:
    mine = owner("user_id")
    team = member("members", column="org_id", group="org_id", user="user_id")
    admins = member(
        "members", column="org_id", group="org_id", user="user_id", where=lambda one: one["role"] == "admin"
    )
    row = {"user_id": "bob", "org_id": 2}
    assert [rule(ALICE, row, WORLD) for rule in (mine, team, admins, mine | team, mine & team, ~mine)] == [
        False, True, False, True, False, True,
    ]  # fmt: skip
    assert not owner("user_id")(STRANGER, {"user_id": None}, WORLD)
    assert owner("id")(Caller(role="a", subject="1"), {"id": 1}, WORLD)
    uid = UUID(int=5)
    assert owner("id")(Caller(role="a", subject=str(uid).upper()), {"id": uid}, WORLD)
    assert not owner("id")(ALICE, {"id": uid}, WORLD)
    assert isinstance(mine | team, Rule)


@pytest.mark.parametrize(
    ("target", "commands", "hint"),
    [
        (docs(), (), "Give some of SELECT"),
        (docs(), ("TRUNCATE",), "TRUNCATE"),
        ("docs", ("SELECT",), "isn't a table"),
    ],
)
def test_a_wrong_intent_is_refused(target: Any, commands: Any, hint: str) -> None:
    with pytest.raises(DeclarationError, match=hint):
        intends(target, *commands, role=authenticated, rows=everyone)


def test_an_intent_is_stated_once() -> None:
    table = docs()
    intends(table, "SELECT", role=[authenticated, anonymous], rows=everyone)
    intends(table, "INSERT", role=anonymous, rows=no_one)
    with pytest.raises(DeclarationError, match="stated twice"):
        intends(table, "SELECT", "UPDATE", role=anonymous, rows=no_one)
