"""The session class of an enforced factory: it runs each transaction as its caller, and none without one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Mapper, Session, SessionTransaction, object_mapper

from sqla_rls.driver.base import ENDED
from sqla_rls.exc import (
    CallerRequired,
    DeclarationError,
    TransactionRefused,
)
from sqla_rls.session.options import SessionOptions, TokenCallback
from sqla_rls.session.principal import Principal, ServiceAccess
from sqla_rls.session.sharing import REFUSED, Share
from sqla_rls.tokens.caller import Caller

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import CoreExecuteOptionsParameter
    from sqlalchemy.orm.session import _BindArguments

    from sqla_rls.tokens.verifier import Verifier


_O = TypeVar("_O")

_UNIDENTIFIED: Final = (
    "the transaction can't begin: this session has no caller. Call identify(session, caller), "
    "or identify(session, Caller.anonymous()) for public access"
)


class RowSecuritySession(Session):
    """A Session that runs each transaction as its caller, and refuses to run without one.

    ``enforce_row_security()`` derives it from the session class of a factory.

    Args:
        token: the token of the caller.  Each transaction verifies it when it begins; the verifier caches the
            result.  Or a function that returns the token or a Caller, called by each transaction.  Under
            asyncio it may be a coroutine function.
    """

    _options: ClassVar[SessionOptions]
    _caller: Principal | str | TokenCallback | None = None
    #: The principal of the transaction in progress, and of the last one.
    _bound: Principal | None = None
    _last: Principal | None = None
    #: The transaction in progress.
    _root: SessionTransaction | None = None
    #: One for each connection of the transaction in progress.
    _shares: list[Share] | None = None
    #: Connections that the application gave, and whether each was in a transaction before the session's.
    _given: WeakKeyDictionary[Connection, bool] | None = None

    def __init__(self, *args: Any, token: str | TokenCallback | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        if token is not None:
            if not callable(token):
                require_verifier(self._options.verifier)
            self._caller = token

    def close(self) -> None:
        """Close the session, and forget the caller, even if closing fails."""
        try:
            super().close()
        finally:
            self._forget()

    def reset(self) -> None:
        """Reset the session, and forget the caller, even if resetting fails."""
        try:
            super().reset()
        finally:
            self._forget()

    def invalidate(self) -> None:
        """Close the session and its connections, and forget the caller, even if closing fails."""
        try:
            super().invalidate()
        finally:
            self._forget()

    def get_bind(self, *args: Any, **kw: Any) -> Engine | Connection:
        """Return the bind, as in Session, which calls this method before each statement.

        Raises:
            TransactionRefused: the transaction in progress has no binding, or has lost it.
        """
        if self._transaction is not None:
            self._require_bound()
        bind = super().get_bind(*args, **kw)
        if isinstance(bind, Connection):
            self._give(bind)
        return bind

    def connection(
        self,
        bind_arguments: _BindArguments | None = None,
        execution_options: CoreExecuteOptionsParameter | None = None,
    ) -> Connection:
        """Return the connection, as in Session.

        Raises:
            TransactionRefused: the transaction in progress has no binding, or has lost it.
        """
        # If the arguments name a bind, Session doesn't call get_bind().
        self._require_bound()
        if isinstance(bind := (bind_arguments or {}).get("bind"), Connection):
            self._give(bind)
        return super().connection(bind_arguments, execution_options)

    def _give(self, connection: Connection) -> None:
        if self._given is None:
            self._given = WeakKeyDictionary()
        self._given[connection] = connection.in_transaction()

    def merge(self, instance: _O, **kw: Any) -> _O:
        """Merge *instance*, as in Session.

        Raises:
            CallerChanged: the session holds objects that another caller loaded.
        """
        self._require_same_caller(mapper=object_mapper(instance))
        return super().merge(instance, **kw)

    def merge_all(self, instances: Iterable[_O], **kw: Any) -> Sequence[_O]:
        """Merge *instances*, as in Session of SQLAlchemy 2.1.

        Raises:
            CallerChanged: the session holds objects that another caller loaded.
        """
        listed = list(instances)
        if listed:
            self._require_same_caller(mapper=object_mapper(listed[0]))
        return super().merge_all(listed, **kw)

    def _identity_lookup(self, mapper: Mapper[Any], *args: Any, **kw: Any) -> Any:
        # get() and lazy loads find a loaded object here, and then send no statement.
        self._require_same_caller(**{**(kw.get("bind_arguments") or {}), "mapper": mapper})
        return super()._identity_lookup(mapper, *args, **kw)

    def _require_same_caller(self, **bind_arguments: Any) -> None:
        """Begin a transaction if a callback may return another caller than the last one."""
        caller = self._options.token if self._caller is None else self._caller
        if self._last is not None and callable(caller) and self._bound_now() is None:
            self.connection(bind_arguments=bind_arguments)

    def _require_bound(self) -> None:
        root, transaction, shares = self._root, self._transaction, self._shares
        if transaction is not root and (root is None or self._has_ended()):
            # After an error ahead of the hook, the session still has the connection that it began on.
            while transaction is not None:
                if transaction._connections:
                    raise TransactionRefused(REFUSED)
                transaction = transaction.parent
            return
        if root is None:
            return
        # Session keeps each connection by itself and by its engine.
        if not shares or len(root._connections) > 2 * len(shares):
            raise TransactionRefused(REFUSED)
        for share in shares:
            if share.is_refused:
                raise TransactionRefused(REFUSED)
            if not share.is_in_force:
                raise TransactionRefused(ENDED)

    def _bound_now(self) -> Principal | None:
        self._has_ended()
        return self._bound

    def _has_ended(self) -> bool:
        """Return whether the transaction has ended, and clean up if an error has suppressed the event."""
        if self._root is not None and self.get_transaction() is not self._root:
            self._end(self._root)
        return self._root is None

    def _end(self, transaction: SessionTransaction | None) -> None:
        """End the binding of *transaction*, unless that is a savepoint of the one in progress."""
        if transaction is not self._root:
            return
        self._root = self._bound = None
        while self._shares:
            self._shares.pop().end()

    def _forget(self) -> None:
        # The next user of the session must identify it first.
        self._caller = self._last = None
        if self._root is not None:
            self._has_ended()

    def _ask(self, connection: Connection) -> Principal:
        """Return the present principal of the session."""
        caller: Principal | Any = self._options.token if self._caller is None else self._caller
        if callable(caller):
            caller = caller()
            if inspect.isawaitable(caller):
                caller = _wait(connection, caller)
        if caller is None:
            raise CallerRequired(_UNIDENTIFIED)
        if not isinstance(caller, Caller | ServiceAccess):
            verifier = require_verifier(self._options.verifier)
            if connection.dialect.is_async:
                caller = _wait(connection, verifier.verify_async(caller))
            else:
                caller = verifier.verify(caller)
        return caller


def require_verifier(verifier: Verifier | None) -> Verifier:
    if verifier is None:
        raise DeclarationError(
            "the token can't be verified: a session with a token needs a verifier. "
            "Call enforce_row_security(factory, verifier=Verifier(…))"
        )
    return verifier


def _wait(connection: Connection, answer: Any) -> Any:
    """Return the result of the awaitable *answer*.

    Raises:
        DeclarationError: the session isn't one of asyncio.
    """
    if not connection.dialect.is_async:
        if inspect.iscoroutine(answer):
            answer.close()
        raise DeclarationError(
            "the token can't be had: a sync session can't wait for a coroutine. "
            "Let token= return the token itself"
        )
    driver_connection: Any = connection.connection.dbapi_connection
    return driver_connection.run_async(lambda _: answer)
