"""One statement of somebody else on a psycopg connection: in text formats, with limits, and without traces.

The statement goes by the extended protocol, in which Postgres refuses several statements.  The rows arrive
in parts, so that a huge result ends at its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import psycopg
from psycopg import generators, pq
from psycopg.abc import PQGen
from psycopg.pq.abc import PGresult

from sqla_rls.driver.base import ENDED
from sqla_rls.driver.psycopg import AsyncConnection
from sqla_rls.exc import TransactionRefused

#: The rows of one part.
_PART: Final = 100
_ROWS: Final = (pq.ExecStatus.SINGLE_TUPLE, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.TUPLES_OK)
_COPIES: Final = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)

#: The first words of the tags of commands that begin, end or divide a transaction.
_TRANSACTION_COMMANDS: Final = frozenset(
    {"BEGIN", "COMMIT", "PREPARE TRANSACTION", "RELEASE", "ROLLBACK", "SAVEPOINT", "START TRANSACTION"}
)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TextResult:
    """The result of a statement; the values are Postgres's texts."""

    fields: list[Field]
    rows: list[list[str | None]]
    #: The command tag, such as ``INSERT 0 1``.
    tag: str
    #: The text of the values, in bytes.
    size: int


class StatementFailed(Exception):
    """Postgres has refused a statement."""

    def __init__(self, fields: ErrorFields) -> None:
        super().__init__(fields.get(pq.DiagnosticField.SQLSTATE))
        self.fields = fields


class StatementRefused(Exception):
    """A statement that can't be part of a request; its effects must be undone."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class ResultTooLarge(Exception):
    """A result has more bytes than the limit."""


async def run(
    connection: AsyncConnection,
    query: bytes,
    params: Sequence[bytes | None],
    *,
    max_rows: int | None,
    max_bytes: int,
) -> TextResult:
    """Run one statement in the bound transaction of *connection*.

    Args:
        connection: a connection with a binding.
        query: the SQL, in UTF-8.
        params: the texts of $1, $2, …, in UTF-8; None is NULL.
        max_rows: the limit for the rows; None is no limit.
        max_bytes: the limit for the values.

    Raises:
        StatementFailed: Postgres refuses the statement.
        StatementRefused: the statement ends the transaction, copies, or changes the client's encoding.
        ResultTooLarge: the result has more than *max_bytes*.
        TransactionRefused: the transaction in progress isn't the bound one.
    """
    await connection.start()
    if connection.is_lost or connection.pgconn.transaction_status != pq.TransactionStatus.INTRANS:
        raise TransactionRefused(ENDED)
    async with connection.lock:
        result = await connection.wait(_run(connection.pgconn, query, params, max_rows, max_bytes))
    if not isinstance(result, TextResult):
        raise StatementFailed(result)
    # A command in a function can't end the transaction.  COMMIT AND CHAIN begins another one at once.
    if result.tag in _TRANSACTION_COMMANDS or connection.is_lost:
        raise StatementRefused(
            "the statement is refused: a request is one transaction, and the statement divides or ends it. "
            "Send the statements of a transaction as a batch",
            "2D000",
        )
    return result


def _run(
    pgconn: pq.abc.PGconn,
    query: bytes,
    params: Sequence[bytes | None],
    max_rows: int | None,
    max_bytes: int,
) -> PQGen[TextResult | ErrorFields]:
    pgconn.send_query_params(query, params)
    if _HAS_PARTS:
        pgconn.set_chunked_rows_mode(_PART)
    else:
        pgconn.set_single_row_mode()
    yield from generators.send(pgconn)
    rows: list[list[str | None]] = []
    size = 0
    tag = b""
    last: PGresult | None = None
    while (result := (yield from generators.fetch(pgconn))) is not None:
        status = result.status
        if status in _COPIES:
            raise StatementRefused(
                "the statement is refused: a request can't copy from or to the client. Use INSERT and SELECT",
                "0A000",
            )
        last = result
        # The last part with rows has the tag, or the end without rows.
        tag = result.command_status or tag
        if status not in _ROWS:
            continue
        columns = range(result.nfields)
        for number in range(result.ntuples):
            values = [result.get_value(number, column) for column in columns]
            size += sum([len(value) for value in values if value]) + 4 * len(values)
            rows.append([None if value is None else _text(value) for value in values])
        if size > max_bytes:
            raise ResultTooLarge
        if max_rows is not None and len(rows) > max_rows:
            raise StatementRefused(
                f"the result is refused: it has more than {max_rows} rows. Add LIMIT", "54000"
            )
    if last is None:
        raise psycopg.OperationalError("the statement failed: the server hasn't answered")
    if last.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY, *_ROWS):
        return _error_of(last)
    if pgconn.parameter_status(b"client_encoding") != b"UTF8":
        raise _misencoded()
    return TextResult(fields=_fields_of(last), rows=rows, tag=_text(tag), size=size)


_HAS_PARTS: Final = hasattr(pq.PGconn, "set_chunked_rows_mode") and pq.version() >= 170000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a transaction."""

    #: Postgres's error, for example of a deferred constraint; None without one.
    refusal: ErrorFields | None
    #: Whether the connection is as clean as a new one.  Otherwise it must be closed.
    is_clean: bool


async def finish(connection: AsyncConnection, *, commit: bool) -> Ended:
    """End the transaction of *connection*, and discard all that its statements have left.

    Both go in one flush.

    Raises:
        psycopg.Error: the connection is lost, and the outcome is unknown.

    Emits:
        COMMIT or ROLLBACK, and DISCARD ALL.
    """
    end = b"COMMIT" if commit else b"ROLLBACK"
    async with connection.lock:
        ended, discarded = await connection.wait(_finish(connection.pgconn, end))
    connection.is_clean = discarded.status == pq.ExecStatus.COMMAND_OK
    refusal = None if ended.status == pq.ExecStatus.COMMAND_OK else _error_of(ended)
    return Ended(refusal=refusal, is_clean=connection.is_clean)


def _finish(pgconn: pq.abc.PGconn, end: bytes) -> PQGen[list[PGresult]]:
    pgconn.enter_pipeline_mode()
    for statement in (end, b"DISCARD ALL"):
        pgconn.send_query_params(statement, None)
        # Postgres refuses DISCARD ALL in one message with another statement.
        pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    answers: list[PGresult] = []
    while len(answers) < 2:
        answer: PGresult | None = None
        while (result := (yield from generators.fetch(pgconn))) is not None:
            answer = result
        if answer is None:
            raise psycopg.OperationalError("the transaction can't end: the server hasn't answered")
        answers.append(answer)
        yield from generators.fetch(pgconn)  # of the sync
    pgconn.exit_pipeline_mode()
    return answers
