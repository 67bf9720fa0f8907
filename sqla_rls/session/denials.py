"""Errors with SQLSTATE 42501 by their reason: a policy, or a missing privilege."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import AccessDenied, PrivilegeMissing, RowSecurityError, RowSecurityViolation
from sqla_rls.session.sharing import sessions_on
from sqla_rls.tokens.caller import Caller

if TYPE_CHECKING:
    from sqla_rls.tokens.signing import SigningKey

#: The function of the server that raises the error.  Its messages are in the language of lc_messages.
_KINDS: Final[dict[str, type[AccessDenied]]] = {
    "ExecWithCheckOptions": RowSecurityViolation,
    "aclcheck_error": PrivilegeMissing,
}

Command: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
_CHANGES: Final[tuple[Command, ...]] = ("INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedStatement:
    """A statement that Postgres has denied to a caller, for ``BindingOptions(explain_denials=…)``."""

    caller: Caller
    command: Command | None
    #: The statement of SQLAlchemy; None for SQL text.
    statement: Any
    #: One mapping for each execution, and the names in it of the statement's parameters.
    parameters: Sequence[Mapping[str, Any]]
    bind_names: Mapping[Any, str]
    #: Whether INSERT reads its row back.
    returning: bool
    #: The schemas of ``schema_translate_map``.
    schemas: Mapping[str | None, str | None]
    #: The engine shows no values: ``create_engine(hide_parameters=True)``.
    hide_values: bool
    #: The settings and the key of the session.
    settings: Mapping[str, str]
    signing_key: SigningKey | None = field(repr=False)

    def __repr__(self) -> str:
        return f"DeniedStatement(command={self.command!r})"  # parameters and keys are confidential


#: Returns the reason of a denial, for the message of the error.
DenialCallback: TypeAlias = Callable[[DeniedStatement], str]


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
    denial = kind.of(error, command=command, table=table, reason=_reason(context, kind, command))
    if (explanation := _explained(context, command, error.hide_parameters)) is not None:
        denial.args = (f"{denial.args[0]}\n{explanation}",)
    return denial


def _reason(context: ExceptionContext, kind: type[AccessDenied], command: Command | None) -> str | None:
    """A reason that is narrower than that of *kind*, by the statement alone."""
    compiled: Any = getattr(context.execution_context, "compiled", None)
    if kind is not RowSecurityViolation or command != "INSERT":
        return None
    reads = bool(compiled.effective_returning) or compiled.statement._post_values_clause is not None
    # Without RETURNING and ON CONFLICT, no SELECT policy sees the new row.
    return None if reads else "the new row violates the INSERT policies. Ask as the owner: sqla-rls why"


def _explained(context: ExceptionContext, command: Command | None, hide_values: bool) -> str | None:
    """The answer of the session's ``explain_denials``; None if it has none."""
    for session in sessions_on(context.connection):
        options, caller = session._options, session._bound
        explain = options.binding.explain_denials
        if explain is None or not isinstance(caller, Caller):
            continue
        execution: Any = context.execution_context
        compiled: Any = getattr(execution, "compiled", None)
        try:
            return str(
                explain(
                    DeniedStatement(
                        caller=caller,
                        command=command,
                        statement=getattr(compiled, "statement", None),
                        parameters=getattr(execution, "compiled_parameters", ()),
                        bind_names=getattr(compiled, "bind_names", {}),
                        returning=bool(getattr(compiled, "effective_returning", None)),
                        schemas=execution.execution_options.get("schema_translate_map") or {},
                        hide_values=hide_values,
                        settings=options.settings,
                        signing_key=options.signing_key,
                    )
                )
            )
        except Exception as problem:
            # The denial itself counts.  Other errors may have claims in their messages.
            original = problem.orig if isinstance(problem, DBAPIError) else problem
            is_known = isinstance(problem, DBAPIError | RowSecurityError)
            why = str(original).partition("\n")[0] if is_known else type(problem).__name__
            return f"The denial can't be explained: {why}"
    return None


def _command_of(context: ExceptionContext) -> tuple[Command | None, str | None]:
    """The command of the statement, and its table; None where SQLAlchemy hasn't compiled it."""
    compiled: Any = getattr(context.execution_context, "compiled", None)
    statement: Any = getattr(compiled, "statement", None)
    for command in _CHANGES:
        if getattr(statement, f"is_{command.lower()}", False):
            return command, str(statement.table.fullname)
    return ("SELECT", None) if getattr(statement, "is_select", False) else (None, None)
