"""Binding inside a psycopg connection: BEGIN and the binding go ahead of the first statement.

For psycopg the connection is in autocommit mode.  In this mode psycopg sends no BEGIN of its own, and waits
for no answer to it.  ``_asked_autocommit`` holds the mode that the application has set.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import cache
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver.base import ENDED, MARK, Binding, DriverConnection, Modes, NotDiscarded, Transport
from sqla_rls.exc import BindingError, TransactionRefused, UnsupportedTransaction

#: False with a libpq before 14.
_HAS_PIPELINE: Final = psycopg.Pipeline.is_supported()

_Pipeline: TypeAlias = psycopg.Pipeline | psycopg.AsyncPipeline

#: The isolation levels by psycopg's values.
_ISOLATION_LEVELS: Final = {level.value: level.name.replace("_", " ") for level in psycopg.IsolationLevel}


_NO_MODES: Final = Modes()
_RESET: Final = "RESET ALL"
_MARK: Final = MARK.encode()
#: Postgres refuses it in a transaction, also in the implicit one of a message with several statements.
_DISCARD: Final = "DISCARD ALL"


@cache
def _begin(isolation_level: str | None, read_only: bool | None, deferrable: bool | None) -> str:
    return Modes(isolation_level=isolation_level, read_only=read_only, deferrable=deferrable).begin()


class _Waiting(psycopg.BaseConnection[Any], DriverConnection):
    """The common part of both connections: BEGIN and a binding that wait for the next statement."""

    #: The cursor for statements ahead; kept, since a new one takes as long as the rest of the binding.
    ahead: Any
    autocommit_is_bound = True
    _asked_autocommit = False
    _pipelined = False
    #: Whether the statement in progress goes without BEGIN and binding ahead of it.
    _sends = False

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._encoding = _client_encoding(self)
        self._choose_mark()

    @property
    def idle(self) -> bool:
        return self.pgconn.transaction_status == pq.TransactionStatus.IDLE

    def queue(self, binding: Binding, transport: Transport) -> bool:
        if not self.idle:
            return False
        # A pipeline is no slower on a fast network, and its statements don't contain the claims.
        better = binding.confidential or _HAS_PIPELINE
        self._pipelined = transport == "pipeline" or binding.transferable or (transport == "auto" and better)
        self.binding = binding
        return True

    def _reported(self) -> str | None:
        value = self.pgconn.parameter_status(_MARK)
        return None if value is None else value.decode()

    def _require_in_force(self) -> None:
        """Raise TransactionRefused if the transaction in progress isn't the bound one."""
        # In a pipeline, the server's reports arrive at its end.  In a failed transaction, Postgres refuses
        # each statement itself.
        if self.is_lost and not (
            self.pgconn.pipeline_status or self.pgconn.transaction_status == pq.TransactionStatus.INERROR
        ):
            raise TransactionRefused(ENDED)

    @property
    def autocommit(self) -> bool:
        return self._asked_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        inherited: Any = psycopg.BaseConnection.autocommit
        inherited.fset(self, value)

    @property
    def _waits(self) -> bool:
        return self.idle and (self.binding is not None or not self._asked_autocommit)

    def _begin(self) -> str:
        default = (self.binding and self.binding.modes) or _NO_MODES
        level, read_only, deferrable = self.isolation_level, self.read_only, self.deferrable
        return _begin(
            default.isolation_level if level is None else _ISOLATION_LEVELS[level],
            default.read_only if read_only is None else read_only,
            default.deferrable if deferrable is None else deferrable,
        )

    @property
    def _in_text(self) -> bool:
        """Whether BEGIN and the binding go as one text."""
        return not self.pgconn.pipeline_status and not (
            self._pipelined and self.binding is not None and self.binding.confidential
        )

    def _text(self) -> str:
        if self.binding is None:
            return self._begin()
        reset = [] if self.binding.modes is None else [_RESET]
        return "; ".join([self._begin(), *reset, self.binding.literal()])

    def _start_query(self) -> PQGen[None]:
        """Send BEGIN and the binding ahead of the statement of a cursor of another class.

        Cursors of every class call this method of their connection.  Such cursors come from other libraries,
        from a ``cursor_factory`` that was set later, or from a direct call of their class.
        """
        if not self._autocommit:
            # In a two-phase transaction psycopg begins.
            yield from super()._start_query()
            return
        if self._sends:
            return
        self._require_in_force()
        if not self._waits:
            return
        self._require_transaction()
        if self._pipeline is None:
            yield from self._start_gen()
        elif self.discards or self._misread:
            raise UnsupportedTransaction(
                "the transaction can't begin: a cursor of another class, in a pipeline, can't reset the "
                "state of the last caller. Run a statement before the pipeline"
            )
        else:
            pipeline: Any = self._pipeline
            self._enqueue(pipeline, self.ahead)
            yield from pipeline._sync_gen()
            self._sent()

    def _start_gen(self) -> PQGen[None]:
        """Send BEGIN and the binding outside a pipeline, and take the answers."""
        in_text = self._in_text
        try:
            if self._is_unreadable:
                yield from self._exchange(_RESET)
            if (first := self._first(in_text)) is not None:
                yield from self._exchange(first)
        except psycopg.Error as error:
            raise self._not_cleared(error) from None
        try:
            for statement, values in [(self._text(), None)] if in_text else self._statements():
                yield from self._exchange(statement, values)
        except psycopg.Error as error:
            raise self._refusal(error, None) or error from None
        self._sent()

    def _exchange(self, text: str, values: list[str] | None = None) -> PQGen[None]:
        """Send *text*, for ``wait()``; a cursor would take twice the time."""
        encoding = self._codec or "ascii"
        if values is None:
            self.pgconn.send_query(text.encode(encoding))
        else:
            self.pgconn.send_query_params(text.encode(encoding), [value.encode(encoding) for value in values])
        results = yield from generators.execute(self.pgconn)
        if not results:
            raise psycopg.InternalError("the statement failed: the server hasn't answered")
        for result in results:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result, encoding)

    @property
    def _codec(self) -> str | None:
        """Python's codec for the client encoding; None if Python has none, as for EUC_TW."""
        try:
            return self.info.encoding
        except psycopg.NotSupportedError:
            return None

    @property
    def _is_unreadable(self) -> bool:
        """Whether only ASCII can be sent, until RESET ALL has undone the last caller's encoding."""
        return self._misread and self._codec is None

    def _enqueue(self, pipeline: _Pipeline, ahead: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
        """Queue BEGIN and the binding for the next flush of *pipeline*; the last result is for *ahead*.

        The statements are one command, since a cursor would flush each statement separately.  They aren't
        prepared, since the last caller may have left prepared statements with the same names.  psycopg fills
        the queues in the same way with its own BEGIN.  If psycopg changes this, the server still runs no
        statement after a failed one.
        """
        encoding = self.info.encoding
        encoded = [
            (
                statement.encode(encoding),
                None if values is None else [value.encode(encoding) for value in values],
            )
            for statement, values in self._statements()
        ]

        def send() -> None:
            for statement, values in encoded:
                self.pgconn.send_query_params(statement, values)

        pipeline.command_queue.append(send)
        # None: no cursor needs the result, only a failure counts.
        pipeline.result_queue.extend([None] * (len(encoded) - 1))
        ahead.pgresult = None
        pipeline.result_queue.append((ahead, None))

    def _statements(self) -> list[tuple[str, list[str] | None]]:
        """Return BEGIN, RESET ALL and the binding as far as they are due, each with its parameters."""
        statements: list[tuple[str, list[str] | None]] = []
        if not self._asked_autocommit:
            statements.append((self._begin(), None))
        if self.binding is not None:
            if self.binding.modes is not None:
                statements.append((_RESET, None))
            statements.append((self.binding.query(), self.binding.parameters()))
        return statements

    def _require_transaction(self) -> None:
        self._require_in_force()
        if self._asked_autocommit:
            raise UnsupportedTransaction(
                "the transaction can't begin: in AUTOCOMMIT, a binding lasts for one statement. "
                "Set another isolation level"
            )

    def _first(self, in_text: bool) -> LiteralString | None:
        if self.discards:
            # If a statement fails from here on, the state of the connection is unknown.
            self.last_discard_key = None
            return _DISCARD
        return _RESET if self._misread and not in_text else None

    def _not_cleared(self, error: psycopg.Error) -> Exception:
        if self.pgconn.status != pq.ConnStatus.OK:
            return error
        self.pgconn.finish()
        return NotDiscarded()

    @property
    def _misread(self) -> bool:
        """Whether RESET ALL, which goes ahead, changes the client encoding."""
        if self.binding is None or self.binding.modes is None:
            return False
        expected = self.binding.settings.get("client_encoding", self._encoding)
        return _client_encoding(self) != expected

    def _sent(self) -> None:
        if self.binding is not None:
            self.last_discard_key = self.binding.discard_key

    def _in_one_flush(self, params: object) -> bool:
        # A query without parameters may hold several statements, which a pipeline doesn't accept.
        return self.binding is not None and (self._pipelined or self._asked_autocommit) and params is not None

    def _refusal(self, error: psycopg.Error, result: Any) -> BindingError | None:
        """Return the error of a refused binding; None if *error* has another cause.

        Args:
            error: the driver's error.
            result: the result of the binding, if it went ahead of a statement.
        """
        if self.binding is None or self.pgconn.status != pq.ConnStatus.OK or error.sqlstate is None:
            # An error without a SQLSTATE isn't the server's.
            return None
        if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
            return None
        return self.binding.refused(error.sqlstate)


def _client_encoding(connection: psycopg.BaseConnection[Any]) -> str:
    return (connection.pgconn.parameter_status(b"client_encoding") or b"").decode()


def _ours(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> Any:
    return cursor.connection


class Cursor(psycopg.Cursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its statement."""

    def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection = _ours(self)
        if not connection._waits:
            return super().execute(query, params, **kw)
        if connection._in_one_flush(params):
            connection.clear(in_text=False)
        if connection._misread or not connection._in_one_flush(params):
            connection.start()
            return super().execute(query, params, **kw)
        connection._sends = True
        try:
            with connection.pipeline() as pipeline:
                connection._enqueue(pipeline, connection.ahead)
                super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, connection.ahead.pgresult)) is not None:
                raise refusal from error
            if params or not isinstance(error, psycopg.errors.SyntaxError):
                raise
            psycopg.Connection.rollback(connection)
            connection.start()
            return super().execute(query, params, **kw)
        finally:
            connection._sends = False
        connection._sent()
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        _ours(self).start()
        super().executemany(query, params_seq, returning=returning)

    def stream(self, *args: Any, **kw: Any) -> Iterator[Any]:
        _ours(self).start()
        for row in super().stream(*args, **kw):  # noqa: UP028 (as in the asynchronous half)
            yield row

    @contextmanager
    def copy(self, *args: Any, **kw: Any) -> Iterator[psycopg.Copy]:
        _ours(self).start()
        with super().copy(*args, **kw) as copy:
            yield copy


class ServerCursor(psycopg.ServerCursor[Any]):
    """A cursor that sends BEGIN and the binding ahead of its DECLARE."""

    def execute(self, *args: Any, **kw: Any) -> Any:
        _ours(self).start()
        return super().execute(*args, **kw)


class Connection(_Waiting, psycopg.Connection[Any]):
    """A psycopg connection that sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = Cursor, ServerCursor
        self.ahead = psycopg.Cursor(self)

    def start(self) -> None:
        """Send BEGIN and the binding, if they wait."""
        if self._waits:
            self._require_transaction()
            self.clear(in_text=self._in_text)
            try:
                if self._in_text:
                    with self.lock:
                        self.wait(self._exchange(self._text()))
                else:
                    with self.pipeline() as pipeline:
                        self._enqueue(pipeline, self.ahead)
            except psycopg.Error as error:
                raise self._refusal(error, None) or error from None
            self._sent()

    def clear(self, *, in_text: bool) -> None:
        """Send RESET ALL or DISCARD ALL, if it must go before BEGIN."""
        try:
            if self._is_unreadable and not self.pgconn.pipeline_status:
                with self.lock:
                    self.wait(self._exchange(_RESET))
            first = self._first(in_text)
            if first is not None:
                with self.pipeline() if self.pgconn.pipeline_status else nullcontext():
                    self._send_ahead(first)
        except psycopg.Error as error:
            raise self._not_cleared(error) from None
        if first == _DISCARD:
            self._sent()

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
        self.binding = self.executed = None
        super().commit()

    def rollback(self) -> None:
        self.binding = self.executed = None
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
    """A cursor that sends BEGIN and the binding ahead of its statement."""

    async def execute(self, query: Any, params: Any = None, **kw: Any) -> Any:
        connection = _ours(self)
        if not connection._waits:
            return await super().execute(query, params, **kw)
        if connection._in_one_flush(params):
            await connection.clear(in_text=False)
        if connection._misread or not connection._in_one_flush(params):
            await connection.start()
            return await super().execute(query, params, **kw)
        connection._sends = True
        try:
            async with connection.pipeline() as pipeline:
                connection._enqueue(pipeline, connection.ahead)
                await super().execute(query, params, **kw)
        except psycopg.Error as error:
            if (refusal := connection._refusal(error, connection.ahead.pgresult)) is not None:
                raise refusal from error
            if params or not isinstance(error, psycopg.errors.SyntaxError):
                raise
            await psycopg.AsyncConnection.rollback(connection)
            await connection.start()
            return await super().execute(query, params, **kw)
        finally:
            connection._sends = False
        connection._sent()
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
    """A cursor that sends BEGIN and the binding ahead of its DECLARE."""

    async def execute(self, *args: Any, **kw: Any) -> Any:
        await _ours(self).start()
        return await super().execute(*args, **kw)


class AsyncConnection(_Waiting, psycopg.AsyncConnection[Any]):
    """An asynchronous psycopg connection that sends its binding with BEGIN."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.cursor_factory, self.server_cursor_factory = AsyncCursor, AsyncServerCursor
        self.ahead = psycopg.AsyncCursor(self)

    async def start(self) -> None:
        """Send BEGIN and the binding, if they wait."""
        if self._waits:
            self._require_transaction()
            await self.clear(in_text=self._in_text)
            try:
                if self._in_text:
                    async with self.lock:
                        await self.wait(self._exchange(self._text()))
                else:
                    async with self.pipeline() as pipeline:
                        self._enqueue(pipeline, self.ahead)
            except psycopg.Error as error:
                raise self._refusal(error, None) or error from None
            self._sent()

    async def clear(self, *, in_text: bool) -> None:
        """Send RESET ALL or DISCARD ALL, if it must go before BEGIN."""
        try:
            if self._is_unreadable and not self.pgconn.pipeline_status:
                async with self.lock:
                    await self.wait(self._exchange(_RESET))
            first = self._first(in_text)
            if first is not None:
                async with self.pipeline() if self.pgconn.pipeline_status else nullcontext():
                    await self._send_ahead(first)
        except psycopg.Error as error:
            raise self._not_cleared(error) from None
        if first == _DISCARD:
            self._sent()

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
        self.binding = self.executed = None
        await super().commit()

    async def rollback(self) -> None:
        self.binding = self.executed = None
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
    if isinstance(driver_connection, _Waiting) and (
        not driver_connection.idle or driver_connection.pgconn.pipeline_status
    ):
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
