"""A caller becomes settings of one transaction.

The claims binder sets the role and ``request.jwt.claims``, both transaction-local, in one statement
that any driver can send.  It trusts whoever can run SQL on the connection: verify the token first, and
keep other people's SQL away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import BindingError, DeclarationError, ExpiredToken, UnsupportedTransaction
from sqla_rls.identity import Identity
from sqla_rls.provider import check_role

# true: transaction-local.  A plain SET survives COMMIT and would greet the next user of this connection.
# Their length comes back, not the claims: SQLAlchemy's debug log shows rows.
_SET_CLAIMS: Final = "length(set_config('request.jwt.claims', :claims, true))"
_SET_ROLE_AND_CLAIMS: Final = text(f"SELECT set_config('role', :role, true), {_SET_CLAIMS}")
_SET_CLAIMS_ONLY: Final = text(f"SELECT current_user::text, {_SET_CLAIMS}")

_CURES: Final = {
    "42501": "the login role may not SET ROLE to it; GRANT it to the login role",
    "22023": "there is no such role; create it, as a migration that declares it does",
}


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


def bind(connection: Connection, caller: Caller, *, set_role: bool = True) -> None:
    """Bind *caller* to the transaction that *connection* is in.

    Emitted: one SELECT of ``set_config('role', …, true)`` and ``set_config('request.jwt.claims', …,
    true)``.  With *set_role* false the role is the login role's own, and must be the caller's.
    Raises ExpiredToken, UnsupportedTransaction for AUTOCOMMIT, and BindingError where the server
    refuses; nothing is bound then.
    """
    _require_transaction(connection)
    if isinstance(caller, ServiceAccess):
        # SET ROLE none: back from what ALTER ROLE … SET role, or the last caller, may have left.
        role, claims, set_role = caller.role or "none", _Unlogged(""), set_role or caller.role is None
    else:
        if caller.expired():
            raise ExpiredToken(
                "the identity has expired: verify a fresh token and identify the session again"
            )
        role, claims = caller.role, _Unlogged(caller.claims_json if caller.claims else "")
    try:
        if set_role:
            answer = connection.execute(_SET_ROLE_AND_CLAIMS, {"role": role, "claims": claims})
        else:
            answer = connection.execute(_SET_CLAIMS_ONLY, {"claims": claims})
        bound = answer.scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        cure = _CURES.get(getattr(error.orig, "sqlstate", None) or "", "the server refused")
        raise BindingError(f"role {role!r} can't be bound: {cure}") from error.orig
    if bound != role:
        raise BindingError(
            f"the connection's role is {bound!r} and the caller's is {role!r}: log in as "
            "that role, or let the login role switch with set_role=True"
        )


def _require_transaction(connection: Connection) -> None:
    dialect: Any = connection.dialect
    if dialect.name != "postgresql":
        raise UnsupportedTransaction(f"row security is enforced, and {dialect.name} has none")
    try:
        autocommit = dialect.detect_autocommit_setting(connection.connection.dbapi_connection)
    except NotImplementedError:
        raise UnsupportedTransaction(
            f"driver {dialect.driver} doesn't tell whether it is in AUTOCOMMIT"
        ) from None
    if autocommit:
        raise UnsupportedTransaction(
            "the connection is in AUTOCOMMIT, where a binding ends with its own statement; use a transaction"
        )
