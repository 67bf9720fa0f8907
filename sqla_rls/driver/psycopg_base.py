"""The part of a psycopg connection that its sync and its async half share."""

from __future__ import annotations

from typing import Any, Final, LiteralString, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult

from sqla_rls.driver.base import (
    BEGIN_RESET,
    ENDED,
    MARK,
    RESET,
    Binding,
    DriverConnection,
    Modes,
    NotDiscarded,
    Transport,
)
from sqla_rls.driver.psycopg_pipeline import GUARD, UNANSWERED, Flush, Guard, Statements
from sqla_rls.exc import BindingError, TransactionRefused, UnsupportedTransaction

#: False with a libpq before 14.
_HAS_PIPELINE: Final = psycopg.Pipeline.is_supported()

_Pipeline: TypeAlias = psycopg.Pipeline | psycopg.AsyncPipeline

#: The isolation levels by psycopg's values.
_ISOLATION_LEVELS: Final = {level.value: level.name.replace("_", " ") for level in psycopg.IsolationLevel}


_NO_MODES: Final = Modes()
_RESET: Final = RESET.encode()
_MARK: Final = MARK.encode()
_CLIENT_ENCODING: Final = b"client_encoding"
IDLE: Final = pq.TransactionStatus.IDLE
_COMMAND_OK: Final = pq.ExecStatus.COMMAND_OK
#: The ends of a transaction with RESET ALL, in one message.
_ENDS: Final = {command: command + b"; " + _RESET for command in (b"COMMIT", b"ROLLBACK")}
_ACTIVE: Final = pq.TransactionStatus.ACTIVE
#: Postgres refuses it in a transaction, also in the implicit one of a message with several statements.
DISCARD: Final = "DISCARD ALL"


class WaitingConnection(psycopg.BaseConnection[Any], DriverConnection):
    """The common part of both connections: BEGIN and a binding that wait for the next statement."""

    #: The cursor for statements ahead; kept, since a new one takes as long as the rest of the binding.
    ahead: Any
    _asked_autocommit = False
    _pipelined = False
    #: Whether the statement in progress goes without BEGIN and binding ahead of it.
    _sends = False
    #: Whether RESET ALL was the last statement, after a transaction.
    is_reset = False
    #: Whether an interrupted exchange has closed the connection.
    _is_cut = False
    #: Of psycopg: the pipeline in progress.
    _pipeline: Any

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._encoding = self.pgconn.parameter_status(_CLIENT_ENCODING)
        #: The last BEGIN, after its modes and those of psycopg.
        self._begun: tuple[Any, bytes] = (None, b"")
        #: Python's codecs by the names that Postgres has reported for the client encoding.
        self._codecs: dict[bytes | None, str | None] = {}
        self._flush = Flush(self)
        # An event loop of many tasks has other work meanwhile, which a call of the system delays.
        self._flushes_at_once = isinstance(self, psycopg.Connection)
        self._choose_mark()

    @property
    def idle(self) -> bool:
        return self.pgconn.transaction_status == IDLE

    @property
    def _has_ended(self) -> bool:
        """Whether there is nothing that psycopg could roll back."""
        return self._is_cut or (
            self.pgconn.transaction_status == IDLE
            and self._pipeline is None
            and not self._num_transactions
            and self._tpc is None
        )

    def queue(self, binding: Binding, transport: Transport) -> bool:
        if self.pgconn.transaction_status != IDLE:
            return False
        # A pipeline is no slower on a fast network, and its statements don't contain the claims.
        template = binding.template
        better = template.confidential or _HAS_PIPELINE
        self._pipelined = transport == "pipeline" or template.transferable or (transport == "auto" and better)
        self.binding, self.is_ended = binding, False
        if template.modes is not None:
            self.leftovers = template
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
        if self.is_lost and (
            self.is_ended
            or not (
                self.pgconn.pipeline_status or self.pgconn.transaction_status == pq.TransactionStatus.INERROR
            )
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
        return self.idle and not self.is_ended and (self.binding is not None or not self._asked_autocommit)

    def _begin(self, modes: Modes) -> bytes:
        key = modes, self._isolation_level, self._read_only, self._deferrable
        if self._begun[0] != key:
            level, read_only, deferrable = key[1:]
            begin = Modes(
                isolation_level=modes.isolation_level if level is None else _ISOLATION_LEVELS[level],
                read_only=modes.read_only if read_only is None else read_only,
                deferrable=modes.deferrable if deferrable is None else deferrable,
            ).begin()
            self._begun = key, begin.encode()
        return self._begun[1]

    @property
    def _in_text(self) -> bool:
        """Whether BEGIN and the binding go as one text."""
        # A pipeline's claims are parameters, whatever the first statement is.
        return not self.pgconn.pipeline_status and not (self._pipelined and self.binding is not None)

    def _text(self) -> str:
        if self.binding is None:
            return "; ".join(self._unbound())
        modes = self._take_modes(self.binding)
        reset = [] if modes is None else [RESET]
        return "; ".join([self._begin(modes or _NO_MODES).decode(), *reset, self.binding.literal()])

    def _take_modes(self, binding: Binding) -> Modes | None:
        """Return the modes for BEGIN, if RESET ALL is to follow; statements of the caller come next."""
        is_reset, self.is_reset = self.is_reset, False
        return None if is_reset else binding.template.modes

    def _unbound(self) -> list[str]:
        """Return BEGIN of a transaction without a binding, and the reset of the last caller's state."""
        begin = self._begin(_NO_MODES).decode()
        if self.leftovers is None:
            return [begin]
        if self.leftovers.pooled:
            return [begin, *self.leftovers.resets(local=True)]
        # Committed, so that the application's own settings stay, also after its rollback.
        return [BEGIN_RESET, *self.leftovers.resets(local=False), "COMMIT", begin]

    def _reset_gen(self) -> PQGen[None]:
        """Reset what the last caller has left, outside a transaction."""
        if self.leftovers is None:
            return
        if self._codec is None:
            yield from self._exchange(RESET)
        statements = self.leftovers.resets(local=False)
        if self._pipeline is None:
            yield from self._exchange("; ".join(statements))
        else:
            encoding, pipeline = self._codec or self.info.encoding, self._pipeline
            self._send_in(pipeline, [(statement.encode(encoding), None) for statement in statements])
            pipeline.result_queue.extend([None] * len(statements))
            yield from pipeline._sync_gen()
            yield from pipeline._fetch_gen(flush=True)
        self._has_reset()

    def _has_reset(self) -> None:
        if self.leftovers is not None and not self.leftovers.pooled:
            self.leftovers = None

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
        self.is_reset = False
        self._require_in_force()
        if self.pgconn.transaction_status == _ACTIVE and self._pipeline is not None:
            yield from self._guard_gen()
        if self.pgconn.transaction_status != IDLE:
            return
        if not self._waits:
            yield from self._reset_gen()
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
            if self.binding is None and self.leftovers is not None:
                # The reset may change the encoding, in which the statement is sent.
                yield from pipeline._fetch_gen(flush=True)
            self._sent()

    def _exec_command(self, command: Any, *args: Any, **kw: Any) -> PQGen[PGresult | None]:
        """Send *command*, such as COMMIT, for psycopg; RESET ALL goes with the end of a bound transaction."""
        binding = self.binding
        if (
            binding is not None
            and isinstance(command, bytes)
            and (end := _ENDS.get(command)) is not None
            and binding.template.resets_at_end
            and self._pipeline is None
        ):
            return self._end_gen(end)
        self.is_reset = False
        exchange: PQGen[PGresult | None] = super()._exec_command(command, *args, **kw)
        return exchange

    def _end_gen(self, end: bytes) -> PQGen[PGresult | None]:
        self.pgconn.send_query(end)
        results: list[PGresult] = yield from generators.execute(self.pgconn)
        if not results:
            raise psycopg.InternalError(UNANSWERED)
        if results[0].status != _COMMAND_OK:
            raise psycopg.errors.error_from_result(results[0], self._codec or "ascii")
        # The transaction has ended.  If RESET ALL fails, it goes with the next BEGIN.
        self.is_reset = len(results) == 2 and results[1].status == _COMMAND_OK
        return results[0]

    def _guard_gen(self) -> PQGen[None]:
        """Let the next statement of a pipeline fail if an earlier one ends the transaction, unanswered."""
        bound, pipeline = self.binding or self.executed, self._pipeline
        if bound is None:
            return
        if (mark := bound.template.mark) is None:
            # Only the state after a Sync tells.
            yield from pipeline._sync_gen()
            yield from pipeline._fetch_gen(flush=True)
            return
        self._send_in(pipeline, [(GUARD % mark.encode(), None)])
        pipeline.result_queue.append((Guard(), None))

    def _start_gen(self) -> PQGen[None]:
        """Send BEGIN and the binding outside a pipeline, and take the answers."""
        in_text = self._in_text
        yield from self._clear_gen(in_text)
        if not in_text:
            self._flush.send_ahead(self._encoded_statements())
            yield from self._flush._communicate_gen()
            return
        try:
            yield from self._exchange(self._text())
        except psycopg.Error as error:
            raise self._refusal(error, None) or error from None
        self._sent()

    def _clear_gen(self, in_text: bool) -> PQGen[None]:
        """Send RESET ALL or DISCARD ALL outside a pipeline, if it must go before BEGIN."""
        try:
            if self._is_unreadable or (self.leftovers is not None and self._codec is None):
                yield from self._exchange(RESET)
            if (first := self._first(in_text)) is not None:
                yield from self._exchange(first)
        except psycopg.Error as error:
            raise self._not_cleared(error) from None
        if first == DISCARD:
            self._sent()

    def _open_exchange(self) -> None:
        """Let the next statement of a cursor be one exchange with BEGIN and the binding.

        Raises:
            ExpiredToken: the caller has expired.
        """
        # Before psycopg notes that it prepares the statement: a function of the binding may fail.
        self._flush.send_ahead(self._encoded_statements())
        if self._flushes_at_once:
            # The server begins while psycopg adapts the statement.
            self.pgconn.flush()
        self._sends, self._pipeline = True, self._flush

    def _close_exchange(self) -> None:
        self._sends, self._pipeline = False, None
        if self._flush.result_queue:
            self._flush.clear()
        if self.pgconn.pipeline_status:
            self._cut()

    def _close_unanswered(self) -> None:
        """Close the connection if a signal handler has interrupted the wait for an answer."""
        if self.pgconn.pipeline_status or self.pgconn.transaction_status == _ACTIVE:
            self._cut()

    def _cut(self) -> None:
        # It is unknown how much of the exchange has reached the server.
        self.pgconn.finish()
        self._is_cut = True

    def _exchange(self, text: str) -> PQGen[None]:
        """Send *text*, for ``wait()``; a cursor would take twice the time."""
        self.is_reset = False
        encoding = self._codec or "ascii"
        self.pgconn.send_query(text.encode(encoding))
        results = yield from generators.execute(self.pgconn)
        if not results:
            raise psycopg.InternalError(UNANSWERED)
        for result in results:
            if result.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result, encoding)

    @property
    def _codec(self) -> str | None:
        """Python's codec for the client encoding; None if Python has none, as for EUC_TW."""
        reported = self.pgconn.parameter_status(_CLIENT_ENCODING)
        if reported not in self._codecs:
            try:
                self._codecs[reported] = self.info.encoding
            except psycopg.NotSupportedError:
                self._codecs[reported] = None
        return self._codecs[reported]

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
        self._send_in(pipeline, encoded)
        # None: no cursor needs the result, only a failure counts.
        pipeline.result_queue.extend([None] * (len(encoded) - 1))
        ahead.pgresult = None
        pipeline.result_queue.append((ahead, None))

    def _send_in(self, pipeline: _Pipeline, statements: Statements) -> None:
        """Queue *statements*, as one command, for the next flush of *pipeline*."""

        def send() -> None:
            for statement, values in statements:
                self.pgconn.send_query_params(statement, values)

        pipeline.command_queue.append(send)

    def _encoded_statements(self) -> Statements:
        """Return BEGIN, RESET ALL and the binding as far as they are due, each with its parameters."""
        encoding, binding = self._codec or self.info.encoding, self.binding
        if binding is None:
            return [(statement.encode(encoding), None) for statement in self._unbound()]
        statements: Statements = []
        modes = self._take_modes(binding)
        if not self._asked_autocommit:
            statements.append((self._begin(modes or _NO_MODES), None))
        if modes is not None:
            statements.append((_RESET, None))
        statements.append((binding.template.encoded_query, binding.encoded_parameters(encoding)))
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
        binding = self.binding
        if binding is None or binding.template.modes is None:
            return False
        reset = binding.template.client_encoding or self._encoding
        return self.pgconn.parameter_status(_CLIENT_ENCODING) != reset

    def _sent(self) -> None:
        if self.binding is not None:
            self.last_discard_key = self.binding.discard_key
        else:
            self._has_reset()

    def _require_one_phase(self) -> None:
        """Raise UnsupportedTransaction if there is a binding, which PREPARE TRANSACTION would lose."""
        if self.binding is not None or self.executed is not None:
            raise UnsupportedTransaction(
                "the transaction can't begin: PREPARE TRANSACTION loses the binding of the connection's "
                "caller. Use a transaction of one phase, or a connection outside a session"
            )

    def _in_one_flush(self, params: object) -> bool:
        # A query without parameters may hold several statements, which a pipeline doesn't accept.
        return self.binding is not None and (self._pipelined or self._asked_autocommit) and params is not None

    def _joins(self, params: object) -> bool:
        """Whether, outside a transaction, BEGIN, the binding and the next statement can be one exchange."""
        binding = self.binding
        return (
            binding is not None
            and not self.is_ended
            and (self._pipelined or self._asked_autocommit)
            and params is not None
            and self._pipeline is None
            and (binding.discard_key is None or not self.discards)
            and not self._misread
        )

    def _must_clear(self, params: object) -> bool:
        """Whether ``clear()`` comes before the exchange."""
        return self._waits and self._in_one_flush(params) and (self.discards or self._misread)

    def _refused(self, result: PGresult) -> Exception:
        """Return the error for the failed *result* of BEGIN, RESET ALL or the binding."""
        failure = psycopg.errors.error_from_result(result, self._codec or "ascii")
        error = self._refusal(failure, None)
        if error is None:
            return failure
        error.__cause__ = failure
        return error

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


def waiting(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> Any:
    return cursor.connection
