"""Errors with SQLSTATE 42501 by their reason: a policy, or a missing privilege."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import AccessDenied, PrivilegeMissing, RowSecurityViolation

#: The function of the server that raises the error.  Its messages are in the language of lc_messages.
_KINDS: Final[dict[str, type[AccessDenied]]] = {
    "ExecWithCheckOptions": RowSecurityViolation,
    "aclcheck_error": PrivilegeMissing,
}


def name_denials(engine: Engine) -> None:
    """Let *engine* raise RowSecurityViolation and PrivilegeMissing."""
    listen_once(engine, _named)


def listen_once(engine: Engine, explain: Callable[[ExceptionContext], Exception | None]) -> None:
    """Let *explain* see each error of *engine*, once.

    ``event.contains()`` looks the engine up by its address.  The listener is the dialect's, and outlives
    the engine: another engine at the same address would pass for one that has it.
    """
    if explain not in list(engine.dialect.dispatch.handle_error):
        event.listen(engine, "handle_error", explain)


def _named(context: ExceptionContext) -> Exception | None:
    error = context.sqlalchemy_exception
    original: Any = context.original_exception
    if not isinstance(error, DBAPIError) or getattr(original, "sqlstate", None) != "42501":
        return None
    # psycopg has the source in .diag, asyncpg on the error that SQLAlchemy's adapter wraps.
    function = getattr(getattr(original, "diag", None), "source_function", None)
    function = function or getattr(original.__cause__, "server_source_function", None)
    if (kind := _KINDS.get(function or "")) is None:
        return None
    command, table = _command_of(context)
    return kind.of(error, command=command, table=table)


def _command_of(context: ExceptionContext) -> tuple[str | None, str | None]:
    """The command of the statement, and its table; None where SQLAlchemy hasn't compiled it."""
    compiled: Any = getattr(context.execution_context, "compiled", None)
    statement: Any = getattr(compiled, "statement", None)
    for command in ("insert", "update", "delete"):
        if getattr(statement, f"is_{command}", False):
            return command.upper(), str(statement.table.fullname)
    return ("SELECT", None) if getattr(statement, "is_select", False) else (None, None)
