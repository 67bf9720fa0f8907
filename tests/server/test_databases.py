"""A server creates and drops databases, for several threads at a time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from sqla_rls.testing.postgres import Server
from tests.support.own_servers import ask, connect


@pytest.mark.exhaustive
def test_databases_have_names_that_nobody_else_has(server: Server) -> None:
    names = {server.create_database() for _ in range(3)}
    assert len(names) == 3


def test_a_database_is_a_copy_of_its_template(server: Server) -> None:
    template = server.create_database()
    with connect(server, template) as connection:
        connection.execute("CREATE TABLE todos AS SELECT 'buy milk' AS task")
    copy = server.create_database(template=template)
    assert ask(server.url(copy), "SELECT task FROM todos") == "buy milk"


def test_a_database_may_belong_to_a_role_and_have_an_odd_name(server: Server) -> None:
    with connect(server) as connection:
        connection.execute('CREATE ROLE "o\'wn""er" LOGIN')
    name = server.create_database('na"me', owner="o'wn\"er")
    url = server.url(name, user="o'wn\"er")
    assert ask(url, "SELECT current_user::text || ' ' || current_database()") == 'o\'wn"er na"me'


def test_dropping_a_database_ends_the_connections_to_it(server: Server) -> None:
    name = server.create_database()
    with connect(server, name) as connection:
        server.drop_database(name)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    server.drop_database(name)


@pytest.mark.exhaustive
def test_threads_create_and_drop_at_the_same_time(server: Server) -> None:
    def create_and_drop(_: int) -> str:
        name = server.create_database()
        server.drop_database(name)
        return name

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(create_and_drop, range(24)))) == 24


def test_asyncpg_gets_there_as_well(server: Server) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def version() -> object:
        engine = create_async_engine(server.url(driver="asyncpg"), poolclass=NullPool)
        async with engine.connect() as connection:
            return await connection.scalar(text("SHOW port"))

    assert asyncio.run(version()) == str(server.port)


@pytest.mark.exhaustive
def test_the_later_databases_copy_the_cache_of_the_catalog() -> None:
    """Nobody has connected to them yet."""
    has_cache = (
        "SELECT size IS NOT NULL FROM pg_database AS d, "
        "pg_stat_file(format('base/%s/pg_internal.init', d.oid), true) WHERE datname = '{}'"
    )
    with Server.start() as server:
        first, second = server.create_database(), server.create_database()
        assert [ask(server.url(), has_cache.format(name)) for name in (first, second)] == [False, True]
