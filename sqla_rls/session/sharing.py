"""Sessions that share the transaction of one driver connection; all of them have one caller.

A session joins the transaction of another session, or one that the application has begun on a connection.
The last session that leaves a joined transaction restores the earlier role and settings.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final
from weakref import ReferenceType, ref

from sqlalchemy import Connection, NestedTransaction, RootTransaction, event

from sqla_rls.driver.base import ENDED
from sqla_rls.driver.reports import reported_mark
from sqla_rls.exc import TransactionInProgress, TransactionRefused
from sqla_rls.session.principal import Principal, principal_key

#: The key of the Sharers in ``Connection.info``, which belongs to the driver connection.
_SHARERS: Final = "sqla_rls.sharers"
_EVENTS: Final = ("before_cursor_execute", "savepoint")


class Sharers(list["ReferenceType[Share]"]):
    """The shares that are bound in the transaction of one driver connection.

    The references are weak: otherwise the pool would hold the connection of a session that is dropped without
    close().
    """

    #: Restores the settings from before the first session joined; None if no session has joined.
    restore: Callable[[], None] | None = None

    def in_force(self) -> list[Share]:
        """Return the shares whose transactions are in progress."""
        return [share for known in self if (share := known()) is not None and share.is_in_force]


class Share:
    """The part of one session in the transaction of one connection."""

    #: The principal that is bound, and what undoes the binding.
    principal: Principal | None = None
    unbind: Callable[[], None] | None = None
    #: The transaction and the savepoint of the binding, which ends with any of them and with the savepoints
    #: around.  None before the binding and after it.
    _root: RootTransaction | None = None
    _savepoint: NestedTransaction | None = None
    #: Until the binding has succeeded, too: after an error, the session still holds the connection.
    is_refused: bool = True
    #: Listens to statements and refuses them.
    _check: Callable[..., None] | None = None

    def __init__(self, session: Any, connection: Connection, info: dict[Any, Any], joined: bool) -> None:
        """Take part in the transaction of *connection*.

        Args:
            session: the session.
            connection: a connection in a transaction.
            info: its ``Connection.info``.
            joined: whether the application had begun the transaction.
        """
        sharers: Sharers | None = info.get(_SHARERS)
        if sharers and not joined:
            # Otherwise, the pool has lent the connection again before its last session has ended.
            joined = bool(sharers.in_force())
            sharers = sharers if joined else None
        if sharers is None:
            sharers = info[_SHARERS] = Sharers()
        self.session, self.connection, self.sharers = session, connection, sharers
        #: Whether the transaction began before the session.
        self.joined = joined

    def require_one_caller(self, principal: Principal) -> None:
        """Raise TransactionInProgress if another session is bound to another caller than *principal*."""
        names = self.session._options.binding.principal_claims
        if any(
            other.principal is not principal and other.key != principal_key(principal, names)
            for other in self.sharers.in_force()
        ):
            raise TransactionInProgress(
                "the caller can't be bound: another session runs as another caller in this connection's "
                "transaction. Commit or close that session first, or give each session a connection of its "
                "own"
            )

    @property
    def key(self) -> Hashable:
        """The key of the principal."""
        assert self.principal is not None
        return principal_key(self.principal, self.session._options.binding.principal_claims)

    def bound(self, principal: Principal, unbind: Callable[[], None]) -> None:
        """Record that *principal* is bound to the transaction; *unbind* undoes the binding."""
        sharers = self.sharers
        if self.joined and not sharers.in_force():
            sharers.restore = unbind
        self.principal, self.unbind = principal, unbind
        # First, for an interrupt: _leave() removes it if there is a transaction.
        sharers.append(ref(self))
        connection = self.connection
        self._root, self._savepoint = connection._transaction, connection._nested_transaction

    @property
    def is_in_force(self) -> bool:
        """Whether the session's binding is in force."""
        return self._root is not None and _are_active(self._root, self._savepoint)

    def guard(self, mark: str | None) -> None:
        """Refuse statements on the connection from the end of its transaction to that of the session's.

        The connections of sqla_rls do so themselves.

        Args:
            mark: the value of the setting MARK for the transaction; None if the server doesn't report it.
        """
        driver_connection = self.connection.connection.driver_connection
        root, savepoint = self._root, self._savepoint

        # Without self: the connection may outlive a session that is dropped.
        def check(*_: Any) -> None:
            if (mark is not None and reported_mark(driver_connection) != mark) or not _are_active(
                root, savepoint
            ):
                raise TransactionRefused(ENDED)

        self._listen(check)

    def _listen(self, check: Callable[..., None]) -> None:
        self._unlisten()
        self._check = check
        for name in _EVENTS:
            event.listen(self.connection, name, check)

    def _unlisten(self) -> None:
        if self._check is not None:
            for name in _EVENTS:
                event.remove(self.connection, name, self._check)
            self._check = None

    def refuse(self) -> None:
        """Refuse all statements on the connection until the session has ended its transaction."""
        if self.joined:
            # The application uses the connection for other work, too.
            self._leave()
            self._restore()
            return
        self._listen(_refuse)
        self._leave()
        if self.connection.invalidated or self.sharers.in_force():
            return
        if self.unbind is not None:
            self.unbind()
        try:
            self.connection.dialect.do_rollback(self.connection.connection)
        except Exception as error:
            self.connection.invalidate(error)

    def end(self) -> None:
        """Leave the transaction of the connection, when the session's transaction has ended."""
        if self._check is not None:
            self._unlisten()
        self._leave()
        if self.joined:
            self._restore()
        elif self.unbind is not None:
            self.unbind()

    def _leave(self) -> None:
        if self._root is not None:
            self._root = None
            self.sharers.remove(ref(self))

    def _restore(self) -> None:
        restore = self.sharers.restore
        if restore is not None and not self.sharers.in_force():
            self.sharers.restore = None
            if not self.connection.closed and self.connection.in_transaction():
                restore()


def _are_active(root: RootTransaction | None, savepoint: NestedTransaction | None) -> bool:
    """Return whether the transaction *root*, *savepoint* and the savepoints around it are in progress."""
    while savepoint is not None:
        if not savepoint.is_active:
            return False
        savepoint = savepoint._previous_nested
    return root is not None and root.is_active


def sessions_on(connection: Connection | None) -> list[Any]:
    """Return the sessions whose callers are bound on *connection*."""
    if connection is None or connection.closed or connection.invalidated:
        return []
    found: Sharers | None = connection.info.get(_SHARERS)
    return [] if found is None else [share.session for share in found.in_force()]


def _refuse(*_: Any) -> None:
    raise TransactionRefused(REFUSED)


REFUSED: Final = "the transaction was refused: it has no caller. Call the session's rollback() first"
