"""Teams whose members see each other, and what their role in the team allows: without a circle, and fast."""

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
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from sqla_rls import Policy, Role, authenticated, declare_on, force_row_level_security, member_of, memberships
from sqla_rls.declare.collect import declared
from sqla_rls.driver import server_info
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.project import Project

pytestmark = pytest.mark.sqlalchemy


class Base(DeclarativeBase):
    pass


my_teams = memberships(
    "my_teams",
    Base.metadata,
    group="members.team_id",
    user="members.user_id",
    role="members.role",
    to=authenticated,
)


class Member(Base):
    __tablename__ = "members"

    user_id: Mapped[str] = mapped_column(Text, primary_key=True)
    team_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    role: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        Policy("colleagues", "SELECT", authenticated, using=member_of(team_id, my_teams())),
        Policy("owners", "DELETE", authenticated, using=member_of(team_id, my_teams("owner"))),
    )


class Document(Base):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    team_id: Mapped[int] = mapped_column(BigInteger, index=True)

    __table_args__ = (
        Policy("team", "SELECT", authenticated, using=member_of(team_id, my_teams())),
        Policy("edit", "UPDATE", authenticated, using=member_of(team_id, my_teams("owner", "editor"))),
    )


FILL = """
INSERT INTO members VALUES ('alice', 1, 'owner'), ('alice', 2, 'reader');
INSERT INTO members VALUES ('bob', 1, 'reader'), ('bob', 3, 'editor');
INSERT INTO members SELECT 'user_' || n, 10 + n % 100, 'reader' FROM generate_series(1, 5000) AS n;
INSERT INTO documents SELECT n, n % 1000 FROM generate_series(1, 20000) AS n;
ANALYZE
"""


@pytest.fixture(scope="module")
def teams(server: Server) -> Iterator[Engine]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        for statement in FILL.split(";"):
            connection.execute(text(statement))
    yield engine
    server.drop_database(name)


@pytest.fixture
def connection(teams: Engine) -> Iterator[Connection]:
    with teams.connect() as connection:
        # Sessions do it when a connection is opened.
        connection.exec_driver_sql(server_info.QUERY)
        yield connection


def bind(connection: Connection, subject: str) -> None:
    connection.execute(
        select(
            func.set_config("role", "authenticated", True),
            func.set_config("request.jwt.claims", f'{{"sub": "{subject}"}}', True),
        )
    )


@pytest.mark.parametrize(
    ("subject", "members", "removed", "edited"),
    [
        ("alice", {("alice", 1), ("bob", 1), ("alice", 2)}, {("alice", 1), ("bob", 1)}, {1}),
        ("bob", {("alice", 1), ("bob", 1), ("bob", 3)}, set(), {3}),
        ("carol", set(), set(), set()),
    ],
)
def test_members_see_each_other_and_do_what_their_role_allows(
    connection: Connection, subject: str, members: set[Any], removed: set[Any], edited: set[int]
) -> None:
    bind(connection, subject)
    assert {
        (row.user_id, row.team_id) for row in connection.execute(select(Member.user_id, Member.team_id))
    } == members
    assert set(connection.scalars(select(Document.team_id))) == {team for _, team in members}
    assert set(connection.scalars(text("UPDATE documents SET id = id RETURNING team_id"))) == edited
    gone = connection.execute(text("DELETE FROM members RETURNING user_id, team_id")).all()
    assert {(user, team) for user, team in gone} == removed


def test_the_function_runs_once_and_the_index_is_searched(connection: Connection) -> None:
    bind(connection, "alice")
    plan = "\n".join(
        connection.execute(text("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT * FROM documents")).scalars()
    )
    assert "InitPlan" in plan
    assert "SubPlan" not in plan
    assert "Index Cond: (team_id = ANY (" in plan
    assert plan.count("ProjectSet") == 1


def test_only_those_who_may_can_call_it(connection: Connection) -> None:
    connection.execute(text("SET LOCAL ROLE anonymous"))
    with pytest.raises(ProgrammingError, match="permission denied for function my_teams"):
        connection.execute(text("SELECT my_teams()"))


def test_what_callers_make_is_not_found_by_the_function(connection: Connection) -> None:
    bind(connection, "carol")
    connection.execute(text("CREATE TEMPORARY TABLE members (user_id text, team_id bigint, role text)"))
    connection.execute(text("INSERT INTO pg_temp.members VALUES ('carol', 1, 'owner')"))
    assert connection.scalars(text("SELECT my_teams()")).all() == []


@pytest.mark.exhaustive
def test_a_second_migration_finds_nothing_to_do(tmp_path: Path, database: URL) -> None:
    project = Project(tmp_path / "migrations", database)
    written = project.migrate(Base.metadata)
    # The default schema of the database that the migration runs in.
    assert "FROM __current_schema__.members" in written
    assert "public." not in written
    definition = project.engine.connect().scalar(text("SELECT pg_get_functiondef('my_teams'::regproc)"))
    assert definition is not None
    assert "FROM public.members" in definition
    assert "SECURITY DEFINER" in definition
    assert "SET search_path TO 'pg_catalog', 'pg_temp'" in definition
    project.downgrade("base")


def plain(
    *, role: str | None = None, schema: str | None = None, **types: Any
) -> tuple[MetaData, memberships]:
    metadata = MetaData()
    columns = {"team_id": BigInteger, "user_id": Text, "role": Text} | types
    Table("members", metadata, *(Column(name, type_) for name, type_ in columns.items()), schema=schema)
    prefix = f"{schema}.members" if schema else "members"
    asked = memberships(
        "my_teams",
        metadata,
        group=f"{prefix}.team_id",
        user=f"{prefix}.user_id",
        role=role and f"{prefix}.{role}",
        to=Role("membership_reader"),
        schema=schema,
    )
    return metadata, asked


def test_a_forced_table_is_refused() -> None:
    metadata, _ = plain()
    declare_on(metadata.tables["members"], force_row_level_security())
    with pytest.raises(DeclarationError, match=r"my_teams\(\) would return nothing: .* forced"):
        declared([metadata])


def test_roles_need_a_column() -> None:
    _, asked = plain()
    with pytest.raises(DeclarationError, match=r"my_teams\(\) can't select by role"):
        asked("owner")


@pytest.mark.exhaustive
@pytest.mark.parametrize("roles", [[], (), "owner", [""], ["owner", None], None])
def test_a_list_that_names_no_role_is_refused(roles: Any) -> None:
    _, asked = plain(role="role")
    with pytest.raises(DeclarationError, match=r"my_teams\(\) can't select by role: .* isn't a list"):
        asked(roles=roles)


@pytest.mark.exhaustive
def test_roles_are_names_or_one_list() -> None:
    _, asked = plain(role="role")
    wrong: Any = ["owner"]
    for names, listed in (([wrong], None), ([""], None), (["owner"], ["editor"])):
        with pytest.raises(DeclarationError, match=r"my_teams\(\) can't select by role"):
            asked(*names) if listed is None else asked(*names, roles=listed)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    by_list, by_names = asked(roles=["owner", "editor"]), asked("owner", "editor")
    assert str(by_list.compile(dialect=dialect)) == str(by_names.compile(dialect=dialect))


def test_a_column_that_is_not_there_is_named() -> None:
    metadata, _ = plain(role="rank")
    with pytest.raises(DeclarationError, match=r"no column 'members\.rank'"):
        declared([metadata])


def test_a_copy_asks_the_function_of_its_schema() -> None:
    source, asked = plain(schema="tenant_a")
    declare_on(source.tables["tenant_a.members"], Policy("colleagues", using=member_of("team_id", asked())))
    target, _ = plain(schema="tenant_b")
    copy = Table("docs", source, Column("team_id", BigInteger), schema="tenant_a")
    declare_on(copy, Policy("team", using=member_of("team_id", asked())))
    copy.to_metadata(target, schema="tenant_b")
    (policy,) = declared([target]).policies.values()
    assert policy.using
    assert "ARRAY(SELECT tenant_b.my_teams()" in policy.using
    alone = MetaData()
    copy.to_metadata(alone, schema="tenant_b")
    with pytest.raises(DeclarationError, match=r"can't follow tenant_a\.my_teams"):
        declared([alone])


def test_a_translated_schema_is_read(engine: Engine) -> None:
    metadata, asked = plain()
    declare_on(metadata.tables["members"], Policy("colleagues", using=member_of("team_id", asked())))
    with engine.begin() as connection:
        connection.execute(CreateSchema("tenant_b"))
        metadata.create_all(connection.execution_options(schema_translate_map={None: "tenant_b"}))
        definition = connection.scalar(text("SELECT pg_get_functiondef('tenant_b.my_teams'::regproc)"))
    assert definition is not None
    assert "FROM tenant_b.members" in definition
