"""The part of a psycopg connection that its sync and its async half share."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen

from sqla_rls.driver.base import ENDED, MARK, Binding, DriverConnection, Modes, NotDiscarded, Transport
from sqla_rls.exc import BindingError, TransactionRefused, UnsupportedTransaction

#: False with a libpq before 14.
_HAS_PIPELINE: Final = psycopg.Pipeline.is_supported()

_Pipeline: TypeAlias = psycopg.Pipeline | psycopg.AsyncPipeline

#: The isolation levels by psycopg's values.
_ISOLATION_LEVELS: Final = {level.value: level.name.replace("_", " ") for level in psycopg.IsolationLevel}


_NO_MODES: Final = Modes()
RESET: Final = "RESET ALL"
_MARK: Final = MARK.encode()
#: Postgres refuses it in a transaction, also in the implicit one of a message with several statements.
DISCARD: Final = "DISCARD ALL"


@cache
def _begin(isolation_level: str | None, read_only: bool | None, deferrable: bool | None) -> str:
    return Modes(isolation_level=isolation_level, read_only=read_only, deferrable=deferrable).begin()


class WaitingConnection(psycopg.BaseConnection[Any], DriverConnection):
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
        if self.is_clean:
            self.is_clean, self.last_discard_key = False, binding.discard_key
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
        reset = [] if self.binding.modes is None else [RESET]
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
                yield from self._exchange(RESET)
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
        encoded = self._encoded_statements()

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
                statements.append((RESET, None))
            statements.append((self.binding.query(), self.binding.parameters()))
        return statements

    def _encoded_statements(self) -> list[tuple[bytes, list[bytes] | None]]:
        encoding = self.info.encoding
        return [
            (
                statement.encode(encoding),
                None if values is None else [value.encode(encoding) for value in values],
            )
            for statement, values in self._statements()
        ]

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
            return DISCARD
        return RESET if self._misread and not in_text else None

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


def waiting(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> Any:
    return cursor.connection
