"""FORCE binds the owner, who runs the migrations: autogenerate says so, and a block lifts it."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, auth_uid, force_row_level_security
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, notes
from tests.support.servers import administered
from tests.support.suite import table


def forced_notes(*policies: Policy, forced: bool = True) -> MetaData:
    own = Policy("own", using=auth_uid("user_id"), with_check=auth_uid("user_id"))
    return notes(own, *policies, *[force_row_level_security()] * forced)


@pytest.fixture
def owner(server: Server) -> Iterator[Engine]:
    """Connects as a role that is no superuser to a database that it owns."""
    name = server.create_database()
    with administered(server) as admin:
        if not admin.scalar(text("SELECT true FROM pg_roles WHERE rolname = 'forced_owner'")):
            admin.execute(text("CREATE ROLE forced_owner LOGIN PASSWORD 'forced_owner'"))
        admin.execute(text(f"ALTER DATABASE {name} OWNER TO forced_owner"))
    with create_engine(server.url(name), poolclass=NullPool).begin() as admin:
        # Where the server has pg_session_jwt, its schema is a superuser's.
        admin.execute(CreateAuthFunctions())
        admin.execute(text("GRANT USAGE ON SCHEMA auth TO forced_owner WITH GRANT OPTION"))
    engine = create_engine(server.url(name, user="forced_owner", password="forced_owner"), poolclass=NullPool)
    yield engine
    server.drop_database(name)


@pytest.fixture
def connection(owner: Engine) -> Iterator[Connection]:
    """On which ``notes``, which is forced and has a row, and ``tags``, which isn't, are there."""
    with owner.connect() as connection:
        metadata = forced_notes()
        Table("tags", metadata, Column("id", Integer, primary_key=True))
        metadata.create_all(connection)
        operations = operations_on(connection)
        with operations.without_forced_row_level_security("notes"):
            connection.execute(text("INSERT INTO notes VALUES (1, 'alice')"))
        connection.commit()
        yield connection


def operations_on(connection: Connection, **options: Any) -> Any:
    return Operations(MigrationContext.configure(connection, opts=options))


def is_forced(connection: Connection, table: str = "notes") -> bool:
    found = connection.scalar(
        text("SELECT relforcerowsecurity FROM pg_class WHERE relname = :table"), {"table": table}
    )
    assert isinstance(found, bool)
    return found


def updated(connection: Connection) -> int:
    return connection.execute(text("UPDATE notes SET user_id = upper(user_id)")).rowcount


REMARK = "data migrations can't reach every row of notes: row security is forced on its owner, and"
MISSED = f"{REMARK} no policy lets the owner"


def test_a_revision_says_whose_rows_the_owner_misses(
    tmp_path: Path, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path / "migrations", owner.url)
    with caplog.at_level(logging.WARNING, logger="alembic.autogenerate.sqla_rls"):
        written = project.revision(forced_notes())
    assert f"    # {REMARK}" in written
    assert "without_forced_row_level_security('notes')" in caplog.text
    lines = [line.strip() for line in written.splitlines()]
    assert lines[lines.index("op.force_row_level_security('notes')") - 1].startswith("# ")
    project.upgrade()
    caplog.clear()
    project.check(forced_notes())
    assert REMARK not in caplog.text


@pytest.mark.exhaustive
@table("role", ["CURRENT_USER", "forced_owner", "public"])
def test_a_policy_that_shows_the_owner_everything_is_enough(
    tmp_path: Path, owner: Engine, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path / "migrations", owner.url)
    everything = Policy("owner", roles=role, using=True, with_check=True)
    assert REMARK not in project.migrate(forced_notes(everything))
    assert REMARK not in caplog.text
    # The policy that goes is what the owner has seen rows by.
    project.revision(forced_notes())
    assert f"{MISSED} SELECT or INSERT or UPDATE or DELETE every row" in caplog.text


@pytest.mark.exhaustive
def test_a_restrictive_policy_keeps_rows_from_the_owner(
    tmp_path: Path, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path / "migrations", owner.url)
    narrow = Policy("narrow", "DELETE", using="id > 1", permissive=False)
    written = project.revision(forced_notes(Policy("owner", using=True), narrow))
    assert f"{MISSED} DELETE every row" in " ".join(written.replace("# ", "").split())


@pytest.mark.exhaustive
def test_the_block_reaches_every_row(connection: Connection) -> None:
    assert updated(connection) == 0
    operations = operations_on(connection)
    with operations.without_forced_row_level_security("notes", "tags"):
        assert updated(connection) == 1
        table = Table("notes", MetaData(), autoload_with=connection)
        operations.bulk_insert(table, [{"id": 2, "user_id": "bob"}])
    connection.commit()
    assert is_forced(connection)
    assert not is_forced(connection, "tags")
    assert updated(connection) == 0


@pytest.mark.exhaustive
def test_the_outer_block_puts_it_back(connection: Connection) -> None:
    operations = operations_on(connection)
    with operations.without_forced_row_level_security("notes"):
        with operations.without_forced_row_level_security("tags", "notes"):
            assert updated(connection) == 1
        assert updated(connection) == 1
    assert is_forced(connection)


def test_an_error_of_the_migration_puts_it_back(connection: Connection) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        operations_on(connection).without_forced_row_level_security("notes"),
    ):
        raise ZeroDivisionError
    connection.commit()
    assert is_forced(connection)


@pytest.mark.exhaustive
def test_an_error_of_postgres_is_the_one_that_shows(connection: Connection) -> None:
    with (
        pytest.raises(DBAPIError, match="division by zero"),
        operations_on(connection).without_forced_row_level_security("notes"),
    ):
        connection.execute(text("SELECT 1 / 0"))
    connection.rollback()
    assert is_forced(connection)
    assert not connection.scalar(text("SELECT current_setting('sqla_rls.lifted', true)::jsonb ? 'notes'"))


@pytest.mark.exhaustive
def test_an_error_without_a_transaction_puts_it_back(connection: Connection) -> None:
    connection.rollback()
    connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    with (
        pytest.raises(DBAPIError, match="division by zero"),
        operations_on(connection).without_forced_row_level_security("notes"),
    ):
        connection.execute(text("UPDATE notes SET id = 1 / (id - id)"))
    assert is_forced(connection)


@pytest.mark.exhaustive
def test_rows_that_wait_for_a_deferred_check_are_checked_first(connection: Connection) -> None:
    connection.execute(
        text("ALTER TABLE notes ADD parent int REFERENCES notes DEFERRABLE INITIALLY DEFERRED")
    )
    with operations_on(connection).without_forced_row_level_security("notes"):
        connection.execute(text("INSERT INTO notes VALUES (3, 'bob', 4), (4, 'bob', 3)"))
    connection.commit()
    assert is_forced(connection)


@pytest.mark.exhaustive
def test_a_renamed_table_is_forced_again(connection: Connection) -> None:
    with operations_on(connection).without_forced_row_level_security("notes"):
        connection.execute(text("ALTER TABLE notes RENAME TO memos"))
    assert is_forced(connection, "memos")


@pytest.mark.exhaustive
@pytest.mark.parametrize("forced", [True, False])
def test_a_script_puts_back_what_it_finds(connection: Connection, forced: bool) -> None:
    if not forced:
        connection.execute(text("ALTER TABLE notes NO FORCE ROW LEVEL SECURITY"))
    output = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": output}
    )
    operations: Any = Operations(context)
    with operations.without_forced_row_level_security("notes"):
        operations.execute("UPDATE notes SET user_id = 'carol'")
    connection.exec_driver_sql(output.getvalue())
    assert is_forced(connection) is forced
    with operations_on(connection).without_forced_row_level_security("notes"):
        assert connection.scalars(text("SELECT user_id FROM notes")).all() == ["carol"]


@pytest.mark.exhaustive
def test_names_are_quoted(connection: Connection) -> None:
    connection.execute(text("""CREATE SCHEMA "O'dd"; CREATE TABLE "O'dd"."a {b} % $sqla_rls$" (id int)"""))
    connection.execute(text("""ALTER TABLE "O'dd"."a {b} % $sqla_rls$" FORCE ROW LEVEL SECURITY"""))
    operations = operations_on(connection)
    with operations.without_forced_row_level_security("a {b} % $sqla_rls$", schema="O'dd"):
        assert not is_forced(connection, "a {b} % $sqla_rls$")
    assert is_forced(connection, "a {b} % $sqla_rls$")
