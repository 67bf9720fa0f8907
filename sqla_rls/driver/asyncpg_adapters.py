"""What keeps prepared statements of asyncpg, and SQLAlchemy's adapters, to the bound transaction."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from asyncpg.prepared_stmt import PreparedStatement as _PreparedStatement
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_ss_cursor,
)
from sqlalchemy.util import await_only


class PreparedStatement(_PreparedStatement):  # type: ignore[misc] # asyncpg isn't typed
    """A prepared statement that runs in the bound transaction only."""

    __slots__ = ()

    def fetch(self, *args: Any, **kw: Any) -> Any:
        connection: Any = self._connection
        if connection._waiting is not None:
            return connection.fetch_first(super().fetch, *args, **kw)
        fetch = super().fetch if connection._is_in_force else self._fetch
        if connection.is_unreported:
            return connection.fetch_unreported(fetch, *args, **kw)
        return fetch(*args, **kw)

    async def _fetch(self, *args: Any, **kw: Any) -> Any:
        if self._connection.is_one_shot:
            return await self._connection.fetch_one_shot(super().fetch, *args, **kw)
        self._connection._require_transaction()
        await self._connection.require_in_force()
        return await super().fetch(*args, **kw)

    def cursor(self, *args: Any, **kw: Any) -> Any:
        self._connection._require_transaction()
        cursor = super().cursor(*args, **kw)
        return CheckedCursor(self._connection, cursor) if self._connection.is_lost else cursor


class CheckedCursor:
    """Stands for asyncpg's factory of cursors, unless the bound transaction is certainly in progress.

    In a failed transaction, the error is that of Postgres.
    """

    __slots__ = ("_connection", "_factory")

    def __init__(self, connection: Any, factory: Any) -> None:
        self._connection, self._factory = connection, factory

    async def _open(self) -> Any:
        await self._connection.require_in_force()
        return await self._factory

    def __await__(self) -> Any:
        return self._open().__await__()

    async def __aiter__(self) -> Any:
        await self._connection.require_in_force()
        async for row in self._factory:
            yield row


def _in_force(name: str) -> Any:
    inherited = getattr(_PreparedStatement, name)
    is_one_fetch = name in ("fetchrow", "fetchval")

    async def checked(self: PreparedStatement, *args: Any, **kw: Any) -> Any:
        if is_one_fetch and self._connection.is_one_shot:
            return await self._connection.fetch_one_shot(partial(inherited, self), *args, **kw)
        self._connection._require_transaction()
        await self._connection.require_in_force()
        return await inherited(self, *args, **kw)

    def method(self: PreparedStatement, *args: Any, **kw: Any) -> Any:
        return (inherited if self._connection._is_in_force else checked)(self, *args, **kw)

    return method


for _name in ("executemany", "explain", "fetchmany", "fetchrow", "fetchval"):
    if hasattr(_PreparedStatement, _name):  # fetchmany() is new in asyncpg 0.30
        setattr(PreparedStatement, _name, _in_force(_name))


class WaitingTransaction:
    """Stands for asyncpg's Transaction, for SQLAlchemy; its BEGIN waits for a statement."""

    __slots__ = ("_begin", "_connection")
    #: asyncpg asks the server for the isolation level, before it begins a transaction in this one.
    _isolation = None
    #: asyncpg's reset() ends a transaction that no ``async with`` manages.
    _managed = False

    def __init__(self, connection: Any, begin: str) -> None:
        self._connection, self._begin = connection, begin

    async def start(self) -> None:
        self._connection.defer(self, self._begin)

    def commit(self) -> Awaitable[Any]:
        connection = self._connection
        connection._top_xact = None
        commit: Awaitable[Any] = connection.execute("COMMIT;")
        return commit

    def rollback(self) -> Awaitable[Any]:
        connection = self._connection
        connection._top_xact = None
        rollback: Awaitable[Any] = connection.execute("ROLLBACK;")
        return rollback


class ServerSideCursor(AsyncAdapt_asyncpg_ss_cursor):
    """SQLAlchemy's adapter of a cursor that Postgres keeps, which needs a transaction in progress."""

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        adapter: Any = self._adapt_connection
        async with adapter._execute_mutex:
            # SQLAlchemy 2.0 keeps a transaction that has failed to start.
            if not getattr(adapter, "_started", adapter._transaction):
                await adapter._start_transaction()
            try:
                await adapter._connection.begin()
                # In AUTOCOMMIT, the statement must not be prepared, either.
                adapter._connection._require_transaction()
            except Exception as error:
                adapter._handle_exception(error)
        await super()._prepare_and_execute(operation, parameters)  # type: ignore[no-untyped-call]


_LEVEL: Final[Any] = vars(AsyncAdapt_asyncpg_connection)["isolation_level"]


class Adapter(AsyncAdapt_asyncpg_connection):
    """SQLAlchemy's adapter of a ``Connection``, which refuses statements after a commit or rollback."""

    __slots__ = ()

    def _set_level(self, level: str | None) -> None:
        _LEVEL.__set__(self, level)
        connection: Any = self._connection
        connection.in_autocommit = level == "autocommit"

    # The getter is no function of Python, since SQLAlchemy reads the level in each transaction.
    isolation_level: Any = property(_LEVEL.__get__, _set_level)

    def cursor(self, server_side: bool = False) -> Any:
        return ServerSideCursor(self) if server_side else super().cursor()  # type: ignore[no-untyped-call]

    async def _start_transaction(self) -> None:
        connection: Any = self._connection
        protocol: Any = connection._protocol
        connection.may_wait = (
            connection.is_pipelined
            and connection.binding is not None
            and protocol is not None
            # asyncpg's own Transaction refuses to begin in a transaction that SQL text has begun.
            and not protocol.is_in_transaction()
        )
        try:
            await super()._start_transaction()  # type: ignore[no-untyped-call] # in SQLAlchemy
        finally:
            connection.may_wait = False

    def commit(self) -> None:
        connection: Any = self._connection
        connection.is_ended = connection.binding is not None or connection.executed is not None
        if connection.in_autocommit:
            self._end("COMMIT;")
        super().commit()  # type: ignore[no-untyped-call] # in SQLAlchemy

    def rollback(self) -> None:
        connection: Any = self._connection
        connection.is_ended = connection.binding is not None or connection.executed is not None
        if connection.in_autocommit:
            self._end("ROLLBACK;")
        super().rollback()  # type: ignore[no-untyped-call] # in SQLAlchemy

    def _end(self, command: str) -> None:
        """End a transaction that SQL text of a session has begun in AUTOCOMMIT, by *command*."""
        connection: Any = self._connection
        protocol: Any = connection._protocol
        if (
            connection.is_ended
            and self._transaction is None
            and connection._top_xact is None
            and protocol is not None
            and protocol.is_in_transaction()
        ):
            try:
                await_only(connection.execute(command))
            except Exception as error:
                self._handle_exception(error)
