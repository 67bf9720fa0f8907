"""What runs on a pool's connections outside sessions runs as the login role, whoever was there before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Reset, Transport
from sqla_rls.exc import UnsupportedTransaction
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from tests.support.sessions import ANYTHING, CALLER, NOBODY
from tests.support.suite import first_and_rest, table

#: It leaves a setting.
WHO = """SELECT current_user::text, NULLIF(current_setting('request.jwt.claims', true), '')
           FROM set_config('lock_timeout', '4321', false)"""
LOCK_TIMEOUT = text("SHOW lock_timeout")
LEAVE = ("SET ROLE authenticated", """SET request.jwt.claims = '{"sub": "alice"}'""")


def leave(maker: sessionmaker[Session], alice: Caller, *more: str) -> None:
    """Let Alice leave her role and claims on the pool's connection, and what *more* says."""
    with maker() as session:
        identify(session, alice)
        for statement in (*more, *LEAVE):
            session.execute(text(statement))
        session.commit()


def enforced(engine: Engine, transport: Transport, reset: Reset = "settings") -> sessionmaker[Session]:
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport, reset=reset))
    return maker


@pytest.mark.parametrize("reset", ["settings", pytest.param("all", marks=pytest.mark.exhaustive)])
@table("level", ["READ COMMITTED", "SERIALIZABLE", "AUTOCOMMIT"], kind=lambda level: level == "AUTOCOMMIT")
def test_a_connection_outside_a_session_is_not_the_last_callers(
    pool: Engine, transport: Transport, alice: Caller, reset: Reset, level: str
) -> None:
    if reset == "all" and transport == "statement":
        pytest.skip("the options contradict each other")
    maker = enforced(pool, transport, reset)
    for end in (Connection.commit, Connection.rollback):
        leave(maker, alice)
        for _ in range(2):
            with pool.connect().execution_options(isolation_level=level) as connection:
                for _ in range(2):
                    assert connection.execute(CALLER).one() == NOBODY
                    end(connection)


def by_cursor(connection: Any) -> object:
    return connection.cursor().execute(WHO).fetchone()


def by_cursor_with_parameters(connection: Any) -> object:
    return connection.execute(WHO + " WHERE %s", [True]).fetchone()


def by_server_cursor(connection: Any) -> object:
    with connection.cursor("named") as cursor:
        return cursor.execute(WHO).fetchone()


def by_stream(connection: Any) -> object:
    return next(iter(list(connection.cursor().stream(WHO))))


def by_copy(connection: Any) -> object:
    with connection.cursor().copy(f"COPY ({WHO}) TO STDOUT") as copy:
        (row,) = copy.rows()
        return row


def by_executemany(connection: Any) -> object:
    with connection.cursor() as cursor:
        cursor.executemany(WHO + " WHERE %s", [[True]], returning=True)
        return cursor.fetchone()


def by_a_transaction(connection: Any) -> object:
    with connection.transaction():
        return connection.execute(WHO).fetchone()


def by_a_pipeline(connection: Any) -> object:
    with connection.pipeline():
        return connection.execute(WHO).fetchone()


def by_a_cursor_of_another_class(connection: Any) -> object:
    return psycopg.ClientCursor(connection).execute(WHO).fetchone()


def by_a_cursor_of_another_class_in_a_pipeline(connection: Any) -> object:
    with connection.pipeline():
        return psycopg.Cursor(connection).execute(WHO).fetchone()


def by_two_phases(connection: Any) -> object:
    connection.tpc_begin("a name")
    found = connection.execute(WHO).fetchone()
    connection.tpc_rollback()
    return found


FIRST = [
    by_cursor,
    by_cursor_with_parameters,
    by_server_cursor,
    by_stream,
    by_copy,
    by_executemany,
    by_a_transaction,
    by_a_pipeline,
    by_a_cursor_of_another_class,
    by_a_cursor_of_another_class_in_a_pipeline,
    by_two_phases,
]


@first_and_rest("ways", FIRST)
@pytest.mark.parametrize("autocommit", [False, True])
def test_whatever_comes_first_runs_as_the_login_role(
    pool: Engine,
    transport: Transport,
    alice: Caller,
    bob: Caller,
    ways: list[Callable[[Any], object]],
    autocommit: bool,
    subtests: pytest.Subtests,
) -> None:
    maker = enforced(pool, transport)
    for first in ways:
        if autocommit and first in (by_server_cursor, by_two_phases):
            continue
        with subtests.test(first.__name__):
            leave(maker, alice, "SET client_encoding = 'LATIN1'")
            with pool.connect() as connection:
                raw: Any = connection.connection.driver_connection
                if autocommit:
                    raw.autocommit = True
                assert first(raw) == NOBODY
                raw.commit()
                raw.autocommit = False
            with maker() as session:
                identify(session, bob)
                assert transport == "statement" or session.scalar(LOCK_TIMEOUT) == "0"


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE", "AUTOCOMMIT"])
async def test_a_connection_outside_a_session_is_not_the_last_callers_under_asyncio(
    runner: asyncio.Runner, async_pool: AsyncEngine, async_transport: Transport, alice: Caller, level: str
) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    for end in (AsyncConnection.commit, AsyncConnection.rollback):
        await leave_under_asyncio(maker, alice)
        await assert_nobodys(async_pool, level, end)


async def leave_under_asyncio(maker: async_sessionmaker[AsyncSession], caller: Caller) -> None:
    async with maker() as session:
        identify(session, caller)
        for statement in LEAVE:
            await session.execute(text(statement))
        await session.commit()


async def assert_nobodys(
    engine: AsyncEngine, level: str, end: Callable[[AsyncConnection], Awaitable[None]]
) -> None:
    for _ in range(2):
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level=level)
            for _ in range(2):
                assert (await connection.execute(CALLER)).one() == NOBODY
                await end(connection)


@pytest.mark.exhaustive
async def test_a_begin_listener_does_not_turn_the_reset_off_under_asyncio(
    runner: asyncio.Runner, async_pool: AsyncEngine, alice: Caller, bob: Caller
) -> None:
    seen = []

    def note(connection: Connection) -> None:
        seen.append(connection.execute(CALLER).one())

    event.listen(async_pool.sync_engine, "begin", note)
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker)
    async with maker() as session:
        identify(session, alice)
        for statement in ("SET statement_timeout = 4321", *LEAVE):
            await session.execute(text(statement))
        await session.commit()
    async with maker() as session:
        identify(session, bob)
        assert (await session.execute(CALLER)).one() == ("authenticated", "bob")
        assert await session.scalar(text("SHOW statement_timeout")) == "0"
    assert set(seen) == {NOBODY}


async def test_the_methods_of_asyncpg_run_as_the_login_role_outside_sessions(
    runner: asyncio.Runner, url: URL, alice: Caller, bob: Caller
) -> None:
    address = url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"})
    engine = create_async_engine(address, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker)

    async def by_a_prepared_statement(connection: Any) -> Any:
        return await (await connection.prepare(WHO)).fetchrow()

    async def by_fetchrow(connection: Any) -> Any:
        return await connection.fetchrow(WHO)

    async def after_execute(connection: Any) -> Any:
        await connection.execute("SELECT 1")
        return await by_fetchrow(connection)

    async def in_a_transaction(connection: Any) -> Any:
        async with connection.transaction():
            return await by_fetchrow(connection)

    async def by_copy(connection: Any) -> Any:
        found = bytearray()

        async def take(data: bytes) -> None:
            found.extend(data)

        await connection.copy_from_query(WHO, output=take)
        return found.decode().strip().replace(r"\N", "").split("\t")

    for method in (by_a_prepared_statement, by_fetchrow, after_execute, in_a_transaction, by_copy):
        async with maker() as session:
            identify(session, alice)
            for statement in LEAVE:
                await session.execute(text(statement))
            await session.commit()
        async with engine.connect() as plain:
            raw: Any = (await plain.get_raw_connection()).driver_connection
            assert tuple(value or None for value in await method(raw)) == NOBODY
        async with maker() as session:
            identify(session, bob)
            assert await session.scalar(LOCK_TIMEOUT) == "0"
    await engine.dispose()


@pytest.mark.exhaustive
@pytest.mark.parametrize("event_name", ["begin", "checkout"])
@pytest.mark.parametrize("reset", ["settings", pytest.param("all", marks=pytest.mark.exhaustive)])
def test_a_listener_that_runs_ahead_of_the_binding_runs_as_the_login_role(
    pool: Engine, transport: Transport, alice: Caller, bob: Caller, reset: Reset, event_name: str
) -> None:
    if reset == "all" and transport == "statement":
        pytest.skip("the options contradict each other")
    maker = enforced(pool, transport, reset)
    leave(maker, alice)
    seen = []

    def note(connection: Any, *more: object) -> None:
        seen.append(connection.exec_driver_sql(WHO).one() if event_name == "begin" else by_cursor(connection))

    event.listen(pool, event_name, note)
    with maker() as session, suppress(UnsupportedTransaction):
        # With reset="all", such a transaction can't be bound.
        identify(session, bob)
        assert session.execute(CALLER).one() == ("authenticated", "bob")
    assert seen == [NOBODY]


def test_a_begin_listener_does_not_turn_the_reset_off(pool: Engine, alice: Caller, bob: Caller) -> None:
    event.listen(pool, "begin", lambda connection: connection.execute(ANYTHING))
    maker = enforced(pool, "auto")
    leave(maker, alice, "SET statement_timeout = 4321", "SET default_transaction_isolation = serializable")
    with maker() as session:
        identify(session, bob)
        assert session.execute(CALLER).one() == ("authenticated", "bob")
        assert session.scalar(text("SHOW statement_timeout")) == "0"
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"


def test_an_application_keeps_its_own_settings_between_its_transactions(
    pool: Engine, transport: Transport, alice: Caller
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(
        maker,
        settings={"statement_timeout": "10s", "search_path": "app, public"},
        options=BindingOptions(transport=transport),
    )
    leave(maker, alice, "SET statement_timeout = 4321", "SET search_path = alice")
    with pool.connect() as connection:
        assert connection.scalar(text("SHOW search_path")) == "app, public, pg_temp"
        expected = "4321ms" if transport == "statement" else "10s"
        assert connection.scalar(text("SHOW statement_timeout")) == expected
        connection.execute(text("SET work_mem = '5MB'"))
        connection.commit()
        assert connection.scalar(text("SHOW work_mem")) == "5MB"
        connection.rollback()
        assert connection.scalar(text("SHOW work_mem")) == "5MB"


def test_without_a_reset_all_stays(pool: Engine, transport: Transport, alice: Caller) -> None:
    leave(enforced(pool, transport, "none"), alice)
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == ("authenticated", "alice")


@pytest.mark.exhaustive
@pytest.mark.parametrize("ends", [Session.commit, Session.rollback])
def test_what_a_session_leaves_in_a_transaction_that_it_joined_is_reset(
    pool: Engine, transport: Transport, alice: Caller, ends: Callable[[Session], None]
) -> None:
    maker = enforced(pool, transport)
    with pool.connect() as connection:
        connection.execute(ANYTHING)
        with maker(bind=connection) as session:
            identify(session, alice)
            for statement in LEAVE:
                session.execute(text(statement))
            ends(session)
        connection.commit()
        for _ in range(2):
            assert connection.execute(CALLER).one() == NOBODY
            connection.rollback()


@pytest.mark.exhaustive
def test_through_pgbouncer_the_next_transaction_is_nobodys(
    pgbouncer: None, url: URL, transport: Transport, alice: Caller
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        arguments = {**CONNECT_ARGS["psycopg"], "application_name": "mine"}
        engine = create_engine(bouncer.url, connect_args=arguments)
        maker = sessionmaker(engine)
        enforce_row_security(
            maker, settings={"lock_timeout": "9s"}, options=BindingOptions(transport=transport)
        )
        for _ in range(2):
            leave(maker, alice)
            with engine.connect() as connection:
                for _ in range(2):
                    assert connection.execute(CALLER).one() == NOBODY
                    if transport != "statement":
                        assert connection.scalar(text("SHOW application_name")) == "mine"
                        assert connection.scalar(text("SHOW lock_timeout")) == "9s"
                    connection.commit()
        engine.dispose()


@pytest.mark.exhaustive
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_through_pgbouncer_the_next_transaction_is_nobodys_on_asyncpg(
    runner: asyncio.Runner, pgbouncer: None, url: URL, alice: Caller, level: str
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        address = bouncer.url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"})
        engine = create_async_engine(address, connect_args=CONNECT_ARGS["asyncpg"], pool_size=1)
        maker = async_sessionmaker(engine)
        enforce_row_security(maker)
        await leave_under_asyncio(maker, alice)
        await assert_nobodys(engine, level, AsyncConnection.rollback)
        await engine.dispose()


@table("level", ["READ COMMITTED", "SERIALIZABLE", "AUTOCOMMIT"])
def test_through_pgbouncer_a_connection_that_never_had_a_caller_is_nobodys(
    pgbouncer: None, url: URL, transport: Transport, alice: Caller, level: str
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        # Another client, whose connection to the server is the only one.
        hers = create_engine(bouncer.url, connect_args=CONNECT_ARGS["psycopg"])
        left = enforced(hers, transport)
        arguments = {**CONNECT_ARGS["psycopg"], "application_name": "mine"}
        ours = create_engine(bouncer.url, connect_args=arguments, isolation_level=level)
        maker = sessionmaker(ours)
        enforce_row_security(
            maker, settings={"lock_timeout": "9s"}, options=BindingOptions(transport=transport)
        )
        for _ in range(2):
            leave(left, alice, "SET lock_timeout = '1s'")
            with ours.connect() as connection:
                assert connection.execute(CALLER).one() == NOBODY
                connection.rollback()
                assert connection.execute(CALLER).one() == NOBODY
                if transport != "statement":
                    assert connection.scalar(text("SHOW application_name")) == "mine"
                    assert connection.scalar(text("SHOW lock_timeout")) == "9s"
        hers.dispose()
        ours.dispose()


@pytest.mark.exhaustive
async def test_through_pgbouncer_a_connection_that_never_had_a_caller_is_nobodys_under_asyncio(
    pgbouncer: None,
    runner: asyncio.Runner,
    url: URL,
    driver_and_transport: tuple[str, Transport],
    alice: Caller,
) -> None:
    driver, transport = driver_and_transport
    with PgBouncer(url, pool_size=1) as bouncer:
        hers = create_engine(bouncer.url, connect_args=CONNECT_ARGS["psycopg"])
        left = enforced(hers, "auto")
        address = bouncer.url.set(drivername=f"postgresql+{driver}")
        ours = create_async_engine(address, connect_args=CONNECT_ARGS[driver])
        enforce_row_security(async_sessionmaker(ours), options=BindingOptions(transport=transport))
        for _ in range(2):
            leave(left, alice)
            async with ours.connect() as connection:
                assert (await connection.execute(CALLER)).one() == NOBODY
                await connection.rollback()
                assert (await connection.execute(CALLER)).one() == NOBODY
        hers.dispose()
        await ours.dispose()
