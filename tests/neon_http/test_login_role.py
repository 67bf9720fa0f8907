"""The login role of the endpoint, and the rights by which callers could reach each other."""

from __future__ import annotations

import asyncio
import logging

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sqla_rls.exc import UnsafeRole
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.neon_http.conftest import ALL_TODOS, Client, MakeEndpoint, in_do_block
from tests.prose import ROOT
from tests.support.signing import Signed
from tests.support.suite import table


@pytest.mark.exhaustive
async def test_the_warning_has_the_statements_that_separate_callers(
    make_endpoint: MakeEndpoint,
    client: Client,
    issuer: Issuer,
    signed: Signed,
    sql_engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    runner: asyncio.Runner,
) -> None:
    statements = {
        "end": in_do_block("PERFORM pg_terminate_backend(pg_backend_pid());"),
        "read": in_do_block("RAISE EXCEPTION '%', (SELECT string_agg(query, ';') FROM pg_stat_activity);"),
        "share": "SELECT lo_from_bytea(0, 'secret')",
    }
    with caplog.at_level(logging.WARNING, "sqla_rls.neon_http"):
        await client.rows("SELECT 1")
    (record,) = caplog.records
    caplog.clear()
    advice = record.getMessage().partition("superuser:\n")[2]
    guide = (ROOT / "docs" / "guide" / "sql_over_http.md").read_text("utf-8")
    for statement in advice.splitlines():
        function = statement.partition(" FUNCTION ")[2].partition("(")[0]
        assert (function or statement.replace("app", "sql_http")) in guide
    assert "bob" not in (await client.error(statements["share"].replace("SELECT", "SELECT 1 /"))).get(
        "message", ""
    )
    with signed.admin.begin() as connection:
        connection.execute(text(advice))
    try:
        await sql_engine.dispose()
        hardened = Client(make_endpoint(), issuer)
        with caplog.at_level(logging.WARNING, "sqla_rls.neon_http"):
            for name in ("end", "share"):
                assert (await hardened.error(statements[name]))["code"] == "42501"
            message = (await hardened.error(statements["read"]))["message"]
        assert "statement" not in message
        assert "SELECT" not in message
        assert caplog.records == []
    finally:
        with signed.admin.begin() as connection:
            connection.execute(text("ALTER ROLE app RESET track_activities"))


UNSAFE = {
    "another role": (
        "CREATE ROLE sql_boss; GRANT sql_boss TO app",
        "become role sql_boss",
        "DROP ROLE sql_boss",
    ),
    "privileges of its own": (
        "CREATE TABLE own (id int); GRANT SELECT (id) ON own TO app",
        "privileges of its own on",
        "DROP TABLE own",
    ),
    "objects in a schema": (
        "GRANT CREATE ON SCHEMA public TO authenticated",
        "create objects in schema public",
        "REVOKE CREATE ON SCHEMA public FROM authenticated",
    ),
    "schemas": (
        "GRANT CREATE ON DATABASE {database} TO PUBLIC",
        "may create schemas",
        "REVOKE CREATE ON DATABASE {database} FROM PUBLIC",
    ),
    "triggers": (
        "GRANT TRIGGER ON todos TO authenticated",
        "create triggers on table todos",
        "REVOKE TRIGGER ON todos FROM authenticated",
    ),
    "triggers of another role": (
        "GRANT TRIGGER ON todos TO anonymous",
        "role anonymous may create triggers on table todos",
        "REVOKE TRIGGER ON todos FROM anonymous",
    ),
    "truncation": (
        "GRANT TRUNCATE ON todos TO authenticated",
        "may truncate table todos",
        "REVOKE TRUNCATE ON todos FROM authenticated",
    ),
}
#: A restrictive policy that names the role of the caller, where a permissive one doesn't.
DROPPABLE = (
    "CREATE POLICY a ON todos TO PUBLIC USING (true); "
    "CREATE POLICY own ON todos AS RESTRICTIVE TO authenticated USING (user_id = auth.user_id())"
)


@table("reason", UNSAFE)
@pytest.mark.exhaustive
async def test_sql_of_callers_needs_a_login_role_of_its_own(
    client: Client, signed: Signed, reason: str, runner: asyncio.Runner
) -> None:
    grant, words, undo = (part.format(database=signed.admin.url.database) for part in UNSAFE[reason])
    with signed.admin.begin() as connection:
        connection.execute(text(grant))
    try:
        with pytest.raises(UnsafeRole, match=words):
            await client.send({"query": "SELECT 1"})
    finally:
        with signed.admin.begin() as connection:
            connection.execute(text(undo))
    assert await client.rows("SELECT 1") == [[1]]


@pytest.mark.exhaustive
async def test_a_restrictive_policy_that_callers_can_drop_is_refused(
    client: Client, signed: Signed, server: Server, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(DROPPABLE)
    reading = """DO $$ BEGIN EXECUTE 'DROP OWNED BY CURRENT_USER';
    RAISE EXCEPTION '%', (SELECT string_agg(task, ',') FROM todos); END $$"""
    if server.version < 16:
        # It leaves the policies of other owners.
        assert (await client.error(reading))["message"] == "alice's"
        return
    with pytest.raises(UnsafeRole, match="restrictive policy own of table todos") as refused:
        await client.send({"query": reading})
    remedy = str(refused.value).partition("superuser: ")[2].partition(";")[0]
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(remedy)
    assert (await client.error(reading))["message"] == "alice's"


@pytest.mark.exhaustive
async def test_a_restrictive_policy_that_the_hardened_database_keeps_is_no_reason(
    client: Client, signed: Signed, runner: asyncio.Runner
) -> None:
    with signed.admin.begin() as connection:
        connection.exec_driver_sql(DROPPABLE)
        connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; "
            "CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('DROP OWNED') "
            "EXECUTE FUNCTION refuse()"
        )
    assert await client.rows(ALL_TODOS) == [["alice's"]]
    assert (await client.error("DROP OWNED BY CURRENT_USER"))["message"] == "no"
