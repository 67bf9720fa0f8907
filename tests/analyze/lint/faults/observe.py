"""The outcome of a statement that a caller runs, and the work that its plan does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from tests.analyze.lint.faults.case import Caller, Clean, Fault, Look, Outcome, Slow, Works

_ROLES: Final = """
CREATE ROLE anonymous; CREATE ROLE authenticated; CREATE ROLE app_owner;
CREATE ROLE app_login LOGIN NOINHERIT;
GRANT anonymous, authenticated TO app_login;
"""
_AUTH: Final = "GRANT USAGE ON SCHEMA auth TO anonymous, authenticated, app_owner;\n"
_OWNER: Final = "GRANT CREATE, USAGE ON SCHEMA public TO app_owner;\nSET LOCAL ROLE app_owner;\n"


def prepare(connection: psycopg.Connection[Any], case: Fault | Clean) -> None:
    """Create the roles and the schema, in the transaction of a superuser."""
    has_auth = not isinstance(case, Clean) or case.has_auth
    _script(connection, _ROLES + (_AUTH if has_auth else "") + _OWNER + case.schema)
    connection.execute("RESET ROLE")


def fill(connection: psycopg.Connection[Any], case: Fault | Clean) -> None:
    """Insert the rows."""
    _script(connection, case.rows)


def mend(connection: psycopg.Connection[Any], fault: Fault) -> None:
    """Remove the fault."""
    _script(connection, "SET LOCAL ROLE app_owner;\n" + fault.mend)
    connection.execute("RESET ROLE")


def outcome(connection: psycopg.Connection[Any], look: Look | Works) -> Outcome:
    """Run the statements as the caller, and undo them; return what the last one gives."""
    try:
        with connection.transaction(force_rollback=True), _as(connection, look.caller):
            for statement in look.first:
                connection.execute(statement.encode())
            found = connection.execute(look.statement.encode())
            if found.description:
                return [row[0] for row in found.fetchall()]
            return "done" if found.rowcount < 0 else found.rowcount
    except psycopg.Error as error:
        return error.sqlstate or "no SQLSTATE"


def work(connection: psycopg.Connection[Any], slow: Slow) -> float:
    """Return the rows or pages that the plan of the statement reads, or the functions that it calls."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL track_functions = 'all'")
        # A rollback keeps the numbers.
        earlier = _calls(connection)
        with _as(connection, slow.caller):
            explained = connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {slow.statement}".encode()
            )
            found = explained.fetchone()
        assert found
        plan = found[0][0]["Plan"]
        match slow.by:
            case "rows":
                return float(sum(_rows(plan)))
            case "pages":
                return float(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
            case "calls":
                return _calls(connection) - earlier


def _calls(connection: psycopg.Connection[Any]) -> float:
    found = connection.execute("SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions").fetchone()
    assert found
    return float(found[0])


def _rows(plan: dict[str, Any]) -> Iterator[float]:
    """The rows that each part of a plan emits or drops."""
    loops = plan["Actual Loops"]
    yield loops * (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + 1)
    for part in plan.get("Plans", ()):
        yield from _rows(part)


@contextmanager
def _as(connection: psycopg.Connection[Any], caller: Caller) -> Iterator[None]:
    settings = dict(caller.settings)
    settings["request.jwt.claims"] = "" if caller.claims is None else json.dumps(caller.claims)
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    if caller.login is not None:
        connection.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(caller.login)))
    if caller.role is not None:
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(caller.role)))
    yield


def _script(connection: psycopg.Connection[Any], script: str) -> None:
    connection.execute(script.encode())
