"""What `sqla-rls harden --print` prints closes what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.cli import main
from sqla_rls.testing.postgres import Server
from tests.support.sessions import TASKS


def harden(admin: Engine) -> None:
    """As psql does, all in one; twice, as it may be run again."""
    sql = CliRunner().invoke(main, ["harden", "--print"]).output
    with admin.begin() as connection:
        for _ in range(2):
            connection.connection.driver_connection.execute(sql.encode())  # type: ignore[union-attr]


@pytest.fixture
def callers(url: URL) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(url, poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    yield maker
    engine.dispose()


ATTACKS = [
    "DROP OWNED BY CURRENT_USER",
    "DO $$BEGIN EXECUTE 'DROP OWNED BY CURRENT_USER'; END$$",
    "CREATE TEMP TABLE trap (id int)",
    "SELECT lo_from_bytea(0, 'copy')",
    "SELECT pg_cancel_backend(0)",
    "SELECT pg_terminate_backend(0)",
    "SELECT query FROM pg_stat_activity",
    "SELECT pg_stat_get_backend_activity(1)",
    "SELECT dblink_get_connections()",
    "SELECT pg_try_advisory_lock(20261128)",
]


@pytest.mark.exhaustive
def test_what_a_caller_injects_is_denied(
    admin: Engine, callers: sessionmaker[Session], todos: None, alice: Caller
) -> None:
    with admin.begin() as connection:
        connection.execute(text("CREATE EXTENSION dblink"))

    def outcome(attack: str) -> object:
        with callers() as session:
            identify(session, alice)
            try:
                session.execute(text(attack))
            except DBAPIError as error:
                return getattr(error.orig, "sqlstate", None)
            return "done"

    assert {attack: outcome(attack) for attack in ATTACKS} == dict.fromkeys(ATTACKS, "done")
    harden(admin)
    assert {attack: outcome(attack) for attack in ATTACKS} == dict.fromkeys(ATTACKS, "42501")


def test_drop_owned_opens_no_table(
    server: Server, admin: Engine, callers: sessionmaker[Session], todos: None, alice: Caller
) -> None:
    with admin.begin() as connection:
        for permissive, to in (("PERMISSIVE", "PUBLIC"), ("RESTRICTIVE", "authenticated")):
            using = "true" if to == "PUBLIC" else "user_id = auth.user_id()"
            connection.execute(
                text(f"CREATE POLICY for_{to} ON todos AS {permissive} TO {to} USING ({using})")
            )

    def visit() -> list[str]:
        with callers() as session:
            identify(session, alice)
            try:
                with session.begin_nested():
                    session.execute(text("DROP OWNED BY CURRENT_USER"))
            except DBAPIError:
                pass
            found = list(session.scalars(TASKS))
            session.rollback()
            return found

    # PostgreSQL 15 leaves alone the policies of tables that the role doesn't own.
    assert visit() == (["alice's", "bob's"] if server.version >= 18 else ["alice's"])
    harden(admin)
    assert visit() == ["alice's"]


def test_owners_of_protected_tables_may_still_drop_what_a_role_owns(admin: Engine, todos: None) -> None:
    harden(admin)
    with admin.connect() as connection:
        connection.execute(text("CREATE ROLE rls_test_owner"))
        connection.execute(text("SET LOCAL ROLE rls_test_owner"))
        savepoint = connection.begin_nested()
        with pytest.raises(DBAPIError, match="DROP OWNED is refused for role rls_test_owner"):
            connection.execute(text("DROP OWNED BY CURRENT_USER"))
        savepoint.rollback()
        connection.execute(text("RESET ROLE"))
        connection.execute(text("DROP OWNED BY rls_test_owner"))
        connection.execute(text("ALTER TABLE todos OWNER TO rls_test_owner"))
        connection.execute(text("SET LOCAL ROLE rls_test_owner"))
        connection.execute(text("DROP OWNED BY CURRENT_USER CASCADE"))
        assert connection.scalar(text("SELECT to_regclass('todos')")) is None
