"""An endpoint for a database that verifies callers, and a client that sends requests of its protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import httpx2
import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sqla_rls.neon_http import SqlEndpoint, sql_endpoint
from sqla_rls.testing.issuer import Issuer
from tests.support.signing import Signed
from tests.support.web import served

CONNECTION_STRING = "postgresql://authenticated@ep-todos.example.com/app"
ALL_TODOS = "SELECT task FROM todos ORDER BY id"

#: ``make_endpoint(**options)``: an endpoint with these options of ``sql_endpoint()``.
MakeEndpoint: TypeAlias = Callable[..., SqlEndpoint]


class Client:
    """Sends requests of the protocol as people, to an endpoint in this process."""

    def __init__(self, endpoint: SqlEndpoint, issuer: Issuer) -> None:
        self._issuer = issuer
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(endpoint), base_url="http://test")

    async def send(
        self,
        body: Any,
        *,
        to: str = "/sql",
        method: str = "POST",
        headers: Mapping[str, str | None] | None = None,
        subject: str | None = "alice",
    ) -> httpx2.Response:
        """Send *body* as it is, if it is bytes, or as JSON."""
        given: dict[str, str | None] = {
            "Authorization": None if subject is None else f"Bearer {self._issuer.token(subject)}",
            "Neon-Connection-String": CONNECTION_STRING,
            **(headers or {}),
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name: value for name, value in given.items() if value is not None}
        return await self._http.request(method, to, content=content, headers=sent)

    async def rows(self, sql: str, *params: Any, subject: str = "alice") -> list[list[Any]]:
        """The rows of a query, in array mode."""
        answer = await self.send({"query": sql, "params": params, "arrayMode": True}, subject=subject)
        assert answer.status_code == 200, answer.text
        rows: list[list[Any]] = answer.json()["rows"]
        return rows

    async def error(self, sql: str, *params: Any, subject: str = "alice") -> dict[str, Any]:
        """The error of a query."""
        answer = await self.send({"query": sql, "params": params}, subject=subject)
        assert answer.status_code == 400, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def batch(self, *queries: str, subject: str = "alice", **headers: str) -> httpx2.Response:
        """The answer to a batch; a header's name has ``_`` in place of ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.send(
            {"queries": [{"query": sql} for sql in queries]}, headers=named, subject=subject
        )


@pytest.fixture
def sql_url(signed: Signed) -> URL:
    return signed.app.url.set(drivername="postgresql+psycopg")


@pytest.fixture
def sql_engine(sql_url: URL, runner: asyncio.Runner) -> Iterator[AsyncEngine]:
    """Of one connection, which people get in turns."""
    engine = create_async_engine(sql_url, pool_size=1, max_overflow=0, pool_timeout=5)
    yield engine
    runner.run(engine.dispose())


@pytest.fixture
def make_endpoint(sql_engine: AsyncEngine, signed: Signed, issuer: Issuer) -> MakeEndpoint:
    def make(**options: Any) -> SqlEndpoint:
        return sql_endpoint(sql_engine, issuer.provider, **{"signing_key": signed.key, **options})

    return make


@pytest.fixture
def client(make_endpoint: MakeEndpoint, issuer: Issuer) -> Client:
    return Client(make_endpoint(), issuer)


@pytest.fixture
def url(signed: Signed, sql_url: URL, issuer: Issuer) -> Iterator[str]:
    """The URL of an endpoint that listens."""
    engine = create_async_engine(sql_url, pool_size=2)
    endpoint = sql_endpoint(engine, issuer.provider, signing_key=signed.key)
    with served(endpoint) as address:
        yield f"{address}/sql"
    asyncio.run(engine.dispose())


def in_do_block(*statements: str) -> str:
    """A DO block that leaves the role and runs *statements*."""
    return f"DO $$ BEGIN PERFORM set_config('role', 'none', true); {' '.join(statements)} END $$"
