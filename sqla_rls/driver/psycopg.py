"""Binding inside a psycopg connection: BEGIN and the binding go ahead of the first statement.

For psycopg the connection is in autocommit mode.  In this mode psycopg sends no BEGIN of its own, and waits
for no answer to it.  ``_asked_autocommit`` holds the mode that the application has set.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, LiteralString

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver.base import NotDiscarded
from sqla_rls.driver.psycopg_base import DISCARD, IDLE, WaitingConnection, waiting


class Cursor(psycopg.Cursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its statement."""

    def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection: Any = self._conn
        if connection.pgconn.transaction_status != IDLE:
            return super().execute(query, params, **kw)
        if not connection._joins(params):
            if connection._pipeline is not None and connection._waits:
                return self._execute_in_pipeline(query, params, **kw)
            if connection._must_clear(params):
                connection.clear(in_text=False)
            if not connection._joins(params):
                return super().execute(query, params, **kw)
        try:
            with connection.lock:
                try:
                    connection._open_exchange()
                    connection.wait(self._execute_gen(query, params, **kw))
                except Exception:
                    if connection._flush.is_unanswered:
                        connection.wait(connection._flush.answers_gen())
                    raise
                finally:
                    connection._close_exchange()
        except psycopg.errors.SyntaxError as error:
            # That function of Postgres refuses several statements, which only a message accepts.  Another one
            # may be that of SQL which the statement runs.
            if params or error.diag.source_function != "exec_parse_message":
                raise
            psycopg.Connection.rollback(connection)
            connection.start()
            return super().execute(query, params, **kw)
        return self

    def _execute_in_pipeline(self, query: Any, params: Any = None, **kw: Any) -> Any:
        """Execute the first statement in a pipeline of the application."""
        connection = waiting(self)
        if not connection._in_one_flush(params):
            connection.start()
            return super().execute(query, params, **kw)
        connection.clear(in_text=False)
        connection._sends = True
        try:
            with connection.pipeline() as pipeline:
                connection._enqueue(pipeline, connection.ahead)
                super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, connection.ahead.pgresult)) is not None:
                raise refusal from error
            raise
        finally:
            connection._sends = False
        connection._sent()
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        waiting(self).start()
        super().executemany(query, params_seq, returning=returning)

    def stream(self, *args: Any, **kw: Any) -> Iterator[Any]:
        waiting(self).start()
        for row in super().stream(*args, **kw):  # noqa: UP028 (as in the asynchronous half)
            yield row

    @contextmanager
    def copy(self, *args: Any, **kw: Any) -> Iterator[psycopg.Copy]:
        waiting(self).start()
        with super().copy(*args, **kw) as copy:
            yield copy


class ServerCursor(psycopg.ServerCursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its DECLARE."""

    def execute(self, *args: Any, **kw: Any) -> Any:
        waiting(self).start()
        return super().execute(*args, **kw)


class Connection(WaitingConnection, psycopg.Connection[Any]):
    """A psycopg connection that sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = Cursor, ServerCursor
        self.ahead = psycopg.Cursor(self)

    def start(self) -> None:
        """Send BEGIN and the binding, if they wait."""
        if not self._waits:
            return
        self._require_transaction()
        if self._pipeline is None:
            self._exchange_alone(self._start_gen())
            return
        self.clear(in_text=False)
        try:
            with self.pipeline() as pipeline:
                self._enqueue(pipeline, self.ahead)
        except psycopg.Error as error:
            raise self._refusal(error, None) or error from None
        self._sent()

    def clear(self, *, in_text: bool) -> None:
        """Send RESET ALL or DISCARD ALL, if it must go before BEGIN."""
        if self._pipeline is None:
            self._exchange_alone(self._clear_gen(in_text))
        elif (first := self._first(in_text)) is not None:
            try:
                with self.pipeline():
                    self._send_ahead(first)
            except psycopg.Error as error:
                raise self._not_cleared(error) from None
            if first == DISCARD:
                self._sent()

    def _exchange_alone(self, exchange: PQGen[None]) -> None:
        with self.lock:
            try:
                self.wait(exchange)
            finally:
                self._close_unanswered()

    def _send_ahead(self, statement: LiteralString) -> None:
        self._sends = True
        try:
            self.ahead.execute(statement, prepare=False)
        finally:
            self._sends = False

    def set_autocommit(self, value: bool) -> None:
        super().set_autocommit(True)
        self._asked_autocommit = value

    def commit(self) -> None:
        self.is_ended = self.binding is not None or self.executed is not None
        super().commit()

    def rollback(self) -> None:
        self.is_ended = self.binding is not None or self.executed is not None
        if not self._has_ended:
            super().rollback()

    @contextmanager
    def transaction(self, *args: Any, **kw: Any) -> Iterator[psycopg.Transaction]:
        self._require_in_force()
        if self.binding is not None:
            self.start()
        elif self.idle:
            self._exchange_alone(self._reset_gen())
        with super().transaction(*args, **kw) as transaction:
            yield transaction

    def tpc_begin(self, xid: Any) -> None:
        self._require_one_phase()
        if self.idle:
            self._exchange_alone(self._reset_gen())
        super().set_autocommit(False)
        super().tpc_begin(xid)

    def tpc_commit(self, xid: Any = None) -> None:
        super().tpc_commit(xid)
        super().set_autocommit(True)

    def tpc_rollback(self, xid: Any = None) -> None:
        super().tpc_rollback(xid)
        super().set_autocommit(True)


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its statement."""

    async def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection: Any = self._conn
        if connection.pgconn.transaction_status != IDLE:
            return await super().execute(query, params, **kw)
        if not connection._joins(params):
            if connection._pipeline is not None and connection._waits:
                return await self._execute_in_pipeline(query, params, **kw)
            if connection._must_clear(params):
                await connection.clear(in_text=False)
            if not connection._joins(params):
                return await super().execute(query, params, **kw)
        try:
            async with connection.lock:
                try:
                    connection._open_exchange()
                    await connection.wait(self._execute_gen(query, params, **kw))
                except Exception:
                    if connection._flush.is_unanswered:
                        await connection.wait(connection._flush.answers_gen())
                    raise
                finally:
                    connection._close_exchange()
        except psycopg.errors.SyntaxError as error:
            # That function of Postgres refuses several statements, which only a message accepts.  Another one
            # may be that of SQL which the statement runs.
            if params or error.diag.source_function != "exec_parse_message":
                raise
            await psycopg.AsyncConnection.rollback(connection)
            await connection.start()
            return await super().execute(query, params, **kw)
        return self

    async def _execute_in_pipeline(self, query: Any, params: Any = None, **kw: Any) -> Any:
        """Execute the first statement in a pipeline of the application."""
        connection = waiting(self)
        if not connection._in_one_flush(params):
            await connection.start()
            return await super().execute(query, params, **kw)
        await connection.clear(in_text=False)
        connection._sends = True
        try:
            async with connection.pipeline() as pipeline:
                connection._enqueue(pipeline, connection.ahead)
                await super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, connection.ahead.pgresult)) is not None:
                raise refusal from error
            raise
        finally:
            connection._sends = False
        connection._sent()
        return self

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        await waiting(self).start()
        await super().executemany(query, params_seq, returning=returning)

    async def stream(self, *args: Any, **kw: Any) -> AsyncIterator[Any]:
        await waiting(self).start()
        async for row in super().stream(*args, **kw):
            yield row

    @asynccontextmanager
    async def copy(self, *args: Any, **kw: Any) -> AsyncIterator[psycopg.AsyncCopy]:
        await waiting(self).start()
        async with super().copy(*args, **kw) as copy:
            yield copy


class AsyncServerCursor(psycopg.AsyncServerCursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its DECLARE."""

    async def execute(self, *args: Any, **kw: Any) -> Any:
        await waiting(self).start()
        return await super().execute(*args, **kw)


class AsyncConnection(WaitingConnection, psycopg.AsyncConnection[Any]):
    """An asynchronous psycopg connection that sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = AsyncCursor, AsyncServerCursor
        self.ahead = psycopg.AsyncCursor(self)

    async def start(self) -> None:
        """Send BEGIN and the binding, if they wait."""
        if not self._waits:
            return
        self._require_transaction()
        if self._pipeline is None:
            await self._exchange_alone(self._start_gen())
            return
        await self.clear(in_text=False)
        try:
            async with self.pipeline() as pipeline:
                self._enqueue(pipeline, self.ahead)
        except psycopg.Error as error:
            raise self._refusal(error, None) or error from None
        self._sent()

    async def clear(self, *, in_text: bool) -> None:
        """Send RESET ALL or DISCARD ALL, if it must go before BEGIN."""
        if self._pipeline is None:
            await self._exchange_alone(self._clear_gen(in_text))
        elif (first := self._first(in_text)) is not None:
            try:
                async with self.pipeline():
                    await self._send_ahead(first)
            except psycopg.Error as error:
                raise self._not_cleared(error) from None
            if first == DISCARD:
                self._sent()

    async def _exchange_alone(self, exchange: PQGen[None]) -> None:
        async with self.lock:
            try:
                await self.wait(exchange)
            finally:
                self._close_unanswered()

    async def _send_ahead(self, statement: LiteralString) -> None:
        self._sends = True
        try:
            await self.ahead.execute(statement, prepare=False)
        finally:
            self._sends = False

    async def set_autocommit(self, value: bool) -> None:
        await super().set_autocommit(True)
        self._asked_autocommit = value

    async def commit(self) -> None:
        self.is_ended = self.binding is not None or self.executed is not None
        await super().commit()

    async def rollback(self) -> None:
        self.is_ended = self.binding is not None or self.executed is not None
        if not self._has_ended:
            await super().rollback()

    @asynccontextmanager
    async def transaction(self, *args: Any, **kw: Any) -> AsyncIterator[psycopg.AsyncTransaction]:
        self._require_in_force()
        if self.binding is not None:
            await self.start()
        elif self.idle:
            await self._exchange_alone(self._reset_gen())
        async with super().transaction(*args, **kw) as transaction:
            yield transaction

    async def tpc_begin(self, xid: Any) -> None:
        self._require_one_phase()
        if self.idle:
            await self._exchange_alone(self._reset_gen())
        await super().set_autocommit(False)
        await super().tpc_begin(xid)

    async def tpc_commit(self, xid: Any = None) -> None:
        await super().tpc_commit(xid)
        await super().set_autocommit(True)

    async def tpc_rollback(self, xid: Any = None) -> None:
        await super().tpc_rollback(xid)
        await super().set_autocommit(True)


#: Arguments of connect() that keep psycopg from preparing statements.
UNPREPARED: Final[dict[str, Any]] = {"prepare_threshold": None}


def listen(engine: Engine) -> None:
    """Listen to the events of *engine* that invalidate a connection."""
    event.listen(engine, "handle_error", _replace)
    event.listen(engine, "checkin", _discard)


def with_settings(cparams: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """Return *cparams* with *settings* added to the startup parameters; existing parameters win."""
    options = ["-c " + re.sub(r"([ \\])", r"\\\1", f"{name}={value}") for name, value in settings.items()]
    # libpq reads PGOPTIONS only if the connection has no options.
    options.append(cparams.get("options") or os.environ.get("PGOPTIONS", ""))
    return {**cparams, "options": " ".join(options)}


def startup(driver_connection: Any) -> dict[str, Any]:
    """Return the options of *driver_connection*, which may come from a service file."""
    if not isinstance(driver_connection, psycopg.BaseConnection):
        return {}
    found = {option.keyword: option.val for option in driver_connection.pgconn.info}
    options = found.get(b"options")
    return {"options": options.decode()} if options else {}


def connect(dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
    """Open a ``Connection``, unless *cparams* name a cursor or connection class of the application."""
    if "cursor_factory" in cparams:
        return dialect.connect(*cargs, **cparams)
    if dialect.is_async:
        return dialect.connect(*cargs, **{"async_creator_fn": _connect_async, **cparams})
    connection = Connection.connect(*cargs, **{**cparams, "autocommit": True})
    connection._asked_autocommit = bool(cparams.get("autocommit"))
    try:
        # The cursor accepts results of a pipeline only after a result of its own.
        connection._send_ahead("")
    except BaseException:
        connection.close()
        raise
    return connection


def _discard(connection: Any, record: Any) -> None:
    # The connection is still in a transaction of the last caller, for example after an error in ROLLBACK.
    driver_connection = getattr(connection, "driver_connection", connection)
    if isinstance(driver_connection, WaitingConnection):
        driver_connection.drop()
        pgconn = driver_connection.pgconn
        if pgconn.transaction_status != IDLE or pgconn.pipeline_status:
            record.invalidate()


def _replace(context: ExceptionContext) -> None:
    if isinstance(context.original_exception, NotDiscarded):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def _connect_async(*cargs: Any, **cparams: Any) -> AsyncConnection:
    connection = await AsyncConnection.connect(*cargs, **{**cparams, "autocommit": True})
    connection._asked_autocommit = bool(cparams.get("autocommit"))
    try:
        # The cursor accepts results of a pipeline only after a result of its own.
        await connection._send_ahead("")
    except BaseException:  # also if the task is cancelled
        await connection.close()
        raise
    return connection
