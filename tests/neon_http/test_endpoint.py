"""Requests of the protocol, and the answers of the endpoint."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from starlette.routing import Route

from sqla_rls import enforce_row_security
from sqla_rls.exc import DeclarationError, SignedBindingUnavailable
from sqla_rls.neon_http import Limits, SqlEndpoint, sql_endpoint
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.testing.postgres import Server
from tests.neon_http.conftest import CONNECTION_STRING, Client, MakeEndpoint
from tests.support.late_sync import LateSync, kill_before_sync
from tests.support.signing import Signed
from tests.support.suite import table


async def test_a_query_returns_rows_fields_and_a_command(client: Client, runner: asyncio.Runner) -> None:
    answer = await client.send({"query": "SELECT id, task FROM todos WHERE task = $1", "params": ["alice's"]})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Neon-Request-Id"]
    body = answer.json()
    assert body["fields"][0] == {
        "name": "id",
        "dataTypeID": 20,
        "tableID": body["fields"][1]["tableID"],
        "columnID": 1,
        "dataTypeSize": 8,
        "dataTypeModifier": -1,
        "format": "text",
    }
    assert {name: body[name] for name in ("command", "rowCount", "rowAsArray", "rows")} == {
        "command": "SELECT",
        "rowCount": 1,
        "rowAsArray": False,
        "rows": [{"id": "1", "task": "alice's"}],
    }


@pytest.mark.exhaustive
async def test_commands_have_their_first_word_and_their_count(client: Client, runner: asyncio.Runner) -> None:
    for sql, command, count in (
        ("INSERT INTO todos (task) VALUES ('a'), ('b')", "INSERT", 2),
        ("UPDATE todos SET task = 'c'", "UPDATE", 3),
        ("DELETE FROM todos", "DELETE", 3),
        ("CREATE TEMP TABLE t (id int)", "CREATE", None),
        ("SELECT 1 WHERE false", "SELECT", 0),
        ("", "", None),
        ("-- nothing", "", None),
        ("SELECT", "SELECT", 1),
    ):
        body = (await client.send({"query": sql})).json()
        assert (body["command"], body["rowCount"]) == (command, count), sql


async def test_a_batch_is_one_transaction(client: Client, runner: asyncio.Runner) -> None:
    answer = await client.batch(
        "INSERT INTO todos (task) VALUES ('new')", "SELECT task FROM todos ORDER BY id"
    )
    first, second = answer.json()["results"]
    assert (first["rowCount"], second["rows"]) == (1, [{"task": "alice's"}, {"task": "new"}])
    answer = await client.batch("INSERT INTO todos (task) VALUES ('lost')", "SELECT nope")
    assert (answer.status_code, answer.json()["code"]) == (400, "42703")
    assert len(await client.rows("SELECT FROM todos")) == 2
    assert (await client.send({"queries": []})).json() == {"results": []}


@pytest.mark.exhaustive
async def test_a_batch_that_commits_says_what_stays(client: Client, runner: asyncio.Runner) -> None:
    insert = "INSERT INTO todos (task) VALUES ('new')"
    for end, stays in (("ROLLBACK", False), ("SAVEPOINT a", False), ("COMMIT", True)):
        answer = await client.batch(insert, end, insert)
        assert (answer.status_code, answer.json()["code"]) == (400, "2D000"), end
        assert ("stay" in answer.json()["message"]) is stays
        assert len(await client.rows("SELECT FROM todos")) == 1 + stays


def _only(result: Any) -> Any:
    """The value of a result with one row and one column."""
    ((value,),) = (row.values() for row in result["rows"])
    return value


@pytest.mark.exhaustive
async def test_a_batch_has_modes(client: Client, runner: asyncio.Runner) -> None:
    shown = [
        f"SELECT current_setting('transaction_{name}')" for name in ("isolation", "read_only", "deferrable")
    ]
    for header, level in (
        ("ReadUncommitted", "read uncommitted"),
        ("ReadCommitted", "read committed"),
        ("RepeatableRead", "repeatable read"),
        ("Serializable", "serializable"),
    ):
        answer = await client.batch(*shown, Neon_Batch_Isolation_Level=header)
        values = [_only(one) for one in answer.json()["results"]]
        assert values == [level, "off", "off"]
        assert answer.headers["Neon-Batch-Isolation-Level"] == header
        assert "Neon-Batch-Read-Only" not in answer.headers
    modes = {"Neon_Batch_Read_Only": "true", "Neon_Batch_Deferrable": "true"}
    answer = await client.batch(*shown, Neon_Batch_Isolation_Level="Serializable", **modes)
    values = [_only(one) for one in answer.json()["results"]]
    assert values == ["serializable", "on", "on"]
    assert answer.headers["Neon-Batch-Read-Only"] == answer.headers["Neon-Batch-Deferrable"] == "true"
    # Those of the last batch have ended with it.
    answer = await client.batch(*shown, Neon_Batch_Read_Only="True")
    assert [_only(one) for one in answer.json()["results"]] == [
        "read committed",
        "off",
        "off",
    ]
    answer = await client.batch(*shown, Neon_Batch_Isolation_Level="serializable")
    assert (answer.status_code, "invalid isolation level" in answer.text) == (400, True)


@pytest.mark.exhaustive
async def test_errors_have_the_fields_of_postgres(client: Client, runner: asyncio.Runner) -> None:
    denied = await client.error("INSERT INTO todos (user_id, task) VALUES ('bob', 'x')")
    assert (denied["code"], denied["routine"], denied["severity"]) == (
        "42501",
        "ExecWithCheckOptions",
        "ERROR",
    )
    assert set(denied) == {
        *("message", "code", "severity", "detail", "hint", "position", "internalPosition", "internalQuery"),
        *("where", "schema", "table", "column", "dataType", "constraint", "file", "line", "routine"),
    }
    unknown = await client.error("SELECT nope")
    assert (unknown["code"], unknown["position"]) == ("42703", "8")
    assert (await client.error("SELECT 1; SELECT 2"))["code"] == "42601"
    await client.send({"query": "INSERT INTO todos (id, task) OVERRIDING SYSTEM VALUE VALUES (77, 'x')"})
    twice = await client.error("INSERT INTO todos (id, task) OVERRIDING SYSTEM VALUE VALUES (77, 'x')")
    assert (twice["code"], twice["table"], twice["constraint"]) == ("23505", "todos", "todos_pkey")


@pytest.mark.exhaustive
async def test_a_deferred_constraint_fails_at_the_end(
    client: Client, signed: Signed, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("ALTER TABLE todos ADD UNIQUE (task) DEFERRABLE INITIALLY DEFERRED"))
    answer = await client.batch("INSERT INTO todos (task) VALUES ('alice''s')", "SELECT 1")
    assert (answer.status_code, answer.json()["code"]) == (400, "23505")
    assert await client.rows("SELECT task FROM todos") == [["alice's"]]


# Tokens and roles


async def test_without_a_good_token_nothing_runs(
    client: Client, issuer: Issuer, signed: Signed, runner: asyncio.Runner
) -> None:
    insert = {"query": "INSERT INTO todos (task) VALUES ('x')"}
    tokens = {
        "": "has no token",
        "Basic YTpi": "has no token",
        "Bearer ": "isn't a JWT",
        f"Bearer {issuer.token('alice', key=Key.generate())}": "no key of the provider",
        f"Bearer {issuer.token('alice', expires_in=-3600)}": "has expired",
    }
    for header, words in tokens.items():
        answer = await client.send(insert, headers={"Authorization": header})
        assert (answer.status_code, list(answer.json())) == (400, ["message"])
        assert words in answer.json()["message"]
    assert (await client.send(insert, subject=None)).status_code == 400
    # Not even a request that can't be read says more.
    assert "has no token" in (await client.send(b"\xff", subject=None)).text
    with signed.admin.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM todos")) == 2
    issuer.status = 503
    answer = await client.send(insert)
    assert answer.status_code == 200  # its keys are known


@pytest.mark.exhaustive
async def test_an_unreachable_provider_is_a_503(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    issuer.status = 503
    answer = await Client(make_endpoint(), issuer).send({"query": "SELECT 1"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "keys" in answer.json()["message"]


async def test_the_role_of_the_url_is_that_of_the_token(client: Client, runner: asyncio.Runner) -> None:
    for url in (
        "postgres://authenticated:secret@api.example.com:99/any?options=-crole%3Dpostgres",
        "postgresql://%61uthenticated@host/db",
    ):
        answer = await client.send({"query": "SELECT current_user"}, headers={"Neon-Connection-String": url})
        assert answer.json()["rows"] == [{"current_user": "authenticated"}]
    for url, words in {
        "postgresql://anonymous@host/db": "isn't the role of its token",
        "postgresql://postgres@host/db": "isn't the role of its token",
        "postgresql://host/db": "isn't postgresql://role@host/database",
        "postgresql://authenticated@host": "isn't postgresql://role@host/database",
        "mysql://authenticated@host/db": "isn't postgresql://role@host/database",
        "postgresql://authenticated@[host/db": "isn't postgresql://role@host/database",
        "": "isn't postgresql://role@host/database",
    }.items():
        answer = await client.send({"query": "SELECT 1"}, headers={"Neon-Connection-String": url})
        assert (answer.status_code, words in answer.text) == (400, True), url
    answer = await client.send({"query": "SELECT 1"}, headers={"Neon-Connection-String": None})
    assert "has no connection string" in answer.text


# Requests


# Options


@pytest.mark.exhaustive
async def test_reading_only_and_with_a_limit_for_rows(
    make_endpoint: MakeEndpoint, issuer: Issuer, server: Server, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(read_only=True, limits=Limits(max_rows=3)), issuer)
    assert await client.rows("SELECT task FROM todos") == [["alice's"]]
    for sql in (
        "INSERT INTO todos (task) VALUES ('x')",
        "DO $$ BEGIN PERFORM set_config('role', 'none', true); EXECUTE 'ALTER ROLE app RESET ALL'; END $$",
    ):
        assert (await client.error(sql))["code"] == "25006", sql
    if server.version >= 16:  # PostgreSQL 15 lets it, as the documents say.
        assert (await client.error("SELECT lo_from_bytea(0, 'x')"))["code"] == "25006"
    answer = await client.batch("SET TRANSACTION READ WRITE", "DELETE FROM todos")
    assert answer.json()["code"] in ("25001", "25006")
    answer = await client.batch(
        "SELECT set_config('transaction_read_only', 'off', true)", "DELETE FROM todos"
    )
    assert answer.json()["code"] in ("25001", "25006", "22023")
    assert len(await client.rows("SELECT generate_series(1, 3)")) == 3
    assert (await client.error("SELECT generate_series(1, 4)"))["code"] == "54000"


@pytest.mark.exhaustive
async def test_a_statement_does_not_wait_long_for_a_lock(
    make_endpoint: MakeEndpoint, issuer: Issuer, signed: Signed, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(lock_timeout=0.1)), issuer)
    with signed.admin.begin() as connection:
        connection.execute(text("LOCK TABLE todos"))
        assert (await client.error("SELECT * FROM todos"))["code"] == "55P03"


@table("limit", ["timeout", "lock_timeout"])
@pytest.mark.exhaustive
async def test_a_limit_below_a_millisecond_is_a_limit(
    make_endpoint: MakeEndpoint, limit: str, runner: asyncio.Runner
) -> None:
    for seconds, setting in ((0.0004, "1ms"), (0.0015, "2ms"), (math.inf, f"{2**31 - 1}ms")):
        limits: Any = {limit: seconds}
        options = make_endpoint(limits=Limits(**limits))._factory.kw["sync_session_class"]._options
        assert options.settings["statement_timeout" if limit == "timeout" else limit] == setting


@pytest.mark.exhaustive
async def test_without_a_signature_it_must_be_said(
    make_endpoint: MakeEndpoint, issuer: Issuer, signed: Signed, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.execute(text("DROP SCHEMA auth CASCADE; DROP SCHEMA sqla_rls_secret CASCADE"))
    with pytest.raises(SignedBindingUnavailable, match="Run a migration"):
        await Client(make_endpoint(signing_key=None), issuer).send({"query": "SELECT 1"})


@pytest.mark.exhaustive
def test_arguments_that_can_not_be(issuer: Issuer) -> None:
    good = create_async_engine("postgresql+psycopg://app@127.0.0.1/app")
    for wrong in (
        create_async_engine("postgresql+asyncpg://app@127.0.0.1/app"),
        create_engine("postgresql+psycopg://app@127.0.0.1/app"),
    ):
        engine: Any = wrong
        with pytest.raises(DeclarationError, match="only psycopg exposes"):
            sql_endpoint(engine, issuer.provider)
    with pytest.raises(DeclarationError, match="cors_origins"):
        sql_endpoint(good, issuer.provider, cors_origins="https://app.example.com")
    with pytest.raises(DeclarationError, match="timeout=0"):
        Limits(timeout=0)
    sql_endpoint(good, issuer.provider)
    with pytest.raises(DeclarationError, match="another session factory"):
        enforce_row_security(async_sessionmaker(good))


@pytest.mark.exhaustive
async def test_an_engine_in_autocommit_is_refused(
    signed: Signed, sql_engine: AsyncEngine, issuer: Issuer, runner: asyncio.Runner
) -> None:
    url = sql_engine.url
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    with pytest.raises(DeclarationError, match="AUTOCOMMIT"):
        await Client(sql_endpoint(engine, issuer.provider, signing_key=signed.key), issuer).send(
            {"query": "SELECT 1"}
        )
    await engine.dispose()


# Frameworks and servers


@pytest.mark.exhaustive
async def test_it_is_part_of_an_app(
    make_endpoint: MakeEndpoint, issuer: Issuer, runner: asyncio.Runner
) -> None:
    endpoint = make_endpoint()
    app = FastAPI()
    app.router.routes.append(Route("/sql", endpoint))
    app.mount("/neon", endpoint)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as http:
        for path in ("/sql", "/neon/sql"):
            answer = await http.post(
                path,
                json={"query": "SELECT auth.user_id()"},
                headers={
                    "Authorization": f"Bearer {issuer.token('alice')}",
                    "Neon-Connection-String": CONNECTION_STRING,
                },
            )
            assert answer.json()["rows"] == [{"user_id": "alice"}]


@pytest.mark.exhaustive
async def test_it_runs_alone(make_endpoint: MakeEndpoint, runner: asyncio.Runner) -> None:
    sent: list[str] = []
    received = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, Any]:
        return {"type": next(received)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await make_endpoint()({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await make_endpoint()({"type": "websocket"}, receive, send)
    assert sent[2:] == ["websocket.close"]


async def _gone(endpoint: SqlEndpoint, issuer: Issuer, body: bytes, after: float) -> list[Any]:
    """The messages to a client that sends *body*, and goes away *after* seconds."""
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": body, "more_body": after < 0}])

    async def receive() -> dict[str, Any]:
        if (message := next(parts, None)) is not None:
            return message
        await asyncio.sleep(max(after, 0))
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [
        (b"authorization", f"Bearer {issuer.token('alice')}".encode()),
        (b"neon-connection-string", CONNECTION_STRING.encode()),
    ]
    await endpoint({"type": "http", "method": "POST", "path": "/sql", "headers": headers}, receive, send)
    return sent


@pytest.mark.exhaustive
async def test_a_client_that_goes_away_ends_its_statement(
    make_endpoint: MakeEndpoint, issuer: Issuer, signed: Signed, runner: asyncio.Runner
) -> None:
    endpoint = make_endpoint()
    assert await _gone(endpoint, issuer, b'{"query": "SELECT pg_sleep(60)"}', 0.3) == []
    with signed.admin.connect() as connection:
        assert not connection.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        )
    assert await _gone(endpoint, issuer, b'{"query": "SELECT', -1) == []
    assert await Client(endpoint, issuer).rows("SELECT auth.user_id()", subject="bob") == [["bob"]]


@pytest.mark.exhaustive
async def test_a_request_without_a_connection_is_told_to_retry(
    make_endpoint: MakeEndpoint, issuer: Issuer, sql_engine: AsyncEngine, runner: asyncio.Runner
) -> None:
    client = Client(make_endpoint(limits=Limits(timeout=0.2)), issuer)
    async with sql_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        answer = await client.send({"query": "SELECT 1"})
        assert (answer.status_code, "Retry" in answer.json()["message"]) == (503, True)


@pytest.mark.exhaustive
async def test_a_lost_connection_is_replaced(client: Client, signed: Signed, runner: asyncio.Runner) -> None:
    ((backend,),) = await client.rows("SELECT pg_backend_pid()")
    running = asyncio.ensure_future(client.send({"query": "SELECT pg_sleep(5)"}))
    await asyncio.sleep(0.3)
    with signed.admin.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:backend, 5000)"), {"backend": backend})
    answer = await running
    assert (answer.status_code, answer.json()["code"]) == (400, "57P01")
    assert await client.rows("SELECT auth.user_id()") == [["alice"]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("queries", [["SELECT 1"], ["SELECT 1", "SELECT 2"]])
async def test_a_connection_that_the_server_closes_after_its_answers_is_an_error_of_postgres(
    signed: Signed, sql_url: URL, issuer: Issuer, queries: list[str], runner: asyncio.Runner
) -> None:
    with LateSync(str(sql_url.host), sql_url.port or 5432) as server:
        engine = create_async_engine(sql_url.set(host="127.0.0.1", port=server.port), pool_size=1)
        client = Client(sql_endpoint(engine, issuer.provider, signing_key=signed.key), issuer)
        ((backend,),) = await client.rows("SELECT pg_backend_pid()")
        server.meanwhile = partial(kill_before_sync, signed.admin, backend, "pg_cursor")
        answer = await client.batch(*queries)
        assert (answer.status_code, answer.json()["code"]) == (400, "57P01")
        assert await client.rows("SELECT auth.user_id()") == [["alice"]]
        await engine.dispose()
