"""Statements of somebody else on a psycopg connection: in text formats, within limits, and without traces.

A statement goes by the extended protocol, in which Postgres refuses several statements.  The rows arrive in
parts, so that a huge result ends at its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

from sqla_rls.driver.base import ENDED, NotDiscarded
from sqla_rls.driver.psycopg import AsyncConnection
from sqla_rls.exc import TransactionRefused

#: The rows of one part.
_PART: Final = 100
_ROWS: Final = (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_OK)
_COPIES: Final = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)
_DONE: Final = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY, *_ROWS)

#: The tags of the commands that begin, end or divide a transaction.
_TRANSACTION_COMMANDS: Final = frozenset(
    {"BEGIN", "COMMIT", "PREPARE TRANSACTION", "RELEASE", "ROLLBACK", "SAVEPOINT", "START TRANSACTION"}
)

#: Those that make the changes before them last.
_COMMITS: Final = frozenset({"COMMIT", "PREPARE TRANSACTION"})

#: Fails in a transaction that has changed a role, or the settings or members of one; a policy; or default
#: privileges.  SQL that acts as the login role may change that role's password and settings, and so refuse
#: the next connection to everyone.  DROP OWNED takes the caller's role out of every policy, and out of
#: default privileges.  The default privileges of the caller's role hold for all its callers.
#: Postgres keeps the locks of such a change until the transaction ends, except those on pg_policy and
#: pg_default_acl.  A deleted row there leaves the lock of its object.  A changed one is as young as the
#: transaction, or younger: it has the number of a subtransaction.  Ten seconds use up fewer numbers.
#: A function of the caller in a deferred trigger, or a cursor WITH HOLD, runs as late as COMMIT.
#: The views over pg_cursor() and pg_lock_status() would be planned for each statement.
_GUARD: Final = b"""
SELECT 1 OPERATOR(pg_catalog./) CASE
  WHEN EXISTS (SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable) THEN 0
  WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN 1
  WHEN EXISTS (
    SELECT FROM pg_catalog.pg_lock_status() AS l
     WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()
       AND (mode OPERATOR(pg_catalog.=) 'RowExclusiveLock'
            AND relation OPERATOR(pg_catalog.=) ANY (ARRAY[1260, 1261, 2964]::pg_catalog.oid[])
            OR mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'
            AND (classid OPERATOR(pg_catalog.=) ANY (ARRAY[826, 3256]::pg_catalog.oid[])
                 OR EXISTS (
                   SELECT FROM pg_catalog.pg_policy AS p
                    WHERE polrelid OPERATOR(pg_catalog.=) l.relation
                      AND pg_catalog.age(p.xmin) OPERATOR(pg_catalog.<=) 0
                      AND pg_catalog.age(p.xmin) OPERATOR(pg_catalog.>) -16777216)))) THEN 0
  WHEN EXISTS (
    SELECT FROM pg_catalog.pg_default_acl
     WHERE pg_catalog.age(xmin) OPERATOR(pg_catalog.<=) 0
       AND pg_catalog.age(xmin) OPERATOR(pg_catalog.>) -16777216) THEN 0
  WHEN EXISTS (
    SELECT FROM pg_catalog.pg_depend
     WHERE refclassid OPERATOR(pg_catalog.=) 2615
       AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()
       AND classid OPERATOR(pg_catalog.=) 1255) THEN 0
  ELSE 1 END
"""
_DIVISION_BY_ZERO: Final = b"22012"

#: The fields of an error of Postgres, by their codes.
ErrorFields: TypeAlias = dict[pq.DiagnosticField, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A column of a result, as Postgres describes it."""

    name: str
    type_oid: int
    table_oid: int
    column: int
    size: int
    modifier: int


#: A row: Postgres's texts, or None for NULL.
Row: TypeAlias = list[str | None]
#: Writes rows of some fields for the answer.
WriteRows: TypeAlias = Callable[[list[Row]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResult:
    """The result of a statement."""

    fields: list[Field]
    #: The written rows, in parts.
    parts: list[str]
    #: The command tag, such as ``INSERT 0 1``.
    tag: str


class StatementFailed(Exception):
    """Postgres has refused a statement."""

    def __init__(self, fields: ErrorFields) -> None:
        super().__init__(fields.get(pq.DiagnosticField.SQLSTATE))
        self.fields = fields


class StatementRefused(Exception):
    """A statement that can't be part of a request."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class ResultTooLarge(Exception):
    """A result has more bytes than the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, and how its result is read."""

    sql: bytes  # in UTF-8
    #: The texts of $1, $2, …, in UTF-8; None is NULL.
    params: Sequence[bytes | None]
    #: Returns the function that writes the rows.
    write: Callable[[list[Field]], WriteRows]
    max_rows: int | None
    #: The limit for the written rows, in characters.
    max_size: int


async def run(connection: AsyncConnection, statement: Statement) -> TextResult:
    """Run one statement in the bound transaction of *connection*; the first one begins it.

    Raises:
        StatementFailed: Postgres refuses the statement.
        StatementRefused: the statement ends the transaction, copies, changes a role, policies or the client's
            encoding.
        ResultTooLarge: the written rows exceed the limit.
        TransactionRefused: the transaction in progress isn't the bound one.
        BindingError: the server refuses the binding.

    Emits:
        BEGIN, the binding, the first statement, and one SELECT over the changes of the transaction, in one
        flush.  The SELECT follows each statement, so that a COMMIT of the caller finds a failed transaction.
    """
    if connection._waits:
        await connection.clear(in_text=False)
    elif connection.is_lost or connection.pgconn.transaction_status != pq.TransactionStatus.INTRANS:
        raise TransactionRefused(ENDED)
    async with connection.lock:
        result = await connection.wait(_run(connection, statement))
    if not isinstance(result, TextResult):
        raise StatementFailed(result)
    # A command in a function can't end the transaction.  COMMIT AND CHAIN begins another one at once.
    if result.tag in _COMMITS:
        raise StatementRefused(
            "the statement is refused: a request is one transaction, and the statement has ended it. The "
            "changes of the statements before it stay. Leave COMMIT out: a batch commits at its end",
            "2D000",
        )
    if result.tag in _TRANSACTION_COMMANDS or connection.is_lost:
        raise StatementRefused(
            "the statement is refused: a request is one transaction, and the statement divides or ends it. "
            "Send the statements of a transaction as a batch",
            "2D000",
        )
    return result


def _run(connection: AsyncConnection, statement: Statement) -> PQGen[TextResult | ErrorFields]:
    pgconn = connection.pgconn
    ahead = connection._encoded_statements() if connection._waits else []
    pgconn.enter_pipeline_mode()
    for sql, values in (*ahead, (statement.sql, statement.params), (_GUARD, None)):
        pgconn.send_query_params(sql, values)
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    for _ in ahead:
        answer = yield from _answer(pgconn)
        if answer.status not in _DONE:
            error = psycopg.errors.error_from_result(answer)
            raise connection._refusal(error, None) or error
    if ahead:
        connection._sent()
    result = yield from _read(pgconn, statement)
    guard: PGresult | None = None
    end: list[PGresult] = []
    try:
        guard = yield from _answer(pgconn)
        end = yield from generators.fetch_many(pgconn)  # of the Sync
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        # An error of the server says why it has closed the connection.
        if not isinstance(result, TextResult):
            return result
        for reason in (guard, *end):
            if reason is not None and reason.status == pq.ExecStatus.FATAL_ERROR:
                return _error_of(reason)
        raise
    if pgconn.parameter_status(b"client_encoding") != b"UTF8":
        raise _misencoded()
    if isinstance(result, TextResult) and guard.status not in _DONE:
        if guard.error_field(pq.DiagnosticField.SQLSTATE) != _DIVISION_BY_ZERO:
            return _error_of(guard)  # for example, the statement has set a short statement_timeout
        raise StatementRefused(
            "the transaction is refused: it changes a role, or the settings or members of one, a policy or "
            "default privileges; or it could while it commits, by a temporary function or a cursor WITH "
            "HOLD. Leave that out",
            "42501",
        )
    return result


def _answer(pgconn: PGconn) -> PQGen[PGresult]:
    """Return the result of the next statement of a pipeline."""
    answer: PGresult | None = None
    try:
        while (result := (yield from generators.fetch(pgconn))) is not None:
            answer = result
    except psycopg.OperationalError:
        # The server may close the connection after its error.
        if answer is None or answer.status in _DONE:
            raise
    if answer is None:
        raise psycopg.OperationalError("the statement failed: the server hasn't answered")
    return answer


def _read(pgconn: PGconn, statement: Statement) -> PQGen[TextResult | ErrorFields]:
    # Not in chunks: libpq would hold a hundred rows of any size before the limit counts.
    pgconn.set_single_row_mode()
    fields: list[Field] = []
    write: WriteRows | None = None
    parts: list[str] = []
    rows: list[Row] = []
    columns = range(0)
    count = size = waiting = 0  # rows, written characters, and bytes that aren't written
    tag = b""
    last: PGresult | None = None
    while True:
        # For a row that has arrived, fetch() would be a third of the cost.
        result = pgconn.get_result() if not pgconn.is_busy() else (yield from generators.fetch(pgconn))
        if result is None:
            break
        if result.status in _COPIES:
            raise StatementRefused(
                "the statement is refused: a request can't copy from or to the client. Use INSERT and SELECT",
                "0A000",
            )
        last = result
        # The end has the tag, and no row.
        tag = result.command_status or tag
        if result.status not in _ROWS:
            continue
        if write is None:
            fields = _fields_of(result)
            write = statement.write(fields)
            columns = range(len(fields))
        if result.ntuples:
            values = [result.get_value(0, column) for column in columns]
            count, waiting = count + 1, waiting + sum([len(value) for value in values if value is not None])
            # Before the work of writing them.  No value is written in less than half of its text.
            if waiting > 2 * (statement.max_size - size):
                raise ResultTooLarge
            rows.append([None if value is None else _text(value) for value in values])
            if statement.max_rows is not None and count > statement.max_rows:
                raise StatementRefused(
                    f"the result is refused: it has more than {statement.max_rows} rows. Add LIMIT", "54000"
                )
        if rows and (len(rows) == _PART or size + waiting > statement.max_size or not result.ntuples):
            parts.append(part := write(rows))
            rows, waiting, size = [], 0, size + len(part)
            if size > statement.max_size:
                raise ResultTooLarge
    if last is None:
        raise psycopg.OperationalError("the statement failed: the server hasn't answered")
    if last.status not in _DONE:
        return _error_of(last)
    return TextResult(fields=fields, parts=parts, tag=_text(tag))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _misencoded() from None


def _misencoded() -> StatementRefused:
    return StatementRefused(
        "the statement is refused: it changes client_encoding, and an answer is in UTF-8. Leave it out",
        "22021",
    )


def _fields_of(result: PGresult) -> list[Field]:
    return [
        Field(
            name=_text(result.fname(number) or b""),
            type_oid=result.ftype(number),
            table_oid=result.ftable(number),
            column=result.ftablecol(number),
            size=result.fsize(number),
            modifier=result.fmod(number),
        )
        for number in range(result.nfields)
    ]


def _error_of(result: PGresult) -> ErrorFields:
    found = {code: result.error_field(code) for code in pq.DiagnosticField}
    # The texts are in the client's encoding, which a statement may have changed.
    return {code: value.decode(errors="replace") for code, value in found.items() if value is not None}


#: The parts of DISCARD ALL, without DISCARD PLANS.  The plans of functions hold no state of a caller, and
#: planning again for each request doubles the time of a query.
_CLEAN: Final = b"""
; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; DEALLOCATE ALL; UNLISTEN *
; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES
"""
_COMMIT: Final = b"COMMIT" + _CLEAN
_ROLLBACK: Final = b"ROLLBACK" + _CLEAN


async def finish(connection: AsyncConnection, *, commit: bool) -> None:
    """End the transaction of *connection*, and discard all that its statements have left.

    After an error, the connection must be cleaned by ``finish(commit=False)``, or closed.

    Raises:
        StatementFailed: Postgres refuses to commit, for example for a deferred constraint.
        NotDiscarded: the transaction has ended, but something can't be discarded.
        psycopg.Error: the connection is lost, and the outcome is unknown.

    Emits:
        One message: COMMIT or ROLLBACK, and the parts of DISCARD ALL.
    """
    async with connection.lock:
        ended, is_clean = await connection.wait(_finish(connection.pgconn, _COMMIT if commit else _ROLLBACK))
    if ended.status not in _DONE:
        raise StatementFailed(_error_of(ended))
    if not is_clean:
        raise NotDiscarded
    connection.is_clean = True


def _finish(pgconn: PGconn, statements: bytes) -> PQGen[tuple[PGresult, bool]]:
    """Return the result of COMMIT or ROLLBACK, and whether the later statements have succeeded."""
    results: list[PGresult] = []
    is_lost = False
    try:
        pgconn.send_query(statements)
        yield from generators.send(pgconn)
        while (result := (yield from generators.fetch(pgconn))) is not None:
            results.append(result)
    except psycopg.OperationalError:
        # The server may close the connection after its error, for example for a transaction_timeout.
        last = None if results else pgconn.get_result()
        if last is not None and last.error_field(pq.DiagnosticField.SQLSTATE) is not None:
            results.append(last)
        if not results:
            raise
        is_lost = True
    if not results:
        raise psycopg.OperationalError("the transaction can't end: the server hasn't answered")
    return results[0], not is_lost and results[-1].status in _DONE
