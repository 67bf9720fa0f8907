"""Requests, answers and statements that take too much memory or time."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import threading
import time
import tracemalloc
from typing import Any

import pytest
from sqlalchemy import text

from sqla_rls.neon_http import Limits
from sqla_rls.neon_http import endpoint as endpoint_module
from sqla_rls.neon_http.protocol import read_request
from sqla_rls.neon_http.values import loads, writer
from sqla_rls.testing.issuer import Issuer
from tests.neon_http.conftest import ALL_TODOS, Client, MakeEndpoint
from tests.support.signing import Signed


@pytest.mark.exhaustive
async def test_a_small_limit_bounds_the_memory_of_a_result(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=100_000)), issuer)
    await client.rows("SELECT 1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await client.send({"query": "SELECT repeat('x', 1000000) FROM generate_series(1, 99)"})
    assert answer.status_code == 507
    # In KiB: a hundred rows would be 100,000.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.exhaustive
async def test_a_huge_result_ends_at_its_limit(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=100_000)), issuer)
    for sql in (
        "SELECT generate_series(1, 100000000)",
        "SELECT FROM generate_series(1, 100000)",
        "SELECT repeat('x', 100000)",
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 100000); END $$",
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat('x', 60000) USING DETAIL = repeat('x', 60000); END $$",
    ):
        answer = await client.send({"query": sql})
        assert answer.status_code == 507, answer.text
        assert answer.json() == {"message": "response is too large (max is 100000 bytes)"}
    # Nothing is written whose answer can't be read.
    insert = "INSERT INTO todos (task) SELECT repeat('x', 1000) FROM generate_series(1, 200) RETURNING task"
    assert (await client.send({"query": insert})).status_code == 507
    assert (await client.batch("SELECT repeat('x', 60000)", "SELECT repeat('x', 60000)")).status_code == 507
    assert await client.rows(ALL_TODOS) == [["alice's"]]


@pytest.mark.exhaustive
async def test_the_columns_of_a_batch_count_as_its_results_arrive(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(max_response_bytes=1_000_000)), issuer)
    columns = ", ".join(["1"] * 1600)
    # Of a result without rows, too.  The setting would fail the batch in another way.
    answer = await client.batch(*[f"SELECT {columns} LIMIT 0"] * 8, "SET client_encoding = 'LATIN1'")
    assert (answer.status_code, "too large" in answer.text) == (507, True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("sql", ["SELECT ARRAY[repeat('\"', 2000000)]", "SELECT repeat('x', 3000000)"])
async def test_a_value_above_the_limit_is_not_written(
    make_endpoint: MakeEndpoint,
    issuer: Issuer,
    sql: str,
    monkeypatch: pytest.MonkeyPatch,
    runner: asyncio.Runner,
) -> None:
    written: list[int] = []

    def note(rows: list[Any]) -> str:
        written.append(len(rows))
        return ""

    monkeypatch.setattr(endpoint_module, "rows_writer", lambda *_, **__: note)
    client = Client(make_endpoint(limits=Limits(max_response_bytes=1_000_000)), issuer)
    answer = await client.send({"query": sql})
    assert (answer.status_code, written) == (507, [])


@pytest.mark.exhaustive
async def test_a_large_request_is_read_beside_the_event_loop(
    client: Client, monkeypatch: pytest.MonkeyPatch, runner: asyncio.Runner
) -> None:
    threads: list[int] = []
    read = read_request

    def note(*args: Any, **kw: Any) -> Any:
        threads.append(threading.get_ident())
        return read(*args, **kw)

    monkeypatch.setattr(endpoint_module, "read_request", note)
    for numbers in ([1.5], [1.5] * 100_000):
        assert await client.rows("SELECT cardinality($1::float8[])", numbers) == [[len(numbers)]]
    small, large = threads
    assert small == threading.get_ident() != large


@pytest.mark.exhaustive
def test_the_numbers_of_a_request_take_little_memory() -> None:
    body = b"[" + b",".join([b"1.5"] * 100_000) + b"]"
    tracemalloc.start()
    try:
        numbers = loads(body)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(numbers)
    finally:
        tracemalloc.stop()


@pytest.mark.exhaustive
async def test_types_of_callers_fill_no_memory(client: Client, runner: asyncio.Runner) -> None:
    for number in range(3):
        names = [f"pg_temp.e{number}_{one}" for one in range(500)]
        create = "DO $$ BEGIN " + "".join(f"CREATE TYPE {name} AS ENUM ('a');" for name in names) + " END $$"
        answer = await client.batch(create, "SELECT " + ", ".join(f"'a'::{name}" for name in names))
        assert answer.status_code == 200, answer.text
    assert writer.cache_info().currsize <= 1024


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "queries",
    [
        ["SET LOCAL statement_timeout = 0", "SELECT pg_sleep(60)"],
        ["SELECT pg_sleep(60)"],
        ["SELECT pg_sleep(0.4)"] * 100,
    ],
    ids=["without its timeout", "one statement", "many statements"],
)
async def test_nobody_keeps_a_connection(
    make_endpoint: MakeEndpoint, issuer: Issuer, queries: list[str], signed: Signed, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(timeout=2.0)), issuer)
    await client.rows("SELECT 1")
    began = time.monotonic()
    answer = await client.batch(*queries)
    assert (answer.status_code, answer.json()["code"]) == (400, "57014")
    assert time.monotonic() - began < 30
    assert await client.rows(ALL_TODOS, subject="bob") == [["bob's"]]
    with signed.admin.connect() as connection:
        sleeping = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        assert connection.scalar(sleeping) == 0


@pytest.mark.exhaustive
async def test_a_short_transaction_timeout_is_an_error_of_postgres(
    client: Client, runner: asyncio.Runner
) -> None:
    known = "SELECT count(*)::int FROM pg_settings WHERE name = 'transaction_timeout'"
    if await client.rows(known) == [[0]]:
        pytest.skip("PostgreSQL before 17 has no transaction_timeout")
    for _ in range(60):
        # The server closes the connection at any moment, or the transaction is fast enough.
        for queries in (["SET transaction_timeout = 1", "SELECT 1"], ["SET transaction_timeout = 1"]):
            answer = await client.batch(*queries)
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["code"]) == (400, "25P04")
    assert await client.rows("SELECT 1") == [[1]]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("oid", "element"),
    [
        (1009, "a"),  # text[]
        (1009, '"a \\\\ \\" b"'),
        (1009, "\1"),
        (1009, "NULL"),
        (1016, "1"),  # int8[]
        (1000, "t"),  # bool[]
        (1022, "NaN"),  # float8[]
        (3807, '"{\\"a\\": 1}"'),  # jsonb[]
        (1020, "(1,1),(0,0)"),  # box[], with another delimiter
    ],
)
def test_the_elements_of_an_array_cost_no_call_each(oid: int, element: str) -> None:
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event.endswith("call")

    delimiter = ";" if oid == 1020 else ","
    value = "{" + delimiter.join([element] * 1000) + "}"
    sys.setprofile(count)
    try:
        written = writer(oid)(value)
    finally:
        sys.setprofile(None)
    assert len(json.loads(written)) == 1000
    assert calls < 100
