"""Sessions that share the transaction of one driver connection; all of them have one caller.

A session joins the transaction of another session, or one that the application has begun on a connection.
The last session that leaves a joined transaction restores the earlier role and settings.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import ReferenceType, ref

from sqlalchemy import Connection, Transaction, event

from sqla_rls.driver.base import ENDED
from sqla_rls.driver.reports import reported_mark
from sqla_rls.exc import TransactionInProgress, TransactionRefused
from sqla_rls.session.principal import Principal, principal_key

#: The key of the Sharers in ``Connection.info``, which belongs to the driver connection.
_SHARERS: Final = "sqla_rls.sharers"
_EVENTS: Final = ("before_cursor_execute", "savepoint")


class Sharers:
    """The sessions that are bound in the transaction of one driver connection."""

    def __init__(self) -> None:
        #: Weak: otherwise the pool would hold the connection of a session that is dropped without close().
        self.members: list[ReferenceType[Share]] = []
        #: Restores the settings from before the first session joined; None if no session has joined.
        self.restore: Callable[[], None] | None = None
        #: The number of shares that haven't ended.
        self.shares = 0

    @classmethod
    def of(cls, info: dict[Any, Any], *, joined: bool) -> Sharers:
        """Return the sharers of a driver connection, for one more share.

        They are those of *info* if the share has *joined*, or another one is in force.
        """
        found: Sharers | None = info.get(_SHARERS)
        if found is None or (found.shares and not (joined or found.in_force())):
            # A new object: the pool may lend the connection again before its last session ends.
            found = info[_SHARERS] = cls()
        found.shares += 1
        return found

    def in_force(self) -> list[Share]:
        """Return the members whose transactions are in progress."""
        return [member for known in self.members if (member := known()) is not None and member.is_in_force]

    def clear(self) -> None:
        """Remove all members, when their transaction has ended."""
        for known in self.members:
            if (member := known()) is not None:
                member.is_member = False
        self.members.clear()
        self.restore = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Share:
    """The part of one session in the transaction of one connection."""

    #: Weak: a session that is dropped without close() must not block others.
    session: ReferenceType[Any]
    connection: Connection
    #: Whether the transaction began before the session.
    joined: bool
    sharers: Sharers
    principal: Principal | None = None
    #: The claims that make up a caller, in addition to those that always do.
    names: Sequence[str] | None = None
    #: The transaction, and the savepoints around the binding: the binding ends with any of them.
    transactions: Sequence[Transaction] = ()
    unbind: Callable[[], None] | None = None
    is_member: bool = False
    is_refused: bool = False
    #: Listens to statements, where the driver's connection doesn't check them.
    _check: Callable[..., None] | None = None

    def require_one_caller(self, principal: Principal, names: Sequence[str] | None) -> None:
        """Raise TransactionInProgress if another session is bound to another caller than *principal*."""
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
        return principal_key(self.principal, self.names)

    def bound(self, principal: Principal, names: Sequence[str] | None, unbind: Callable[[], None]) -> None:
        """Record that *principal* is bound to the transaction; *unbind* undoes the binding."""
        sharers = self.sharers
        if self.joined and not sharers.in_force():
            sharers.restore = unbind
        self.unbind = unbind
        self.principal, self.names = principal, names
        root, savepoint = self.connection._transaction, self.connection._nested_transaction
        assert root is not None
        transactions: list[Transaction] = [root]
        while savepoint is not None:
            transactions.append(savepoint)
            savepoint = savepoint._previous_nested
        self.transactions = transactions
        self.is_member = True
        sharers.members.append(ref(self))

    @property
    def is_in_force(self) -> bool:
        """Whether the session's binding is in force."""
        if not self.is_member:
            return False
        for transaction in self.transactions:
            if not transaction.is_active:
                return False
        return self.session() is not None

    def guard(self, mark: str | None) -> None:
        """Refuse statements on the connection from the end of its transaction to that of the session's.

        The connections of sqla_rls do so themselves.

        Args:
            mark: the value of the setting MARK for the transaction; None if the server doesn't report it.
        """
        driver_connection, transactions = self.connection.connection.driver_connection, self.transactions

        def check(*_: Any) -> None:
            if (mark is not None and reported_mark(driver_connection) != mark) or not all(
                transaction.is_active for transaction in transactions
            ):
                raise TransactionRefused(ENDED)

        self._check = check
        for name in _EVENTS:
            event.listen(self.connection, name, check)

    def _unguard(self) -> None:
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
        self._unguard()
        self.is_refused = True
        for name in _EVENTS:
            event.listen(self.connection, name, _refuse)
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
        if self.is_refused:
            for name in _EVENTS:
                event.remove(self.connection, name, _refuse)
        if self._check is not None:
            self._unguard()
        self.sharers.shares -= 1
        if self.joined:
            self._leave()
            self._restore()
            return
        if self.unbind is not None:
            self.unbind()
        # The driver's transaction has ended for all sessions that share it.
        self.sharers.clear()

    def _leave(self) -> None:
        if self.is_member:
            self.is_member = False
            self.sharers.members.remove(ref(self))

    def _restore(self) -> None:
        restore = self.sharers.restore
        if restore is not None and not self.sharers.in_force():
            self.sharers.restore = None
            if not self.connection.closed and self.connection.in_transaction():
                restore()


def sessions_on(connection: Connection | None) -> list[Any]:
    """Return the sessions whose callers are bound on *connection*."""
    if connection is None or connection.closed or connection.invalidated:
        return []
    found: Sharers | None = connection.info.get(_SHARERS)
    sessions = [] if found is None else [share.session() for share in found.in_force()]
    return [session for session in sessions if session is not None]


def _refuse(*_: Any) -> None:
    raise TransactionRefused(REFUSED)


REFUSED: Final = "the transaction was refused: it has no caller. Call the session's rollback() first"
