"""A caller becomes settings of one transaction.

The claims binder sets the role and ``request.jwt.claims``, both transaction-local: with BEGIN, if the
driver's connection can, else in a statement that any driver can send.  It trusts whoever can run SQL on
the connection: verify the token first, and keep other people's SQL away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.driver import Binding, DriverConnection, Way, install
from sqla_rls.exc import BindingError, DeclarationError, UnsupportedTransaction
from sqla_rls.identity import Identity
from sqla_rls.provider import check_role

# true: transaction-local.  A plain SET survives COMMIT and would greet the next user of this connection.
# Their length comes back, not the claims: SQLAlchemy's debug log shows rows.
_SET_CLAIMS: Final = "length(set_config('request.jwt.claims', :claims, true))"
_SET_ROLE_AND_CLAIMS: Final = text(f"SELECT set_config('role', :role, true), {_SET_CLAIMS}")
_SET_CLAIMS_ONLY: Final = text(f"SELECT current_user::text, {_SET_CLAIMS}")


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


Caller: TypeAlias = Identity | ServiceAccess


class _Unlogged(str):
    """Claims are personal: SQLAlchemy writes the repr of parameters into logs and errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def bind(
    connection: Connection, caller: Caller, *, set_role: bool = True, way: Way = "statement"
) -> Callable[[], None]:
    """Bind *caller* to the transaction that *connection* is in, and return what takes an unsent binding back.

    Emitted: one SELECT of ``set_config('role', …, true)`` and ``set_config('request.jwt.claims', …,
    true)``; unless *way* is "statement", it goes with BEGIN where the connection can do so, and an
    error of the server's comes with the first statement.  With *set_role* false the role is the login
    role's own, and must be the caller's.
    Raises ExpiredToken, UnsupportedTransaction for AUTOCOMMIT, and BindingError where the server
    refuses; nothing is bound then.
    """
    binding = _binding(caller)
    binding.check()
    driver_connection = connection.connection.driver_connection
    if way != "statement" and set_role:
        if isinstance(driver_connection, DriverConnection):
            if not driver_connection.autocommit_is_bound:
                _require_transaction(connection)
            if driver_connection.carry(binding, way):
                return partial(driver_connection.drop, binding)
        else:
            # One that was open before, or of an engine that wasn't known: the next one can.
            install(connection.engine)
    _require_transaction(connection)
    _execute(connection, binding, set_role=set_role or binding.role == "none")
    return _nothing


def _binding(caller: Caller) -> Binding:
    if isinstance(caller, ServiceAccess):
        # SET ROLE none: back from what ALTER ROLE … SET role, or the last caller, may have left.
        return Binding(caller.role or "none", "")
    return Binding(caller.role, caller.claims_json if caller.claims else "", caller.expires_at)


def _execute(connection: Connection, binding: Binding, *, set_role: bool) -> None:
    role, claims = binding.parameters()
    values = {"role": role, "claims": _Unlogged(claims)}
    try:
        if set_role:
            answer = connection.execute(_SET_ROLE_AND_CLAIMS, values)
        else:
            answer = connection.execute(_SET_CLAIMS_ONLY, {"claims": values["claims"]})
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


def _nothing() -> None:
    pass


def _require_transaction(connection: Connection) -> None:
    dialect: Any = connection.dialect
    if dialect.name != "postgresql":
        raise UnsupportedTransaction(f"row security is enforced, and {dialect.name} has none")
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
