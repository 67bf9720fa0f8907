"""Binds a caller to one transaction by settings.

``set_config('role', …, true)``, or SET LOCAL, sets the role.  The claims are the value of
``request.jwt.claims``, or a token in ``pg_session_jwt.jwt``, which the database verifies.  The first trusts
all SQL on the connection.  All settings end with the transaction.  They go with BEGIN, if the driver's
connection can send them so.  Otherwise they go in a statement of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Final
from weakref import ReferenceType, ref

from sqlalchemy import Connection, TextClause, func, literal_column, select, text, true, type_coerce
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from sqla_rls.driver.base import CLAIMS, SEPARATE_CLAIMS, Binding, BindingTemplate, require_unexpired
from sqla_rls.driver.returned import reset_when_returned
from sqla_rls.driver.unprepared import unprepared
from sqla_rls.exc import BindingError, UnsupportedTransaction
from sqla_rls.log import Unlogged, UnloggedText
from sqla_rls.session.plan import SEED, ConnectionPlan, replace_later
from sqla_rls.session.principal import Principal, discard_key
from sqla_rls.tokens.caller import Caller

#: The claims of a caller without claims.  With a signature, such a caller has a token, too: it replaces one
#: that the last caller may have left.
_NOTHING: Final[Mapping[str, Any]] = {}


def bind(
    connection: Connection, principal: Principal, plan: ConnectionPlan, *, joined: bool = False
) -> Callable[[], None]:
    """Bind *principal* to the transaction that *connection* is in.

    Args:
        connection: a connection in a transaction.
        principal: the caller, or the service access.
        plan: how callers are bound on this connection.
        joined: the application, or another session, began the transaction.

    Returns:
        A function that undoes the binding.  In a joined transaction it restores the earlier settings.
        Elsewhere it drops a binding that was not sent; one that was sent ends with the transaction.

    Raises:
        ExpiredToken: the caller has expired.
        UnsupportedTransaction: AUTOCOMMIT with a statement of its own, or a connection that doesn't support
            the options.
        BindingError: the server refuses, and the transaction has no caller.

    Emits:
        One SELECT of ``set_config(…, true)`` for the role, the claims or the token, and the settings of the
        plan.  The transports "pipeline" and "with_begin" send it with BEGIN, where the connection can; an
        error of the server comes with the first statement.  As text, the role is a SET LOCAL of its own, and
        PostgreSQL 18 gets SET LOCAL for each setting.  RESET ALL goes with COMMIT or ROLLBACK; where it
        wasn't the last statement, it follows BEGIN, which has the plan's modes then.  Without ``set_role``
        it sets no role, and the login role must be the caller's.  In a joined transaction one SELECT reads
        the settings first.
    """
    sender = plan.sender
    if sender is not None and not joined:
        binding = _binding(principal, plan, plan.sent_template)
        if sender.queue(binding, plan.options.binding.transport):
            return partial(sender.unqueue, binding)
    if plan.discards:
        raise UnsupportedTransaction(_RESETS_ALL)
    binding = _binding(principal, plan, plan.joined_template if joined else plan.template)
    options, driver_connection = plan.options, plan.driver_connection
    if driver_connection is None and not joined and options.goes_with_begin:
        replace_later(connection, options)
    _require_transaction(connection)
    sets_role = options.binding.set_role or binding.role == "none"
    if joined:
        # Postgres doesn't show the seed, and a new one serves as well.
        before = _settings_of(connection, ["role", *(name for name in binding.names if name != SEED)])
        _execute(connection, binding, set_role=sets_role)
        _leave(connection, binding, plan)
        return partial(_restore, ref(connection), before)
    if driver_connection is not None and driver_connection.is_ended:
        driver_connection.drop()
    _execute(connection, binding, set_role=sets_role)
    _leave(connection, binding, plan)
    if driver_connection is None:
        return _nothing
    driver_connection.executed = binding
    return partial(driver_connection.unqueue, binding)


_RESETS_ALL: Final = (
    "the caller can't be bound: reset='all' sends DISCARD ALL before BEGIN, and this connection can't. Use "
    "psycopg or asyncpg without a creator or connection class of your own, connect to the server directly, "
    "and let the session begin the transaction"
)

_IN_AUTOCOMMIT: Final = (
    "the caller can't be bound: the connection is in AUTOCOMMIT, where a binding ends with its own "
    "statement. Use a transaction"
)


def _binding(principal: Principal, plan: ConnectionPlan, template: BindingTemplate) -> Binding:
    if isinstance(principal, Caller):
        role, claims, expires_at = principal.role, principal.claims, principal.expires_at
        claims_json = principal.claims_json if claims else ""
    else:
        # SET ROLE none: ALTER ROLE … SET role, or the last caller, may have left another role.
        role, claims, claims_json, expires_at = principal.role or "none", _NOTHING, "", None
    if expires_at is not None:
        require_unexpired(expires_at)
    token, values = None, [claims_json]
    if plan.signer is not None:
        # The driver makes the token when it sends it: in AUTOCOMMIT, a token made here could have expired.
        token = partial(plan.signer.token, claims, claims_json, expires_at)
        values = [""] if template.names[0] == CLAIMS else []
    # In the order of the template's names.
    if plan.has_separate_claims:
        values += _separate_claims(role, claims, claims_json if token is None else None)
    return Binding(
        role=role,
        values=values,
        template=template,
        token=token,
        expires_at=expires_at,
        discard_key=discard_key(principal, plan.options.binding.principal_claims) if plan.discards else None,
    )


def _separate_claims(role: str, claims: Mapping[str, Any], claims_json: str | None) -> list[str]:
    """Return the values of SEPARATE_CLAIMS, which functions of other programs prefer.

    PostgREST once made these settings.  Without values, those that the last caller has left would count.

    Args:
        role: the role of the transaction.
        claims: the claims.
        claims_json: the claims as text; None leaves the settings empty, for claims that are signed.
    """
    if claims_json is None:
        return [""] * len(SEPARATE_CLAIMS)
    found = {"role": "" if role == "none" else role}
    found |= {name: value for name in ("sub", "role", "email") if isinstance(value := claims.get(name), str)}
    return [claims_json, *(found.get(name.rpartition(".")[2], "") for name in SEPARATE_CLAIMS[1:])]


#: pg_session_jwt refuses an empty text.  RESET is the only statement that unsets a setting in a transaction.
_UNSET_BY_RESET: Final = frozenset({CLAIMS, "pg_session_jwt.jwt", *SEPARATE_CLAIMS})


def _settings_of(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    # Claims are personal, and SQLAlchemy's debug log shows rows.
    columns = [
        type_coerce(func.pg_catalog.current_setting(literal_column(f"'{name}'"), true()), UnloggedText)
        for name in names
    ]
    with unprepared(connection):
        values = connection.execute(select(*columns)).one()
    return {name: value or "" for name, value in zip(names, values, strict=True)}


def _restore(known: ReferenceType[Connection], before: Mapping[str, str]) -> None:
    """Restore the role and the settings of *before* in the transaction."""
    # Weak: otherwise the pool would hold a connection that is dropped with its sessions.
    if (connection := known()) is None:
        return
    kept = {name: value for name, value in before.items() if value or name not in _UNSET_BY_RESET}
    role = kept.pop("role")
    parameters = {f"value_{number}": Unlogged(value) for number, value in enumerate(kept.values())}
    try:
        with unprepared(connection):
            for name in before.keys() - kept.keys() - {"role"}:
                connection.exec_driver_sql(f"RESET {name}")
            connection.execute(_select(tuple(kept), True), {"role": role, **parameters})
    except (DBAPIError, PendingRollbackError):
        # The transaction has failed or its connection is closed.  ROLLBACK follows, and undoes the binding.
        return


def _execute(connection: Connection, binding: Binding, *, set_role: bool) -> None:
    role, *values = map(Unlogged, binding.parameters())
    names = [f"value_{number}" for number in range(len(values))]
    parameters = dict(zip(names, values, strict=True))
    if set_role:
        parameters["role"] = role
    try:
        with unprepared(connection):
            bound = connection.execute(_select(binding.names, set_role), parameters).scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise binding.refused(getattr(error.orig, "sqlstate", None)) from error.orig
    if bound != binding.role:
        raise BindingError(
            f"the caller can't be bound: the connection's role is {bound!r}, and the caller's role is "
            f"{binding.role!r}. With set_role=False, log in as that role; or set set_role=True"
        )


@cache
def _select(names: tuple[str, ...], set_role: bool) -> TextClause:
    # true: transaction-local.  A plain SET survives COMMIT, and the next caller would inherit it.
    # length(): SQLAlchemy's debug log shows rows, and must not show claims.
    role = "pg_catalog.set_config('role', :role, true)" if set_role else "current_user::pg_catalog.text"
    values = [
        f"pg_catalog.length(pg_catalog.set_config('{name}', :value_{number}, true))"
        for number, name in enumerate(names)
    ]
    return text("SELECT " + ", ".join([role, *values]))


def _leave(connection: Connection, binding: Binding, plan: ConnectionPlan) -> None:
    """Let the connection reset what the caller leaves, before it runs a transaction without a binding."""
    if plan.modes is None:
        return
    if plan.driver_connection is None:
        reset_when_returned(connection, binding.template)
    else:
        plan.driver_connection.leftovers = binding.template


def _nothing() -> None:
    pass


def _require_transaction(connection: Connection) -> None:
    dialect: Any = connection.dialect
    try:
        in_autocommit = dialect.detect_autocommit_setting(connection.connection.dbapi_connection)
    except NotImplementedError:
        raise UnsupportedTransaction(
            f"the caller can't be bound: driver {dialect.driver} doesn't report AUTOCOMMIT. "
            "Use psycopg or asyncpg"
        ) from None
    if in_autocommit:
        raise UnsupportedTransaction(_IN_AUTOCOMMIT)
