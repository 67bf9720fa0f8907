"""Clients of SQL over HTTP, for scripts and functions that reach no Postgres directly.

They need nothing but Python.  The protocol has no interactive transactions, so that no Session can run over
it: send a batch.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, urlsplit

from sqla_rls.exc import DeclarationError, SqlOverHttpError
from sqla_rls.tokens.names import is_loopback

IsolationLevel: TypeAlias = Literal["ReadUncommitted", "ReadCommitted", "RepeatableRead", "Serializable"]
#: A statement, or a statement and its parameters.
BatchQuery: TypeAlias = str | tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a statement."""

    rows: list[dict[str, Any]]
    #: The first word of the command, such as ``INSERT``.
    command: str
    #: The number of rows; None for a command that counts none.
    row_count: int | None


class _Requests:
    """The common part of both clients: the URL, the headers, and the reading of answers."""

    def __init__(self, url: str, *, role: str, timeout: float, plain_http: bool) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeclarationError(
                "the client can't be made: the URL isn't one of HTTP. Give https://example.com/sql"
            )
        if parts.scheme == "http" and not plain_http and not is_loopback(parts.hostname):
            raise DeclarationError(
                "the client can't be made: its URL isn't https, so that others on the network can read the "
                "token. Give an https URL, or plain_http=True in a network that you trust"
            )
        self._parts, self._timeout = parts, timeout
        # A program may have turned off verification in http.client's default context.
        self._context = ssl.create_default_context() if parts.scheme == "https" else None
        host = quote(parts.hostname, safe=".")
        self._connection_string = f"postgresql://{quote(role, safe='')}@{host}/sql"

    def _open(self) -> HTTPConnection:
        assert self._parts.hostname is not None
        if self._context is None:
            return HTTPConnection(self._parts.hostname, self._parts.port, timeout=self._timeout)
        return HTTPSConnection(
            self._parts.hostname, self._parts.port, timeout=self._timeout, context=self._context
        )

    def _send(
        self, connection: HTTPConnection, token: str, body: Any, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        content = json.dumps(body, allow_nan=False, default=str).encode()
        sent = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Neon-Connection-String": self._connection_string,
            **headers,
        }
        path = self._parts.path or "/"
        if not token.isascii() or not token.isprintable() or " " in token:
            raise DeclarationError(_NOT_SENDABLE)
        try:
            connection.request(
                "POST", f"{path}?{self._parts.query}" if self._parts.query else path, content, sent
            )
            answer = connection.getresponse()
            text = answer.read()
        except BaseException as error:
            # The next request opens the connection again.
            connection.close()
            if not isinstance(error, OSError | HTTPException):
                raise
            raise SqlOverHttpError(
                f"the endpoint can't be reached: {error}. Check the URL; the statement may have run"
            ) from error
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if answer.status != 200 or not isinstance(found, dict):
            fields = found if isinstance(found, dict) else {}
            message = fields.get("message") or f"the endpoint has answered HTTP {answer.status}. See its log"
            raise SqlOverHttpError(str(message), status=answer.status, fields=fields)
        return found


def _batch_body(queries: Sequence[BatchQuery]) -> dict[str, Any]:
    pairs = [(query, ()) if isinstance(query, str) else query for query in queries]
    return {"queries": [{"query": sql, "params": list(params)} for sql, params in pairs]}


def _batch_headers(
    isolation_level: IsolationLevel | None, read_only: bool, deferrable: bool
) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isolation_level is not None:
        headers["Neon-Batch-Isolation-Level"] = isolation_level
    if read_only:
        headers["Neon-Batch-Read-Only"] = "true"
    if deferrable:
        headers["Neon-Batch-Deferrable"] = "true"
    return headers


def _result(found: Mapping[str, Any]) -> Result:
    return Result(rows=found["rows"], command=found["command"], row_count=found["rowCount"])


_NOT_SENDABLE: Final = (
    "the request can't be sent: its token has a space, a newline or another character that no token has. "
    "Give the token alone"
)
_NO_TEXT: Final = "the request can't be sent: auth_token returned no text. Return the token"


class Client:
    """A client of one endpoint, as the owner of a token.

    A client isn't for several threads at once.  It keeps its connection open until ``close()``.

    Args:
        url: the URL of the endpoint.
        auth_token: the token, or a function that returns the present one; each request calls it.
        role: the Postgres role of the token.
        timeout: the seconds that an answer may take.
        plain_http: whether the token may go to another machine by http.

    Raises:
        DeclarationError: the URL isn't one of HTTP, or is http to another machine without *plain_http*.
    """

    def __init__(
        self,
        url: str,
        *,
        auth_token: str | Callable[[], str],
        role: str = "authenticated",
        timeout: float = 30.0,
        plain_http: bool = False,
    ) -> None:
        self._requests = _Requests(url, role=role, timeout=timeout, plain_http=plain_http)
        self._auth_token = auth_token
        self._connection = self._requests._open()

    def query(self, sql: str, *params: Any) -> Result:
        """Run one statement in a transaction of its own.

        Args:
            sql: the statement, with $1, $2, … for the parameters.
            params: the parameters: JSON values.  A list is an array of Postgres, and a dict is JSON.

        Raises:
            SqlOverHttpError: the endpoint refuses the request, or can't be reached.
            DeclarationError: the token is no text, or has a character that no token has.
        """
        return _result(self._send({"query": sql, "params": list(params)}, {}))

    def batch(
        self,
        queries: Sequence[BatchQuery],
        *,
        isolation_level: IsolationLevel | None = None,
        read_only: bool = False,
        deferrable: bool = False,
    ) -> list[Result]:
        """Run statements in one transaction; an error undoes all of them.

        The endpoint commits after the last statement.  It refuses COMMIT as a statement, which has then made
        the statements before it last.

        Args:
            queries: the statements, each alone or with its parameters.
            isolation_level: the isolation level of the transaction; None is the database's.
            read_only: whether the transaction may only read.
            deferrable: whether a serializable read-only transaction waits for a safe snapshot.

        Raises:
            SqlOverHttpError: the endpoint refuses the request, or can't be reached.
            DeclarationError: as for ``query()``.
        """
        headers = _batch_headers(isolation_level, read_only, deferrable)
        return [_result(one) for one in self._send(_batch_body(queries), headers)["results"]]

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        token = self._auth_token() if callable(self._auth_token) else self._auth_token
        if not isinstance(token, str):
            raise DeclarationError(_NO_TEXT)
        return self._requests._send(self._connection, token, body, headers)


class AsyncClient:
    """A client like ``Client``, for asyncio.

    Each request runs in a thread, on a connection of its own, so that requests can run at once.  Nothing
    stays open between requests, and ``async with`` closes nothing.

    Args:
        url: the URL of the endpoint.
        auth_token: the token, or a function or coroutine function that returns the present one.
        role: the Postgres role of the token.
        timeout: the seconds that an answer may take.
        plain_http: whether the token may go to another machine by http.

    Raises:
        DeclarationError: the URL isn't one of HTTP, or is http to another machine without *plain_http*.
    """

    def __init__(
        self,
        url: str,
        *,
        auth_token: str | Callable[[], str | Awaitable[str]],
        role: str = "authenticated",
        timeout: float = 30.0,
        plain_http: bool = False,
    ) -> None:
        self._requests = _Requests(url, role=role, timeout=timeout, plain_http=plain_http)
        self._auth_token = auth_token

    async def query(self, sql: str, *params: Any) -> Result:
        """Run one statement in a transaction of its own, as ``Client.query()`` does."""
        return _result(await self._send({"query": sql, "params": list(params)}, {}))

    async def batch(
        self,
        queries: Sequence[BatchQuery],
        *,
        isolation_level: IsolationLevel | None = None,
        read_only: bool = False,
        deferrable: bool = False,
    ) -> list[Result]:
        """Run statements in one transaction, as ``Client.batch()`` does."""
        headers = _batch_headers(isolation_level, read_only, deferrable)
        return [_result(one) for one in (await self._send(_batch_body(queries), headers))["results"]]

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    async def _send(self, body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        token = self._auth_token() if callable(self._auth_token) else self._auth_token
        if inspect.isawaitable(token):
            token = await token
        if not isinstance(token, str):
            raise DeclarationError(_NO_TEXT)
        return await asyncio.to_thread(self._exchange, token, body, headers)

    def _exchange(self, token: str, body: Any, headers: Mapping[str, str]) -> dict[str, Any]:
        connection = self._requests._open()
        try:
            return self._requests._send(connection, token, body, headers)
        finally:
            connection.close()
