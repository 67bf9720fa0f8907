"""Binding inside a psycopg connection: BEGIN and the binding go ahead of the first statement.

To psycopg the connection is in autocommit, so that it sends no BEGIN of its own, whose answer it would
wait for; what the application sets as ``autocommit`` is kept beside it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from itertools import dropwhile, islice
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import pq
from sqlalchemy import Dialect, Engine, event

from sqla_rls.driver import QUERY, Binding, DriverConnection, Way
from sqla_rls.exc import BindingError, UnsupportedTransaction

#: Seconds for a round trip from which on the pipeline is faster; below, a message costs less CPU.
PIPELINE_FROM: Final = 0.0002


#: A statement, and its parameters.
_Message: TypeAlias = tuple[Any, list[str] | None]


@cache
def _spell_begin(isolation_level: int | None, read_only: bool | None, deferrable: bool | None) -> str:
    parts = ["BEGIN"]
    if isolation_level is not None:
        parts.append("ISOLATION LEVEL " + psycopg.IsolationLevel(isolation_level).name.replace("_", " "))
    if read_only is not None:
        parts.append("READ ONLY" if read_only else "READ WRITE")
    if deferrable is not None:
        parts.append("DEFERRABLE" if deferrable else "NOT DEFERRABLE")
    return " ".join(parts)


class _Waiting(psycopg.BaseConnection[Any], DriverConnection):
    """What the connections of both kinds share: what waits to go ahead of the next statement."""

    autocommit_is_bound = True
    _asked_autocommit = False
    _pipelined = False
    _round_trip = 0.0  # seconds

    def carry(self, binding: Binding, way: Way) -> bool:
        if self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return False
        self._pipelined = way == "pipeline" or (way == "auto" and self._round_trip >= PIPELINE_FROM)
        self.binding = binding
        return True

    @property
    def autocommit(self) -> bool:
        return self._asked_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        inherited: Any = psycopg.BaseConnection.autocommit
        inherited.fset(self, value)

    @property
    def _waits(self) -> bool:
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE and (
            self.binding is not None or not self._asked_autocommit
        )

    def _begin(self) -> str:
        return _spell_begin(self.isolation_level, self.read_only, self.deferrable)

    def _messages(self) -> list[_Message]:
        """What waits, in as few messages as can be."""
        if self._asked_autocommit:
            raise UnsupportedTransaction(
                "in AUTOCOMMIT an identity is bound to single statements only: use a transaction"
            )
        if self.binding is None or self.pgconn.pipeline_status:
            return self._statements()
        return [(f"{self._begin()}; {self.binding.literal()}", None)]

    def _statements(self) -> list[_Message]:
        """What waits, one statement each, as a pipeline takes them."""
        statements: list[_Message] = []
        if not self._asked_autocommit:
            statements.append((self._begin(), None))
        if self.binding is not None:
            statements.append((QUERY, self.binding.parameters()))
        return statements

    def _in_one_flush(self, params: object) -> bool:
        # Without parameters it may be several statements, which a pipeline doesn't take.
        return self.binding is not None and (self._pipelined or self._asked_autocommit) and params is not None

    def _refusal(self, error: psycopg.Error, result: Any) -> BindingError | None:
        """What *error* means, if *result*, of what went ahead, isn't that of the binding."""
        if self.binding is None or self.pgconn.status != pq.ConnStatus.OK:
            return None
        if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
            return None
        return self.binding.refused(error.sqlstate)


def _ours(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> Any:
    return cursor.connection


class Cursor(psycopg.Cursor[Any]):
    """Sends what waits before its statement."""

    def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection = _ours(self)
        if not connection._waits:
            return super().execute(query, params, **kw)
        if not connection._in_one_flush(params):
            connection.start()
            return super().execute(query, params, **kw)
        ahead, statements = connection.ahead, connection._statements()
        try:
            with connection.pipeline():
                for statement, values in statements:
                    # Not prepared: the last caller may have left another statement of that name.
                    ahead.execute(statement, values, prepare=False)
                super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, ahead.pgresult)) is not None:
                raise refusal from error
            if params or not isinstance(error, psycopg.errors.SyntaxError):
                raise
            psycopg.Connection.rollback(connection)
            connection.start()
            return super().execute(query, params, **kw)
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        _ours(self).start()
        super().executemany(query, params_seq, returning=returning)

    def stream(self, *args: Any, **kw: Any) -> Iterator[Any]:
        _ours(self).start()
        return super().stream(*args, **kw)

    def copy(self, *args: Any, **kw: Any) -> Any:
        _ours(self).start()
        return super().copy(*args, **kw)


class ServerCursor(psycopg.ServerCursor[Any]):
    """Sends what waits before its DECLARE."""

    def execute(self, *args: Any, **kw: Any) -> Any:
        _ours(self).start()
        return super().execute(*args, **kw)


class Connection(_Waiting, psycopg.Connection[Any]):
    """Sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = Cursor, ServerCursor
        #: Sends what waits; kept, since a new one takes as long as all else that we do.
        self.ahead = psycopg.Cursor(self)

    def start(self) -> None:
        """Send what waits."""
        if self._waits:
            try:
                for statement, values in self._messages():
                    self.ahead.execute(statement, values, prepare=False)
            except psycopg.Error as error:
                raise self._refusal(error, None) or error from None

    def set_autocommit(self, value: bool) -> None:
        super().set_autocommit(True)
        self._asked_autocommit = value

    def commit(self) -> None:
        self.binding = None
        super().commit()

    def rollback(self) -> None:
        self.binding = None
        super().rollback()

    @contextmanager
    def transaction(self, *args: Any, **kw: Any) -> Iterator[psycopg.Transaction]:
        if self.binding is not None:
            self.start()
        with super().transaction(*args, **kw) as transaction:
            yield transaction

    def tpc_begin(self, xid: Any) -> None:
        super().set_autocommit(False)
        super().tpc_begin(xid)

    def tpc_commit(self, xid: Any = None) -> None:
        super().tpc_commit(xid)
        super().set_autocommit(True)

    def tpc_rollback(self, xid: Any = None) -> None:
        super().tpc_rollback(xid)
        super().set_autocommit(True)


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """Sends what waits before its statement."""

    async def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection = _ours(self)
        if not connection._waits:
            return await super().execute(query, params, **kw)
        if not connection._in_one_flush(params):
            await connection.start()
            return await super().execute(query, params, **kw)
        ahead, statements = connection.ahead, connection._statements()
        try:
            async with connection.pipeline():
                for statement, values in statements:
                    await ahead.execute(statement, values, prepare=False)
                await super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, ahead.pgresult)) is not None:
                raise refusal from error
            if params or not isinstance(error, psycopg.errors.SyntaxError):
                raise
            await psycopg.AsyncConnection.rollback(connection)
            await connection.start()
            return await super().execute(query, params, **kw)
        return self

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        await _ours(self).start()
        await super().executemany(query, params_seq, returning=returning)

    async def stream(self, *args: Any, **kw: Any) -> AsyncIterator[Any]:
        await _ours(self).start()
        async for row in super().stream(*args, **kw):
            yield row

    @asynccontextmanager
    async def copy(self, *args: Any, **kw: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        await _ours(self).start()
        async with super().copy(*args, **kw) as copy:
            yield copy


class AsyncServerCursor(psycopg.AsyncServerCursor[Any]):
    """Sends what waits before its DECLARE."""

    async def execute(self, *args: Any, **kw: Any) -> Any:
        await _ours(self).start()
        return await super().execute(*args, **kw)


class AsyncConnection(_Waiting, psycopg.AsyncConnection[Any]):
    """Sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = AsyncCursor, AsyncServerCursor
        #: Sends what waits; kept, since a new one takes as long as all else that we do.
        self.ahead = psycopg.AsyncCursor(self)

    async def start(self) -> None:
        """Send what waits."""
        if self._waits:
            try:
                for statement, values in self._messages():
                    await self.ahead.execute(statement, values, prepare=False)
            except psycopg.Error as error:
                raise self._refusal(error, None) or error from None

    async def set_autocommit(self, value: bool) -> None:
        await super().set_autocommit(True)
        self._asked_autocommit = value

    async def commit(self) -> None:
        self.binding = None
        await super().commit()

    async def rollback(self) -> None:
        self.binding = None
        await super().rollback()

    @asynccontextmanager
    async def transaction(self, *args: Any, **kw: Any) -> AsyncIterator[psycopg.AsyncTransaction]:
        if self.binding is not None:
            await self.start()
        async with super().transaction(*args, **kw) as transaction:
            yield transaction

    async def tpc_begin(self, xid: Any) -> None:
        await super().set_autocommit(False)
        await super().tpc_begin(xid)

    async def tpc_commit(self, xid: Any = None) -> None:
        await super().tpc_commit(xid)
        await super().set_autocommit(True)

    async def tpc_rollback(self, xid: Any = None) -> None:
        await super().tpc_rollback(xid)
        await super().set_autocommit(True)


def install(engine: Engine) -> None:
    """Let *engine* open such connections."""
    listener = _open_async if engine.dialect.is_async else _open
    if not event.contains(engine, "do_connect", listener):
        event.listen(engine, "do_connect", listener)


def _open(dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
    # What we return ends the search: ask those that were registered later, for a password of today perhaps.
    later = dropwhile(lambda listener: listener is not _open, dialect.dispatch.do_connect)
    for listener in islice(later, 1, None):
        if (connection := listener(dialect, record, cargs, cparams)) is not None:
            return connection
    if "cursor_factory" in cparams:
        return None
    connection = Connection.connect(*cargs, **{**cparams, "autocommit": True})
    connection._asked_autocommit = bool(cparams.get("autocommit"))
    try:
        for _ in range(_probes(connection)):
            began = time.perf_counter()
            psycopg.Cursor(connection).execute("")
            connection._round_trip = min(connection._round_trip or 1, time.perf_counter() - began)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_async(dialect: object, record: object, cargs: Any, cparams: dict[str, Any]) -> None:
    if "cursor_factory" not in cparams:
        cparams.setdefault("async_creator_fn", _connect_async)


async def _connect_async(*cargs: Any, **cparams: Any) -> AsyncConnection:
    connection = await AsyncConnection.connect(*cargs, **{**cparams, "autocommit": True})
    connection._asked_autocommit = bool(cparams.get("autocommit"))
    try:
        for _ in range(_probes(connection)):
            began = time.perf_counter()
            await psycopg.AsyncCursor(connection).execute("")
            connection._round_trip = min(connection._round_trip or 1, time.perf_counter() - began)
    except BaseException:  # cancelled, too
        await connection.close()
        raise
    return connection


def _probes(connection: Connection | AsyncConnection) -> int:
    """How often to measure: the shortest is that of the network.

    Not at all on a Unix socket, which has none, nor with a libpq before 14, which has no pipeline.
    """
    return 0 if connection.info.host.startswith("/") or not psycopg.Pipeline.is_supported() else 3
