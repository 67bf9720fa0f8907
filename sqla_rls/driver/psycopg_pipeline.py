"""Pipelines of psycopg: the first exchange of a transaction, and the guard of later statements."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult
from psycopg.waiting import Wait

from sqla_rls.driver.base import ENDED, MARK
from sqla_rls.exc import TransactionRefused

#: Statements, each with its parameters.
Statements: TypeAlias = list[tuple[bytes, list[bytes] | None]]

UNANSWERED: Final = "the statement failed: the server hasn't answered"
_DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY)
_SYNCED: Final = pq.ExecStatus.PIPELINE_SYNC
_READABLE: Final = Wait.R
#: Fails outside the bound transaction, with a division by zero.
GUARD: Final = (
    f"SELECT 1 OPERATOR(pg_catalog./) CASE pg_catalog.current_setting('{MARK}') WHEN '%s' THEN 1 ELSE 0 END"
).encode()


class Flush(psycopg.Pipeline):
    """One exchange: BEGIN, the binding, and what a cursor has queued, with one Sync.

    It stands for psycopg's pipeline while a cursor executes the first statement of a transaction.  psycopg's
    own waits for the socket before each command and after it; this one waits for the answers alone.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        #: BEGIN and the binding.
        self.ahead: Statements = []
        #: Whether they are sent, and what a cursor queues isn't.
        self.is_ahead = False

    def send_ahead(self, statements: Statements) -> None:
        """Send BEGIN and the binding; a flush comes later."""
        pgconn = self.pgconn
        pgconn.enter_pipeline_mode()
        for statement, values in statements:
            pgconn.send_query_params(statement, values)
        self.ahead, self.is_ahead = statements, True

    @property
    def is_unanswered(self) -> bool:
        """Whether answers to BEGIN and the binding come without a statement after these."""
        return self.is_ahead and self.pgconn.status == pq.ConnStatus.OK

    def answers_gen(self) -> PQGen[None]:
        """Take the answers to BEGIN and the binding, since an error keeps the statement back."""
        self.clear()
        return self._communicate_gen()

    def clear(self) -> None:
        """Forget the commands of a statement that an error or an interrupt has ended."""
        self.command_queue.clear()
        self.result_queue.clear()

    def _communicate_gen(self) -> PQGen[None]:
        connection: Any = self._conn
        pgconn, self.is_ahead = self.pgconn, False
        commands, queue = self.command_queue, self.result_queue
        while commands:
            commands.popleft()()
        try:
            pgconn.pipeline_sync()
        except psycopg.OperationalError:
            raise _broken(pgconn) from None
        refused: PGresult | None = None
        answers: list[list[PGresult]] = []
        failed: PGresult | None = None
        try:
            if pgconn.flush():
                yield from generators.send(pgconn)
            for _ in self.ahead:
                # As generators.fetch_many(), for the one result of a statement; that takes twice the time.
                while pgconn.is_busy():
                    while not (yield _READABLE):
                        continue
                    pgconn.consume_input()
                if (result := pgconn.get_result()) is None:
                    raise psycopg.InternalError(UNANSWERED)
                if result.status not in _DONE:
                    refused = refused or result
                pgconn.get_result()  # the end of the statement
            for _ in queue:
                answers.append((yield from generators.fetch_many(pgconn)))
            # In AUTOCOMMIT, the Sync commits: deferred constraints may fail.
            if (end := (yield from generators.fetch_many(pgconn))) and end[-1].status != _SYNCED:
                failed = end[0]
                # Once: in COPY, libpq makes results without an end.
                yield from generators.fetch_many(pgconn)
            pgconn.exit_pipeline_mode()
        except psycopg.OperationalError:
            # An answer may say why the server has closed the connection.  After COPY, libpq can't go on; the
            # pool gives such a connection up.
            results = [refused, failed, *(result for answer in answers for result in answer)]
            if all(result is None or result.status in _DONE for result in results):
                raise
        connection._pipeline = None
        error: Exception | None = None
        if refused is None:
            connection._sent()
        else:
            error = connection._refused(refused)
        for answer in answers:
            try:
                self._process_results(queue.popleft(), answer)
            except psycopg.Error as failure:
                error = error or failure
        if failed is not None:
            error = error or psycopg.errors.error_from_result(failed, connection._codec or "ascii")
        if error is not None:
            # The server may not have prepared what psycopg believes.
            connection._prepared.clear()
            if pgconn.transaction_status == pq.TransactionStatus.IDLE:
                # In AUTOCOMMIT no rollback follows.  After the next statement, it would remove that one, too.
                with suppress(psycopg.Error):
                    yield from connection._prepared.maintain_gen(connection)
            raise error


def _broken(pgconn: Any) -> psycopg.Error:
    """Return the error of a connection that broke after the first flush; psycopg's own doesn't say why."""
    reason = psycopg.OperationalError(pgconn.get_error_message())
    while pgconn.status == pq.ConnStatus.BAD and (result := pgconn.get_result()) is not None:
        error = psycopg.errors.error_from_result(result)
        if error.sqlstate is not None:  # of the server
            return error
    return reason


class _EndedInPipeline(TransactionRefused, psycopg.OperationalError):
    """An earlier statement of a pipeline has ended the transaction."""


# A traceback shows the name, and the address of the documented error.
_EndedInPipeline.__name__ = TransactionRefused.__name__


class Guard:
    """Stands for the cursor of GUARD in a pipeline.

    A pipeline reads on after errors of psycopg alone.
    """

    def _check_results(self, results: list[PGresult]) -> None:
        (result,) = results
        if result.status == pq.ExecStatus.PIPELINE_ABORTED:
            raise psycopg.errors.PipelineAborted("pipeline aborted")
        if result.status not in _DONE:
            error = psycopg.errors.error_from_result(result)
            if error.sqlstate == "22012":
                raise _EndedInPipeline(ENDED) from error
            raise error

    def _set_results(self, results: list[PGresult]) -> None:
        pass
