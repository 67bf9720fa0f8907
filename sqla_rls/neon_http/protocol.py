"""Requests and answers of Neon's SQL over HTTP, as its drivers send and read them.

Nothing here runs a statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from psycopg.pq import DiagnosticField

from sqla_rls.driver.psycopg_text import ErrorFields, Field, Row, TextResult, WriteRows
from sqla_rls.neon_http.errors import BadRequest
from sqla_rls.neon_http.values import encoded, loads, parameter, writer

#: The limit of Postgres's protocol.
_MAX_PARAMETERS: Final = 65535

_ISOLATION_LEVELS: Final = {
    "ReadUncommitted": "READ UNCOMMITTED",
    "ReadCommitted": "READ COMMITTED",
    "RepeatableRead": "REPEATABLE READ",
    "Serializable": "SERIALIZABLE",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One statement of a request."""

    sql: bytes
    params: tuple[bytes | None, ...]
    #: Rows are arrays, not objects.
    array_mode: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A single query, or a batch of them: one transaction."""

    #: The user name of the connection string.
    role: str
    queries: tuple[Query, ...]
    is_batch: bool
    #: Values are Postgres's texts.
    raw: bool
    #: The modes of the transaction, as SQLAlchemy's execution options.
    modes: Mapping[str, Any]
    #: The headers of a batch that the answer repeats.
    echoed: Mapping[str, str]


class Headers:
    """The headers of a request, by their lower-case names."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def one(self, name: str) -> str | None:
        """Return the value of a header.

        Raises:
            BadRequest: the request has several.
        """
        values = self.all(name)
        if len(values) > 1:
            # A proxy in front may have checked another one.
            raise BadRequest(f"the request can't run: it has several headers {name}. Send one")
        return values[0] if values else None

    def is_true(self, name: str) -> bool:
        return self.one(name) == "true"


def read_request(headers: Headers, body: bytes, *, max_queries: int) -> Request:
    """Return the request.

    Raises:
        BadRequest: the request isn't one of the protocol.
    """
    role = _role_in(headers.one("neon-connection-string"))
    array_mode, raw = headers.is_true("neon-array-mode"), headers.is_true("neon-raw-text-output")
    sent = loads(body)
    if not isinstance(sent, dict):
        raise _malformed()
    is_batch = "queries" in sent
    listed = sent["queries"] if is_batch else [sent]
    if not isinstance(listed, list):
        raise _malformed()
    if len(listed) > max_queries:
        raise BadRequest(
            f"the batch is refused: it has more than {max_queries} queries. Send several batches"
        )
    queries = tuple(_query(one, array_mode) for one in listed)
    modes, echoed = _modes(headers) if is_batch else ({}, {})
    return Request(role=role, queries=queries, is_batch=is_batch, raw=raw, modes=modes, echoed=echoed)


def _malformed() -> BadRequest:
    return BadRequest(
        "the request can't be read: its body isn't one of the protocol. "
        'Send {"query": "…", "params": […]}, or {"queries": […]}'
    )


def _query(sent: Any, array_mode: bool) -> Query:
    if not isinstance(sent, dict):
        raise _malformed()
    sql, params = sent.get("query"), sent.get("params")
    mode = sent.get("arrayMode")
    params = [] if params is None else params
    if not isinstance(sql, str) or not isinstance(params, list) or not isinstance(mode, bool | None):
        raise _malformed()
    if len(params) > _MAX_PARAMETERS:
        raise BadRequest(f"the query is refused: it has more than {_MAX_PARAMETERS} parameters. Send fewer")
    return Query(
        sql=encoded(sql, "the query"),
        params=tuple(parameter(value) for value in params),
        array_mode=array_mode if mode is None else mode,
    )


def _role_in(connection_string: str | None) -> str:
    """Return the user name of the connection string; nothing else in it counts."""
    if connection_string is None:
        raise BadRequest("the request can't run: it has no connection string. Send Neon-Connection-String")
    try:
        url = urlsplit(connection_string)
        user, database = unquote(url.username or "", errors="strict"), url.path.strip("/")
    except ValueError:
        user = database = ""
    else:
        if url.scheme not in ("postgres", "postgresql"):
            user = ""
    if not user or not database:
        raise BadRequest(
            "the request can't run: its connection string isn't postgresql://role@host/database. Correct it"
        )
    return user


def _modes(headers: Headers) -> tuple[dict[str, Any], dict[str, str]]:
    modes: dict[str, Any] = {}
    echoed: dict[str, str] = {}
    if (level := headers.one("neon-batch-isolation-level")) is not None:
        if level not in _ISOLATION_LEVELS:
            raise BadRequest(
                f"the batch can't run: invalid isolation level. Send one of {', '.join(_ISOLATION_LEVELS)}"
            )
        modes["isolation_level"] = _ISOLATION_LEVELS[level]
        echoed["neon-batch-isolation-level"] = level
    for header, option in (
        ("neon-batch-read-only", "postgresql_readonly"),
        ("neon-batch-deferrable", "postgresql_deferrable"),
    ):
        if headers.is_true(header):
            modes[option] = True
            echoed[header] = "true"
    return modes, echoed


_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def answer_of(request: Request, results: Sequence[str]) -> bytes:
    """Return the body of the answer with the written *results*."""
    return (f'{{"results":[{",".join(results)}]}}' if request.is_batch else results[0]).encode()


def written(result: TextResult, *, array_mode: bool) -> str:
    """Return the JSON of *result*."""
    words = result.tag.split(" ")
    head = _encode(
        {
            "command": words[0],
            "rowCount": int(words[-1]) if words[-1].isdigit() else None,
            "rowAsArray": array_mode,
            "fields": [
                {
                    "name": field.name,
                    "dataTypeID": field.type_oid,
                    "tableID": field.table_oid,
                    "columnID": field.column,
                    "dataTypeSize": field.size,
                    "dataTypeModifier": field.modifier,
                    "format": "text",
                }
                for field in result.fields
            ],
        }
    )
    return f'{head[:-1]},"rows":[{",".join(result.parts)}]}}'


def rows_writer(fields: list[Field], *, raw: bool, array_mode: bool) -> WriteRows:
    """Return a function that writes rows of *fields* as JSON, with commas between them."""
    names = [field.name for field in fields]
    if raw and array_mode:
        return lambda rows: _encode(rows)[1:-1]
    if raw:
        # Of columns with one name, the last one counts.
        return lambda rows: _encode([dict(zip(names, row, strict=True)) for row in rows])[1:-1]
    writers = [writer(field.type_oid) for field in fields]

    def values(row: Row) -> list[str]:
        return ["null" if value is None else write(value) for write, value in zip(writers, row, strict=True)]

    if array_mode:
        return lambda rows: ",".join([f"[{','.join(values(row))}]" for row in rows])
    keys = [_encode(name) for name in names]

    def written(row: Row) -> str:
        members = dict(zip(keys, values(row), strict=True))
        return "{" + ",".join([f"{key}:{value}" for key, value in members.items()]) + "}"

    return lambda rows: ",".join(map(written, rows))


#: The names of the fields of an error, in the protocol and in Postgres.
_ERROR_FIELDS: Final = {
    "message": DiagnosticField.MESSAGE_PRIMARY,
    "code": DiagnosticField.SQLSTATE,
    "severity": DiagnosticField.SEVERITY,
    "detail": DiagnosticField.MESSAGE_DETAIL,
    "hint": DiagnosticField.MESSAGE_HINT,
    "position": DiagnosticField.STATEMENT_POSITION,
    "internalPosition": DiagnosticField.INTERNAL_POSITION,
    "internalQuery": DiagnosticField.INTERNAL_QUERY,
    "where": DiagnosticField.CONTEXT,
    "schema": DiagnosticField.SCHEMA_NAME,
    "table": DiagnosticField.TABLE_NAME,
    "column": DiagnosticField.COLUMN_NAME,
    "dataType": DiagnosticField.DATATYPE_NAME,
    "constraint": DiagnosticField.CONSTRAINT_NAME,
    "file": DiagnosticField.SOURCE_FILE,
    "line": DiagnosticField.SOURCE_LINE,
    "routine": DiagnosticField.SOURCE_FUNCTION,
}


def error_of(fields: ErrorFields) -> bytes:
    """Return the body of the answer to an error of Postgres."""
    return _encode({name: fields.get(code) for name, code in _ERROR_FIELDS.items()}).encode()


def refusal_of(message: str, code: str | None = None) -> bytes:
    """Return the body of the answer to an error that isn't Postgres's."""
    return _encode({"message": message, **({} if code is None else {"code": code})}).encode()
