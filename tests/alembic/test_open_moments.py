"""While a migration runs, nobody sees a row that they may see neither before nor after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from sqla_rls import Policy, sql_function
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, operations

pytestmark = pytest.mark.exhaustive

READER = "sqla_rls_reader"


@pytest.fixture
def project(tmp_path: Path, database: URL, server: Server) -> Iterator[Project]:
    project = Project(tmp_path / "migrations", database)
    with project.engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {READER} LOGIN"))
    yield project
    with project.engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {READER}"))
        connection.execute(text(f"DROP ROLE {READER}"))


def notes(
    metadata: MetaData, name: str, *policies: dict[str, Any], owner: TypeEngine[Any] | None = None
) -> None:
    Table(
        name,
        metadata,
        Column("owner", owner or String(20)),
        *[Policy(**{"name": "it", "roles": READER, **policy}) for policy in policies],
    )


MINE, YOURS = {"using": "owner = 'me'"}, {"using": "owner = 'you'"}
OTHER = {"name": "other", **MINE}
ALL = {"name": "all", "using": "true"}
ONLY_MINE, ONLY_YOURS = {**MINE, "permissive": False}, {**YOURS, "permissive": False}

#: The policies of a table before and after.
CHANGES: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "expression": ([MINE], [YOURS]),
    "expression_taken_away": ([MINE], [{"with_check": "owner = 'me'"}]),
    "command": ([MINE], [{**YOURS, "command": "SELECT"}]),
    "permissive_to_restrictive": ([YOURS, OTHER], [ONLY_MINE, OTHER]),
    "restrictive_added": ([MINE], [{"using": "true"}, {**ONLY_MINE, "name": "new"}]),
    "restrictive_added_and_renamed": (
        [MINE, OTHER],
        [{**MINE, "name": "renamed"}, {**ALL, "name": "other"}, {**ONLY_MINE, "name": "new"}],
    ),
    "restrictive_altered": ([ALL, ONLY_MINE], [ALL, ONLY_YOURS]),
    "restrictive_replaced": ([ALL, ONLY_MINE], [ALL, {**ONLY_MINE, "command": "SELECT"}]),
    "restrictive_and_permissive": (
        [ALL, ONLY_MINE],
        [{**YOURS, "name": "all"}, {"using": "true", "permissive": False}],
    ),
    "restrictive_dropped": ([ALL, ONLY_MINE], [{**MINE, "name": "all"}]),
    "retyped": ([ALL, ONLY_MINE], [ALL, ONLY_MINE]),
}


def models(step: int) -> MetaData:
    metadata = MetaData()
    for name, steps in CHANGES.items():
        retyped = name == "retyped" and step == 1
        notes(metadata, name, *steps[step], owner=Text() if retyped else None)
    return metadata


def seen(watcher: Engine, table: str, statement: str = "SELECT owner FROM {}") -> set[str]:
    """Whose notes the reader sees; none where the migration keeps everybody waiting."""
    with watcher.connect() as connection:
        try:
            return set(connection.scalars(text(statement.format(table))))
        except DBAPIError:
            return set()


@contextmanager
def watching(
    watcher: Engine, statements: Mapping[str, str] = dict.fromkeys(CHANGES, "SELECT owner FROM {}")
) -> Iterator[dict[str, list[set[str]]]]:
    """What the reader sees after every statement of somebody else."""
    looks: dict[str, list[set[str]]] = {name: [] for name in statements}

    def look(connection: Connection, *_: Any) -> None:
        if connection.engine.url != watcher.url:
            for name, found in looks.items():
                found.append(seen(watcher, name, statements[name]))

    event.listen(Engine, "after_cursor_execute", look)
    try:
        yield looks
    finally:
        event.remove(Engine, "after_cursor_execute", look)


@pytest.mark.parametrize(
    ("options", "engine_options"),
    [
        ({}, {}),
        ({"transaction_per_migration": True}, {}),
        ({"transactional_ddl": False}, {}),
        ({}, {"isolation_level": "AUTOCOMMIT"}),
    ],
    ids=["one transaction", "one for each migration", "not transactional", "autocommit"],
)
def test_nobody_sees_more_than_before_or_after(
    project: Project, server: Server, options: dict[str, Any], engine_options: dict[str, Any]
) -> None:
    project.migrate(models(0))
    with project.engine.begin() as connection:
        for name in CHANGES:
            connection.execute(text(f"INSERT INTO {name} VALUES ('me'), ('you'), ('third')"))
    project.revision(models(1))
    project.confirm()
    url = server.url(project.url.database, user=READER)
    watcher = create_engine(
        url.update_query_dict({"options": "-c lock_timeout=2ms"}), pool_size=1, max_overflow=0
    )
    before = {name: seen(watcher, name) for name in CHANGES}
    project.options.update(options)
    project.engine_options.update(engine_options)

    with watching(watcher) as looks:
        project.upgrade()
        after = {name: seen(watcher, name) for name in CHANGES}
        project.downgrade()
    assert {name: seen(watcher, name) for name in CHANGES} == before
    watcher.dispose()
    for name, found in looks.items():
        assert len(found) > 10
        assert set().union(*found) <= before[name] | after[name], name


def one_each(command: str, *, read: str, write: str, is_read_first: bool) -> list[dict[str, Any]]:
    """A policy for SELECT, and one for *command*."""
    found = [
        {"name": "read", "command": "SELECT", "using": read},
        {"name": "write", "command": command, "using": write},
    ]
    return found if is_read_first else found[::-1]


UPDATED, DELETED = (
    "UPDATE {} SET owner = owner WHERE owner <> '' RETURNING owner",
    "DELETE FROM {} RETURNING owner",
)
ENDS = ("true", "owner = 'me'")
#: The statement of the reader, and the policies before and after: one is widened, and one narrowed.
TWO_COMMANDS: dict[str, tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    f"{command.lower()}_{'narrows' if is_narrower else 'widens'}_{'second' if is_read_first else 'first'}": (
        statement,
        one_each(command, read=ENDS[is_narrower], write=ENDS[not is_narrower], is_read_first=is_read_first),
        one_each(command, read=ENDS[not is_narrower], write=ENDS[is_narrower], is_read_first=is_read_first),
    )
    for command, statement in (("UPDATE", UPDATED), ("DELETE", DELETED))
    for is_narrower in (False, True)
    for is_read_first in (False, True)
}


def test_nobody_writes_more_than_before_or_after(project: Project, server: Server) -> None:
    def models(step: int) -> MetaData:
        metadata = MetaData()
        for name, (_, *steps) in TWO_COMMANDS.items():
            notes(metadata, name, *steps[step])
        return metadata

    project.engine_options["isolation_level"] = "AUTOCOMMIT"
    project.migrate(models(0))
    with project.engine.begin() as connection:
        for name in TWO_COMMANDS:
            connection.execute(text(f"INSERT INTO {name} VALUES ('me'), ('you')"))
    project.revision(models(1))
    url = server.url(project.url.database, user=READER)
    watcher = create_engine(
        url.update_query_dict({"options": "-c lock_timeout=2ms"}), pool_size=1, max_overflow=0
    )
    statements = {name: statement for name, (statement, *_) in TWO_COMMANDS.items()}

    with watching(watcher, statements) as looks:
        project.upgrade()
        after = {name: seen(watcher, name, statement) for name, statement in statements.items()}
        project.downgrade()
    watcher.dispose()

    for name, found in looks.items():
        assert after[name] == {"me"}
        assert len(found) > 10
        assert set().union(*found) == {"me"}, name


def test_policies_are_altered_in_a_transaction(project: Project) -> None:
    """Nobody else sees the states in between, and a revision has less text."""
    _, before, after = TWO_COMMANDS["update_widens_first"]
    for policies in (before, after):
        metadata = MetaData()
        notes(metadata, "two", *policies)
        written = project.migrate(metadata)

    assert operations(written) == ["alter_policy", "alter_policy"]


@pytest.mark.parametrize("arguments", ["", "a integer DEFAULT 1"])
def test_public_executes_no_function_in_between(project: Project, server: Server, arguments: str) -> None:
    def models(step: int) -> MetaData:
        metadata = MetaData()
        notes(metadata, "notes", MINE)
        if step:
            sql_function(
                'My "f" 100%',
                metadata,
                arguments=arguments if step == 2 else "b integer DEFAULT 2",
                returns="bigint",
                body="SELECT count(*) FROM public.notes",
                security_definer=True,
                to="pg_monitor",
            )
        return metadata

    project.engine_options["isolation_level"] = "AUTOCOMMIT"
    project.migrate(models(0))
    with project.engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('you')"))
    url = server.url(project.url.database, user=READER)
    watcher = create_engine(url, pool_size=1, max_overflow=0)
    counted = {"notes": 'SELECT "My ""f"" 100%"()::text'}

    for step in (1, 2, 0):
        project.revision(models(step))
        project.confirm()
        with watching(watcher, counted) as looks:
            project.upgrade()
        assert set().union(*looks["notes"]) == set()
    for _ in (0, 2):
        with watching(watcher, counted) as looks:
            project.downgrade()
        assert set().union(*looks["notes"]) == set()
    watcher.dispose()
