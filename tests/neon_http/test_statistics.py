"""SQL of callers on a server with pg_stat_statements, which shows a role the statements of its callers."""

from __future__ import annotations

import asyncio
import logging

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sqla_rls.neon_http import sql_endpoint
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Server
from tests.ddl.test_harden import harden
from tests.neon_http.conftest import Client

pytestmark = pytest.mark.exhaustive

READ = "SELECT query FROM pg_stat_statements WHERE query LIKE '%secret of%'"


@pytest.mark.parametrize("remedy", ["the advice of the log", "harden"])
async def test_nobody_reads_the_statements_of_others_in_the_statistics(
    server: Server, issuer: Issuer, remedy: str, caplog: pytest.LogCaptureFixture, runner: asyncio.Runner
) -> None:
    settings = {"shared_preload_libraries": "pg_stat_statements"}
    with Server.start(server.installation, settings=settings) as own:
        admin = create_engine(own.url(), poolclass=NullPool)
        with admin.begin() as connection:
            for statement in (
                "CREATE EXTENSION pg_stat_statements",
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
                "CREATE ROLE authenticated",
                "CREATE ROLE app LOGIN NOINHERIT",
                "GRANT authenticated TO app",
            ):
                connection.execute(text(statement))
        engine = create_async_engine(own.url(user="app").set(drivername="postgresql+psycopg"))
        client = Client(sql_endpoint(engine, issuer.provider, signing="off"), issuer)
        with caplog.at_level(logging.WARNING, "sqla_rls.neon_http"):
            await client.rows("SELECT 1", subject="bob")
        (record,) = caplog.records
        await client.batch("DO $$ BEGIN PERFORM 'secret of bob'; END $$", subject="bob")
        assert any("secret of bob" in query for (query,) in await client.rows(READ))
        if remedy == "harden":
            harden(admin)
        else:
            with admin.begin() as connection:
                connection.exec_driver_sql(record.getMessage().partition("superuser:\n")[2])
        assert (await client.error(READ))["code"] == "42501"
        with admin.begin() as connection:
            connection.execute(text("CREATE ROLE monitor"))
            connection.execute(text("GRANT pg_read_all_stats TO monitor"))
            connection.execute(text("SET LOCAL ROLE monitor"))
            assert connection.scalars(text(READ)).all() != []
        await engine.dispose()
