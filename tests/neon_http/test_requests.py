"""Requests that are refused, whatever their statement is, and those of pages in a browser."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sqla_rls.testing.issuer import Issuer
from tests.neon_http.conftest import Client, MakeEndpoint
from tests.support.suite import table


def _nested(depth: int, opened: str, closed: str) -> bytes:
    return f'{{"query": "SELECT $1::text", "params": [{opened * depth}1{closed * depth}]}}'.encode()


@table(
    "body",
    [
        b"",
        b"no JSON",
        b'{"query": "SELECT \xff"}',
        b"[]",
        b"{}",
        b'{"query": 1}',
        b'{"query": "SELECT 1", "params": {}}',
        b'{"query": "SELECT 1", "arrayMode": 1}',
        b'{"queries": {}}',
        b'{"queries": ["SELECT 1"]}',
        b'{"query": "SELECT $1", "params": [NaN]}',
        b'{"query": "SELECT $1", "params": [1e999]}',
        b'{"query": "SELECT $1", "params": ["a\\u0000b"]}',
        b'{"query": "SELECT \\u0000"}',
        b'{"query": "SELECT $1", "params": ["\\ud800"]}',
        b"[" * 100_000,
        json.dumps({"query": "SELECT 1", "params": [1] * 70_000}).encode(),
        json.dumps({"queries": [{"query": "SELECT 1"}] * 1001}).encode(),
        _nested(600, "[", "]"),
        _nested(5000, "[", "]"),
        _nested(5000, '{"a":', "}"),
    ],
    ids=range(21),
)
@pytest.mark.one_postgres
async def test_a_request_that_is_not_of_the_protocol_is_refused(
    client: Client, body: bytes, runner: asyncio.Runner
) -> None:
    answer = await client.send(body)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])


@pytest.mark.exhaustive
async def test_a_large_request_is_refused(client: Client, runner: asyncio.Runner) -> None:
    answer = await client.send({"query": "SELECT 1", "params": ["x" * 11 * 1024 * 1024]})
    assert (answer.status_code, answer.json()) == (
        413,
        {"message": "request is too large (max is 10485760 bytes)"},
    )
    large = "x" * 9 * 1024 * 1024
    assert await client.rows("SELECT length($1)", large) == [[len(large)]]


@table("length", ["\N{SUPERSCRIPT TWO}", "9" * 5000])
async def test_a_length_that_is_no_number_is_no_internal_error(
    client: Client, length: str, runner: asyncio.Runner
) -> None:
    sent: Any = {"Content-Length": length.encode("latin-1")}
    answer = await client.send({"query": "SELECT 1"}, headers=sent)
    assert answer.status_code == (413 if length.isascii() else 200)


async def test_a_request_in_many_parts_is_read_in_linear_time(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    class Part(bytes):
        counted = 0

        def __len__(self) -> int:
            Part.counted += 1
            return super().__len__()

    left = iter(range(1000, -1, -1))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": Part(b" "), "more_body": next(left) > 0}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {issuer.token('alice')}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/sql", "headers": headers}
    await make_endpoint()(scope, receive, send)
    assert sent[0]["status"] == 400
    assert Part.counted <= 1001


@pytest.mark.exhaustive
async def test_other_paths_and_methods_are_no_queries(client: Client, runner: asyncio.Runner) -> None:
    for method, path in (("GET", "/sql"), ("POST", "/"), ("PUT", "/sql"), ("POST", "/sql/x")):
        answer = await client.send(b"", method=method, to=path)
        assert (answer.status_code, answer.json()) == (400, "query is not supported")


@pytest.mark.exhaustive
async def test_pages_of_named_origins_may_read(
    client: Client, make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    page = "https://app.example.com"
    query = {"query": "SELECT 1"}

    async def allowed(client: Client, origin: str = page) -> tuple[str | None, str | None]:
        headers = {"Origin": origin}
        asked = await client.send(b"", method="OPTIONS", headers=headers, subject=None)
        assert (asked.status_code, asked.headers["Allow"]) == (200, "OPTIONS, POST")
        answers = (asked, await client.send(query, headers=headers))
        first, second = (answer.headers.get("Access-Control-Allow-Origin") for answer in answers)
        if first:
            assert "Neon-Connection-String" in asked.headers["Access-Control-Allow-Headers"]
            assert asked.headers["Access-Control-Max-Age"] == "86400"
        return first, second

    assert await allowed(client) == (None, None)
    named = Client(make_endpoint(cors_origins=[page]), issuer)
    assert await allowed(named) == (page, page)
    assert await allowed(named, "https://app.example.com.evil.com") == (None, None)
    assert await allowed(named, "null") == (None, None)
    assert await allowed(Client(make_endpoint(cors_origins=["*"]), issuer), "null") == ("*", "*")
