"""Sessions that run as somebody: the hook that binds an identity to every transaction.

It listens to ``Session.after_begin``, which AsyncSession shares, so that there is one implementation
for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session, sessionmaker

from sqla_rls.binding import bind, refuse
from sqla_rls.exc import (
    BindingError,
    DeclarationError,
    IdentityRequired,
    TransactionInProgress,
    UnsupportedTransaction,
)
from sqla_rls.identity import Identity, Verifier

if TYPE_CHECKING:
    # Not at run time: the asyncio extension needs greenlet, which sync applications may not have.
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker

    Factory: TypeAlias = (
        sessionmaker[Any] | async_sessionmaker[Any] | scoped_session[Any] | async_scoped_session[Any]
    )
    AnySession: TypeAlias = Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]

_UNIDENTIFIED: Final = (
    "this session has no identity; call identify(session, identity), "
    "or identify(session, ANONYMOUS) for public access"
)


class RowSecuritySession(Session):
    """A Session that runs each transaction as its identity, and none without one.

    ``enforce_row_security()`` derives it from the session class of a factory.  *token* is verified when a
    transaction begins, and again for each one that follows; a verified token is remembered.
    """

    _verifier: Verifier | None
    _set_role: bool
    _token: str | None = None
    _identity: Identity | None = None
    #: That of the transaction in progress.
    _bound: Identity | None = None

    def __init__(self, *args: Any, token: str | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        if token is not None and self._verifier is None:
            raise DeclarationError(
                "a session with a token needs a verifier: enforce_row_security(factory, verifier=Verifier(…))"
            )
        self._token = token

    # Who uses the session next identifies it anew.

    def close(self) -> None:
        """Close the session, and forget the identity."""
        super().close()
        self._token = self._identity = None

    def reset(self) -> None:
        """Reset the session, and forget the identity."""
        super().reset()
        self._token = self._identity = None

    def invalidate(self) -> None:
        """Close the session and its connections, and forget the identity."""
        super().invalidate()
        self._token = self._identity = None

    def _current_identity(self, connection: Connection) -> Identity:
        if self._token is None:
            if self._identity is None:
                raise IdentityRequired(_UNIDENTIFIED)
            return self._identity
        verifier, token = self._verifier, self._token
        assert verifier is not None
        if not connection.dialect.is_async:
            return verifier.verify(token)
        driver_connection: Any = connection.connection.dbapi_connection
        identity: Identity = driver_connection.run_async(lambda _: verifier.verify_async(token))
        return identity


def enforce_row_security(
    factory: Factory, *, verifier: Verifier | None = None, set_role: bool = True
) -> None:
    """Make every session of *factory* run as an identity, and refuse to run without one.

    *factory* is a sessionmaker, an async_sessionmaker, or a scoped session of one.  Its sessions take
    ``token=…``, which *verifier* verifies, or are given an identity by ``identify()``.  With *set_role*
    the login role switches to the identity's (``SET LOCAL ROLE``); without, it must be that role.
    At the start of each transaction is emitted: one SELECT of ``set_config(…, true)``.
    Raises DeclarationError for a factory that has it already.
    """
    maker: Any = getattr(factory, "session_factory", factory)
    is_sync = isinstance(maker, sessionmaker)
    base: type[Session] = (
        maker.class_ if is_sync else maker.kw.get("sync_session_class", maker.class_.sync_session_class)
    )
    if issubclass(base, RowSecuritySession):
        raise DeclarationError("row security is enforced on this session factory already")
    enforced = type(base.__name__, (RowSecuritySession, base), {"_verifier": verifier, "_set_role": set_role})
    # First: what another listener executes is bound, too.
    event.listen(enforced, "after_begin", _after_begin, insert=True)
    event.listen(enforced, "after_transaction_end", _after_transaction_end)
    if is_sync:
        maker.class_ = enforced
    else:
        # async_sessionmaker takes no events; the session that it wraps does.
        maker.configure(sync_session_class=enforced)


def identify(session: AnySession, identity: Identity) -> None:
    """Run the transactions of *session* as *identity* from now on.

    Raises BindingError if row security isn't enforced on the session's factory, and
    TransactionInProgress while a transaction is bound to another identity, or its changes wait to be flushed.
    """
    scoped: Any = session
    unscoped: Any = scoped.registry() if hasattr(scoped, "registry") else scoped
    target: Any = getattr(unscoped, "sync_session", unscoped)
    if not isinstance(target, RowSecuritySession):
        raise BindingError(
            "row security isn't enforced on this session, so that the identity would be ignored; "
            "call enforce_row_security() on its factory"
        )
    if not isinstance(identity, Identity):
        raise IdentityRequired(
            f"identify() takes an Identity, not {type(identity).__name__}; verify the token first"
        )
    if target._bound not in (None, identity):
        raise TransactionInProgress(
            "a transaction is in progress as another identity; commit or roll back before identify()"
        )
    if (target._token or target._identity) and target._identity != identity:
        if target.new or target.dirty or target.deleted:
            raise TransactionInProgress(
                "changes made as another identity wait to be flushed, and would be as this one; "
                "commit or expunge them before identify()"
            )
        # What the other has loaded is not this one's to see.
        target.expire_all()
    target._identity, target._token = identity, None


def _after_begin(
    session: RowSecuritySession, transaction: SessionTransaction, connection: Connection
) -> None:
    if transaction.nested:
        # A savepoint; its transaction is bound.
        return
    try:
        if session.twophase:
            raise UnsupportedTransaction(
                "PREPARE TRANSACTION loses what is bound; use a Session without twophase"
            )
        identity = session._bound or session._current_identity(connection)
        bind(connection, identity, set_role=session._set_role)
    except Exception:
        # The session holds on to the connection, for whoever goes on after this error.
        refuse(connection)
        raise
    except BaseException:
        # Cancelled: what reached the server isn't known, and nothing more can be waited for.
        connection.invalidate()
        raise
    session._bound = identity


def _after_transaction_end(session: RowSecuritySession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._bound = None
