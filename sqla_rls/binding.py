"""An identity becomes settings of one transaction.

The claims binder sets the role and ``request.jwt.claims``, both transaction-local, in one statement
that any driver can send.  It trusts whoever can run SQL on the connection: verify the token first, and
keep other people's SQL away.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import BindingError, ExpiredToken, UnsupportedTransaction
from sqla_rls.identity import Identity

# true: transaction-local.  A plain SET survives COMMIT and would greet the next user of this connection.
# Their length comes back, not the claims: SQLAlchemy's debug log shows rows.
_SET_CLAIMS: Final = "length(set_config('request.jwt.claims', :claims, true))"
_SET_ROLE_AND_CLAIMS: Final = text(f"SELECT set_config('role', :role, true), {_SET_CLAIMS}")
_SET_CLAIMS_ONLY: Final = text(f"SELECT current_user::text, {_SET_CLAIMS}")

_ABORT: Final = text("DO 'BEGIN RAISE EXCEPTION ''no identity is bound to this transaction''; END'")

_CURES: Final = {
    "42501": "the login role may not SET ROLE to it; GRANT it to the login role",
    "22023": "there is no such role; create it, as a migration that declares it does",
}


class _Unlogged(str):
    """Claims are personal: SQLAlchemy writes the repr of parameters into logs and errors."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


def bind(connection: Connection, identity: Identity, *, set_role: bool = True) -> None:
    """Bind *identity* to the transaction that *connection* is in.

    Emitted: one SELECT of ``set_config('role', …, true)`` and ``set_config('request.jwt.claims', …,
    true)``.  With *set_role* false the role is the login role's own, and must be the identity's.
    Raises ExpiredToken, UnsupportedTransaction for AUTOCOMMIT, and BindingError where the server
    refuses; nothing is bound then.
    """
    if identity.expired():
        raise ExpiredToken("the identity has expired: verify a fresh token and identify the session again")
    _require_transaction(connection)
    claims = _Unlogged(identity.claims_json if identity.claims else "")
    try:
        if set_role:
            role = connection.execute(
                _SET_ROLE_AND_CLAIMS, {"role": identity.role, "claims": claims}
            ).scalar()
        else:
            role = connection.execute(_SET_CLAIMS_ONLY, {"claims": claims}).scalar()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        cure = _CURES.get(getattr(error.orig, "sqlstate", None) or "", "the server refused")
        raise BindingError(f"role {identity.role!r} can't be bound: {cure}") from error.orig
    if role != identity.role:
        raise BindingError(
            f"the connection's role is {role!r} and the identity's is {identity.role!r}: log in as "
            "that role, or let the login role switch with set_role=True"
        )


def refuse(connection: Connection) -> None:
    """Make the transaction that *connection* is in useless until it is rolled back.

    A caller who goes on after an error would else run unbound.  Emitted: a DO block that fails.
    """
    if connection.invalidated:
        return
    try:
        _require_transaction(connection)
        connection.execute(_ABORT)
    except UnsupportedTransaction:
        # Nothing on the server to abort: what goes on must wait for a rollback all the same.
        connection.invalidate()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) is None:
            # Not from the server, so that nothing was aborted there.
            connection.invalidate()


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
