"""``create_all()`` and its siblings emit what the tables declare."""

from __future__ import annotations

import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    create_engine,
    exists,
    inspect,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sqla_rls import Policy, Role, auth, auth_uid, authenticated, crud_policy, grant, jwt_claim
from sqla_rls.exc import DeclarationError
from tests.support.project import state, statements_of

pytestmark = pytest.mark.sqlalchemy


def two_tables() -> MetaData:
    """The policy of the first names the second, which is made later."""
    metadata = MetaData()
    members = Table("members", metadata, Column("org", Integer), Column("user_id", Uuid))
    Table(
        "a_documents",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("org", Integer),
        Column("by", Text, server_default=auth.user_id()),
        Column("team", Text, server_default=jwt_claim("team")),
        Policy(
            "members",
            roles=authenticated,
            using=lambda: exists().where(
                members.c.org == metadata.tables["a_documents"].c.org, auth_uid(members.c.user_id)
            ),
        ),
    )
    crud_policy(authenticated, read=auth_uid("user_id"), modify=False)._set_parent_with_dispatch(members)
    return metadata


def catalog(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [line for line in state(connection) if line[0] not in ("role", "function", "extension")]


@pytest.mark.exhaustive
def test_create_all_twice_in_a_row(engine: Engine) -> None:
    metadata = two_tables()
    metadata.create_all(engine)
    once = catalog(engine)
    metadata.create_all(engine)
    assert catalog(engine) == once
    assert len([line for line in once if line[0] == "policy"]) == 5
    assert ("table", "members r t f") in once
    assert ("privilege", "a_documents authenticated UPDATE") in once
    assert ("privilege", "a_documents_id_seq authenticated USAGE") in once


@pytest.mark.exhaustive
def test_drop_all_drops_tables_that_policies_name(engine: Engine) -> None:
    metadata = two_tables()
    metadata.create_all(engine)
    metadata.drop_all(engine)
    assert inspect(engine).get_table_names() == []
    metadata.drop_all(engine)


def test_declarative_models_and_a_table_on_its_own(engine: Engine) -> None:
    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id())
        __table_args__ = (
            crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),
            grant("SELECT", to=Role("reporting")),
        )

    table = Base.metadata.tables["notes"]
    table.create(engine)
    by_itself = catalog(engine)
    table.drop(engine)
    Base.metadata.create_all(engine)
    assert catalog(engine) == by_itself
    assert ("privilege", "notes reporting SELECT") in by_itself


def test_nothing_is_made_where_a_declaration_is_refused(engine: Engine) -> None:
    metadata = two_tables()
    other = Table("other", metadata, Column("id", Integer))
    Policy("bad", using=lambda: other.c.id == metadata.tables["members"].c.org)._set_parent_with_dispatch(
        other
    )
    with pytest.raises(DeclarationError, match="outside a subquery"):
        metadata.create_all(engine)
    assert inspect(engine).get_table_names() == []


@pytest.mark.exhaustive
def test_a_schema_that_is_translated(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
        two_tables().create_all(connection.execution_options(schema_translate_map={None: "tenant"}))
    assert ("table", "tenant.members r t f") in catalog(engine)
    assert ("schema", "tenant authenticated USAGE") in catalog(engine)


def test_the_statements_can_be_shown_without_a_database() -> None:
    shown = statements_of(two_tables())
    assert "ALTER TABLE members ENABLE ROW LEVEL SECURITY" in shown
    assert any("GRANT USAGE ON SCHEMA" in one and "TO authenticated" in one for one in shown)


def test_other_databases_take_the_tables_and_leave_the_rest() -> None:
    metadata = MetaData()
    Table("notes", metadata, Column("user_id", Text), Policy("it", using=auth_uid("user_id")))
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    assert inspect(engine).get_table_names() == ["notes"]
    metadata.drop_all(engine)
    engine.dispose()
