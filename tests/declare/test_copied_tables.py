"""Tables copied by ``Table.to_metadata()``, one schema for each tenant: policies read the copies, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    ForeignKey,
    MetaData,
    Table,
    Text,
    create_engine,
    exists,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from sqla_rls import Policy, Role, auth_uid, authenticated, declare_on, grant, member_of, view
from sqla_rls.declare.collect import declared
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.project import Project

pytestmark = pytest.mark.sqlalchemy


def models() -> MetaData:
    """Documents that members of their team read, by each way in which a policy names another table."""
    metadata = MetaData()
    members = Table(
        "members",
        metadata,
        Column("user_id", Text, primary_key=True),
        Column("team_id", BigInteger, primary_key=True),
        Policy("own", "SELECT", authenticated, using=auth_uid("user_id")),
    )
    documents = Table(
        "documents",
        metadata,
        Column("title", Text, primary_key=True),
        Column("team_id", BigInteger, index=True),
        Column("parent", Text),
        Policy(
            "member_of",
            "SELECT",
            authenticated,
            using=member_of("team_id", members.c.team_id, members.c.user_id),
        ),
    )
    other = members.alias("m")
    declare_on(
        documents,
        Policy(
            "exists",
            "UPDATE",
            authenticated,
            using=exists().where(other.c.team_id == documents.c.team_id, auth_uid(other.c.user_id)),
        ),
        Policy(
            "later",
            "DELETE",
            authenticated,
            using=lambda: exists(
                select(members.c.team_id).where(
                    members.c.team_id == documents.c.team_id, auth_uid(members.c.user_id)
                )
            ),
        ),
    )
    parent = documents.alias("parent")
    declare_on(
        documents,
        # A policy for INSERT alone, since Postgres lets none for SELECT read its own table.
        Policy(
            "own_alias",
            "INSERT",
            Role("rls_copies"),
            with_check=exists(select(parent.c.title).where(parent.c.title == documents.c.parent)),
        ),
    )
    return metadata


def tenants(*names: str, together: bool = False) -> Iterator[MetaData]:
    source, metadata = models(), MetaData()
    for name in names:
        metadata = metadata if together else MetaData()
        # In the order of the alphabet: documents before the members that their policies read.
        for _, table in sorted(source.tables.items()):
            table.to_metadata(metadata, schema=name)
        if not together:
            yield metadata
    if together:
        yield metadata


@pytest.fixture(scope="module", params=["each in its own MetaData", "all in one"])
def connection(server: Server, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """Two tenants, and the tables of nobody's beside them; Alice is in a team of tenant A's alone."""
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.connect() as connection:
        for schema in ("tenant_a", "tenant_b"):
            connection.execute(CreateSchema(schema))
        together = request.param == "all in one"
        for metadata in (models(), *tenants("tenant_a", "tenant_b", together=together)):
            metadata.create_all(connection)
            for table in metadata.tables.values():
                if table.name == "members" and table.schema != "tenant_b":
                    connection.execute(insert(table).values(user_id="alice", team_id=1))
                if table.name == "documents":
                    connection.execute(insert(table).values(title="plan", team_id=1))
        # Roles are of the whole server.
        connection.commit()
        connection.execute(
            select(
                func.set_config("role", "authenticated", False),
                func.set_config("request.jwt.claims", '{"sub": "alice"}', False),
            )
        )
        yield connection
        connection.rollback()
    server.drop_database(name)


@pytest.mark.parametrize(
    "statement",
    ["SELECT title FROM {}", "UPDATE {} SET title = title RETURNING title", "DELETE FROM {} RETURNING title"],
)
@pytest.mark.exhaustive
def test_who_is_a_member_of_nothing_sees_nothing(connection: Connection, statement: str) -> None:
    savepoint = connection.begin_nested()
    found = {
        schema: connection.execute(text(statement.format(f"{schema}.documents"))).all()
        for schema in ("tenant_a", "tenant_b")
    }
    savepoint.rollback()
    assert found == {"tenant_a": [("plan",)], "tenant_b": []}


@pytest.mark.exhaustive
def test_every_policy_names_the_tables_of_its_own_schema(connection: Connection) -> None:
    named = connection.execute(
        text("SELECT schemaname, concat(qual, with_check) FROM pg_policies WHERE tablename = 'documents'")
    )
    for schema, expression in named:
        others = {"public", "tenant_a", "tenant_b"} - {schema}
        assert not any(f"{other}." in expression for other in others)
        assert schema == "public" or f"FROM {schema}." in expression


@pytest.mark.exhaustive
def test_a_second_migration_finds_nothing_to_do(tmp_path: Path, database: URL) -> None:
    project = Project(tmp_path / "migrations", database)
    project.options["include_schemas"] = True
    with project.engine.begin() as connection:
        connection.execute(CreateSchema("tenant_b"))
    (metadata,) = tenants("tenant_b")
    assert "FROM tenant_b.members" in project.migrate(metadata)
    project.downgrade("base")


def copied(source: MetaData, *names: str, schema: Any = "tenant_b", **options: Any) -> MetaData:
    """Tables of *source* copied to another MetaData."""
    target = MetaData()
    for name in names:
        source.tables[name].to_metadata(target, schema=schema, **options)
    return target


def using(metadata: MetaData, name: str) -> str:
    (found,) = (policy for key, policy in declared([metadata]).policies.items() if key.name == name)
    return found.using or found.with_check or ""


@pytest.mark.parametrize("policy", ["member_of", "exists", "later"])
def test_a_table_that_is_not_copied_is_named(policy: str) -> None:
    with pytest.raises(
        DeclarationError, match=r"can't follow members: .* has no table tenant_b\.members\. Copy"
    ):
        using(copied(models(), "documents"), policy)


def test_a_copy_in_the_same_schema_reads_the_same_tables() -> None:
    """As one does that was made to be compared."""
    source = models()
    target = copied(source, "documents", schema=None)
    assert declared([target]).policies == {
        key: policy for key, policy in declared([source]).policies.items() if key.table.name == "documents"
    }


def test_a_table_with_a_schema_of_its_own_is_shared() -> None:
    source = MetaData()
    people = Table("people", source, Column("id", Text), Column("team_id", BigInteger), schema="shared")
    Table(
        "documents",
        source,
        Column("team_id", BigInteger),
        Policy("team", using=member_of("team_id", people.c.team_id, people.c.id)),
    )
    target = copied(source, "documents")
    people.to_metadata(target)
    assert "FROM shared.people" in using(target, "team")


def test_a_table_goes_where_its_foreign_key_goes() -> None:
    source = MetaData()
    teams = Table("teams", source, Column("id", BigInteger, primary_key=True), Column("owner", Text))
    Table(
        "documents",
        source,
        Column("team_id", ForeignKey(teams.c.id)),
        Policy("team", using=member_of("team_id", teams.c.id, teams.c.owner)),
    )
    target = copied(source, "documents", referred_schema_fn=lambda *_: "shared")
    teams.to_metadata(target, schema="tenant_b")
    teams.to_metadata(target, schema="shared")
    assert "SELECT shared.teams.id \nFROM shared.teams" in using(target, "team")


def test_renamed_copies_read_each_other() -> None:
    source, target = models(), MetaData()
    for table in source.tables.values():
        table.to_metadata(target, name=f"{table.name}_archive")
    assert using(target, "member_of").startswith(
        "documents_archive.team_id = ANY (ARRAY(SELECT members_archive.team_id"
    )
    assert "FROM documents_archive AS parent" in using(target, "own_alias")


def test_schemas_are_translated_after_that() -> None:
    target = copied(models(), "documents", "members")
    found = declared([target], schema_translate_map={"tenant_b": "tenant_c"})
    (policy,) = (one for key, one in found.policies.items() if key.name == "member_of")
    assert policy.using
    assert "tenant_c.members" in policy.using
    assert "tenant_b" not in policy.using


def test_a_copy_cannot_read_its_own_table_either() -> None:
    source = MetaData()
    members = Table("members", source, Column("team_id", BigInteger), Column("user_id", Text))
    other = members.alias()
    declare_on(members, Policy("colleagues", using=member_of("team_id", other.c.team_id, other.c.user_id)))
    with pytest.raises(DeclarationError, match="42P17"):
        declared([copied(source, "members")])


def test_what_a_copy_is_declared_is_its_own() -> None:
    source = models()
    first, second = copied(source, "members"), copied(source, "members", schema="tenant_c")
    declare_on(first.tables["tenant_b.members"], Policy("all", using=True), grant("SELECT", to="reporting"))
    found = {
        name: len(declared([one]).policies) for name, one in [("s", source), ("b", first), ("c", second)]
    }
    assert found == {"s": 5, "b": 2, "c": 1}
    held = [{one.grantee for one in declared([metadata]).privileges} for metadata in (source, first)]
    assert held == [{"anonymous"}, {"anonymous", "reporting"}]
    again = copied(first, "tenant_b.members", schema="tenant_d")
    assert {key.name for key in declared([again]).policies} == {"own", "all"}


def test_a_copied_view_reads_copied_tables() -> None:
    source = models()
    documents = source.tables["documents"]
    titles = view("titles", source, select(documents.c.title), grant("SELECT", to="reporting"))
    all_titles = view("all_titles", source, select(titles.c.title))
    target = MetaData()
    views = [one.to_metadata(target, schema="tenant_b") for one in (titles, all_titles)]
    with pytest.raises(DeclarationError, match=r"has no table tenant_b\.documents"):
        declared([target])
    documents.to_metadata(target, schema="tenant_b")
    source.tables["members"].to_metadata(target, schema="tenant_b")
    found = declared([target])
    assert [one.definition for one in found.views.values()] == [
        "SELECT tenant_b.documents.title \nFROM tenant_b.documents",
        "SELECT tenant_b.titles.title \nFROM tenant_b.titles",
    ]
    assert ("tenant_b", "titles", "reporting") in {one[1:4] for one in found.privileges}
    assert not target.tables.keys() & {"tenant_b.titles", "tenant_b.all_titles"}
    assert views[0].to_metadata(MetaData(), schema="tenant_c").fullname == "tenant_c.titles"


def test_a_policy_reads_the_copied_view() -> None:
    source = models()
    members = source.tables["members"]
    own = view("own_teams", source, select(members.c.team_id))
    declare_on(source.tables["documents"], Policy("view", using=member_of("team_id", select(own.c.team_id))))
    target = copied(source, "documents", "members")
    with pytest.raises(DeclarationError, match="can't follow own_teams"):
        declared([target])
    own.to_metadata(target, schema="tenant_b")
    assert "FROM tenant_b.own_teams" in using(target, "view")


def test_a_view_of_sql_text_is_not_copied() -> None:
    text_view = view("titles", MetaData(), "SELECT title FROM documents")
    with pytest.raises(DeclarationError, match="can't be copied: it is SQL text"):
        text_view.to_metadata(MetaData(), schema="tenant_b")


@pytest.mark.exhaustive
def test_dropping_a_tenant_leaves_the_others(engine: Engine) -> None:
    (target,) = tenants("tenant_b")
    documents = models().tables["documents"]
    with engine.begin() as connection:
        connection.execute(CreateSchema("tenant_b"))
        view("titles", documents.metadata, select(documents.c.title)).to_metadata(target, schema="tenant_b")
        for metadata in (models(), target):
            metadata.create_all(connection)
        target.drop_all(connection)
        left = connection.scalars(text("SELECT DISTINCT schemaname FROM pg_policies")).all()
    assert left == ["public"]
