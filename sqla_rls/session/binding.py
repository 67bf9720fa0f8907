"""A caller becomes settings of one transaction.

The role is set with ``set_config('role', …, true)``.  The claims are told as ``request.jwt.claims``, which
trusts whoever can run SQL on the connection, or as ``pg_session_jwt.jwt``, a token that the database
verifies.  All of it ends with the transaction; it goes with BEGIN, if the driver's connection can, else in a
statement that any driver can send.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from random import SystemRandom
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, TextClause, func, literal_column, select, text, true, type_coerce
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from sqla_rls.driver.base import MARK, Binding, DriverConnection, require_unexpired
from sqla_rls.exc import BindingError, DeclarationError, UnsupportedTransaction
from sqla_rls.log import Unlogged, UnloggedText
from sqla_rls.session.options import Rules
from sqla_rls.tokens.provider import check_role
from sqla_rls.tokens.verifier import Identity

#: What a signed nobody claims: a token of their own, so that none that is left behind counts.
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccess:
    """Access on nobody's behalf, and the reason for it; *role* None is the login role's own."""

    reason: str
    role: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise DeclarationError("service access needs a reason, for whoever reads the log")
        if self.role is not None:
            try:
                check_role(self.role)
            except ValueError as problem:
                raise DeclarationError(f"{problem}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, which checks.
        return partial(type(self), reason=self.reason, role=self.role), ()


Caller: TypeAlias = Identity | ServiceAccess


def bind(
    connection: Connection, caller: Caller, rules: Rules | None = None, *, joined: bool = False
) -> Callable[[], None]:
    """Bind *caller* to the transaction that *connection* is in, and return what takes the binding back.

    Emitted: one SELECT of ``set_config(…, true)`` for the role, the claims or the token, and the settings of
    *rules*.  Unless their way is "statement", it goes with BEGIN where the connection can do so, and an error
    of the server's comes with the first statement; to be clean, BEGIN has explicit modes, and RESET ALL
    follows.  If no role may be set, it is the login role's own, and must be the caller's.

    In a transaction that is *joined*, one SELECT reads the settings first, and what is returned restores
    them.  Elsewhere the binding ends with the transaction; what is returned drops one that was not sent.

    Raises ExpiredToken, SignedBindingUnavailable, UnsupportedTransaction for AUTOCOMMIT, and BindingError
    where the server refuses; nothing is bound then.
    """
    rules = rules or Rules()
    driver_connection: Any = connection.connection.driver_connection
    if rules.strict:
        found = rules.origin(connection)
        if found is None or not found.direct or not isinstance(driver_connection, DriverConnection):
            raise UnsupportedTransaction(_STRICT)
    mark = driver_connection.mark if isinstance(driver_connection, DriverConnection) and not joined else None
    binding = _binding(connection, caller, rules, mark)
    if joined:
        if rules.strict:
            raise UnsupportedTransaction(_STRICT)
        _require_transaction(connection)
        # Postgres shows no seed, and a new one is as good.
        before = _settings_of(connection, ["role", *(name for name in binding.settings if name != _SEED)])
        _execute(connection, binding, set_role=rules.set_role or binding.role == "none")
        return partial(_restore, connection, before)
    if rules.is_carried:
        if isinstance(driver_connection, DriverConnection):
            if not driver_connection.autocommit_is_bound:
                _require_transaction(connection)
            if driver_connection.carry(binding, rules.way):
                return partial(driver_connection.drop, binding)
        else:
            rules.replace(connection)
    if rules.strict:
        raise UnsupportedTransaction(_STRICT)
    _require_transaction(connection)
    _execute(connection, binding, set_role=rules.set_role or binding.role == "none")
    if not isinstance(driver_connection, DriverConnection):
        return _nothing
    driver_connection.executed = binding
    return partial(driver_connection.drop, binding)


_SEED: Final = "seed"
_entropy: Final = SystemRandom()


def _seed() -> str:
    return str(_entropy.uniform(-1, 1))


_STRICT: Final = (
    "strict=True sends DISCARD ALL before BEGIN: that takes psycopg or asyncpg, without a creator or "
    "connection class of the application's own, connected to the server directly, a way that isn't "
    "'statement', and a session that begins the transaction itself"
)


def _binding(connection: Connection, caller: Caller, rules: Rules, mark: str | None) -> Binding:
    if isinstance(caller, ServiceAccess):
        # SET ROLE none: back from what ALTER ROLE … SET role, or the last caller, may have left.
        role, claims, claims_json, expires_at = caller.role or "none", _NOTHING, "", None
    else:
        role, claims, expires_at = caller.role, caller.claims, caller.expires_at
        claims_json = caller.claims_json if claims else ""
    require_unexpired(expires_at)
    means = rules.means(connection)
    settings: dict[str, str | Callable[[], str]] = {"request.jwt.claims": claims_json}
    if means.signer is not None:
        # Asked for when it is sent: in AUTOCOMMIT that is long after, and the token shortlived.
        token = partial(means.signer.token, claims, claims_json, expires_at)
        settings = {"request.jwt.claims": "", "pg_session_jwt.jwt": token}
    if means.modes is not None:
        # The last caller may know what random() returns next; RESET ALL and DISCARD ALL leave that alone.
        settings[_SEED] = _seed
    if not means.direct or MARK in means.settings:
        # A pooler's server may report to another client that it has another value.
        mark = None
    elif mark is not None:
        settings[MARK] = mark
    settings.update(means.settings)
    return Binding(
        role=role,
        settings=settings,
        expires_at=expires_at,
        modes=means.modes,
        person=_discarded_after(caller, rules.person_claims) if rules.strict else None,
        confidential=means.signer is not None,
        transferable=means.signer is not None and not means.signer.bound,
        mark=mark,
    )


def person(caller: Caller, names: Sequence[str] | None = None) -> Hashable:
    """Equal for two callers that are one person: for all tokens of one sign-in.

    An Identity is compared by its role and all claims but those that differ between two such tokens; with
    *names*, by its role, ``iss``, ``sub``, ``provider_sub`` and the claims of these names.
    """
    if isinstance(caller, ServiceAccess):
        return ServiceAccess, caller.role
    return Identity, caller.role, caller.sign_in(names)


def _discarded_after(caller: Caller, names: Sequence[str] | None) -> Hashable:
    """Equal for the transactions of one person: two callers without a subject may be two."""
    unknown = isinstance(caller, Identity) and caller.subject is None
    return object() if unknown else person(caller, names)


#: An empty text isn't a token to pg_session_jwt.  Postgres has no other way to unset them in a transaction.
_UNSET_BY_RESET: Final = frozenset({"request.jwt.claims", "pg_session_jwt.jwt"})


def _settings_of(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    # Claims are personal, and SQLAlchemy's debug log shows rows.
    columns = [
        type_coerce(func.pg_catalog.current_setting(literal_column(f"'{name}'"), true()), UnloggedText)
        for name in names
    ]
    values = connection.execute(select(*columns)).one()
    return {name: value or "" for name, value in zip(names, values, strict=True)}


def _restore(connection: Connection, before: Mapping[str, str]) -> None:
    """Give the transaction its role and settings of *before* back."""
    kept = {name: value for name, value in before.items() if value or name not in _UNSET_BY_RESET}
    role = kept.pop("role")
    parameters = {f"value_{number}": Unlogged(value) for number, value in enumerate(kept.values())}
    try:
        for name in before.keys() - kept.keys() - {"role"}:
            connection.exec_driver_sql(f"RESET {name}")
        connection.execute(_select(tuple(kept), True), {"role": role, **parameters})
    except (DBAPIError, PendingRollbackError):
        # The transaction has failed or its connection is gone: ROLLBACK, which alone can follow, undoes it.
        return


def _execute(connection: Connection, binding: Binding, *, set_role: bool) -> None:
    role, *values = map(Unlogged, binding.parameters())
    names = [f"value_{number}" for number in range(len(values))]
    parameters = dict(zip(names, values, strict=True))
    if set_role:
        parameters["role"] = role
    try:
        answer = connection.execute(_select(tuple(binding.settings), set_role), parameters)
        bound = answer.scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        raise binding.refused(getattr(error.orig, "sqlstate", None)) from error.orig
    if bound != binding.role:
        raise BindingError(
            f"the connection's role is {bound!r} and the caller's is {binding.role!r}: log in as "
            "that role, or let the login role switch with set_role=True"
        )


@cache
def _select(names: tuple[str, ...], set_role: bool) -> TextClause:
    # true: transaction-local.  A plain SET survives COMMIT and would greet the next user of this connection.
    # Their lengths come back, not the values: SQLAlchemy's debug log shows rows.
    role = "pg_catalog.set_config('role', :role, true)" if set_role else "current_user::pg_catalog.text"
    values = [
        f"pg_catalog.length(pg_catalog.set_config('{name}', :value_{number}, true))"
        for number, name in enumerate(names)
    ]
    return text("SELECT " + ", ".join([role, *values]))


def _nothing() -> None:
    pass


def _require_transaction(connection: Connection) -> None:
    dialect: Any = connection.dialect
    try:
        in_autocommit = dialect.detect_autocommit_setting(connection.connection.dbapi_connection)
    except NotImplementedError:
        raise UnsupportedTransaction(
            f"driver {dialect.driver} doesn't tell whether it is in AUTOCOMMIT"
        ) from None
    if in_autocommit:
        raise UnsupportedTransaction(
            "the connection is in AUTOCOMMIT, where a binding ends with its own statement; use a transaction"
        )
