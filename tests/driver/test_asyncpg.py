"""What asyncpg does differently, by each way that its binding travels."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from asyncpg.transaction import ISOLATION_LEVELS
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused, UnsupportedTransaction
from tests.support.asyncpg_sessions import raw
from tests.support.clocks import Clocks
from tests.support.psycopg_statements import WHO
from tests.support.sessions import ALICE, ANYTHING, CALLER, TASKS

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]


@pytest.fixture(params=["pipeline", "with_begin"])
def asyncpg_maker(
    request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner
) -> Iterator[async_sessionmaker[AsyncSession]]:
    asyncpg_url = url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"})
    engine = create_async_engine(asyncpg_url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=request.param))
    yield maker
    runner.run(engine.dispose())


@pytest.mark.exhaustive
async def test_asyncpg_refuses_what_would_run_before_begin(
    runner: asyncio.Runner, asyncpg_maker: async_sessionmaker[AsyncSession], alice: Caller
) -> None:
    async with asyncpg_maker() as session:
        identify(session, alice)
        await session.execute(ANYTHING)
        await session.commit()
        connection = await raw(session)
        for method, arguments in (
            ("fetch", [WHO]),
            ("fetchrow", [WHO]),
            ("fetchval", [WHO]),
            ("fetchmany", [WHO, [[]]]),
            ("execute", ["SELECT 1"]),
            ("executemany", ["SELECT 1", [[]]]),
            ("prepare", [WHO]),
            ("cursor", [WHO]),
            ("copy_from_query", [WHO]),
            ("copy_from_table", ["todos"]),
            ("copy_to_table", ["todos"]),
            ("copy_records_to_table", ["todos"]),
        ):
            with pytest.raises(UnsupportedTransaction, match="Start a transaction"):
                await getattr(connection, method)(*arguments)
        async with connection.transaction():
            assert tuple(await connection.fetchrow(WHO)) == ALICE
        assert (await session.execute(CALLER)).one() == ALICE


@pytest.mark.parametrize(
    "begin", [f"BEGIN{end}" for end in ("", "; ", "; SELECT 1;", " ISOLATION LEVEL SERIALIZABLE; SELECT 1;")]
)
async def test_asyncpg_runs_nothing_before_the_binding(
    runner: asyncio.Runner,
    asyncpg_maker: async_sessionmaker[AsyncSession],
    todos: None,
    alice: Caller,
    bob: Caller,
    begin: str,
) -> None:
    async with asyncpg_maker() as session:
        identify(session, alice)
        for sql in ("SET ROLE authenticated", 'SET request.jwt.claims = \'{"sub":"alice"}\''):
            await session.execute(text(sql))
        await session.commit()
    async with asyncpg_maker() as session:
        identify(session, bob)
        connection = await raw(session)
        with pytest.raises(UnsupportedTransaction, match="Start a transaction"):
            await connection.execute(begin.replace("SELECT 1", "INSERT INTO todos (task) VALUES ('bob''s')"))
        assert (await session.scalars(TASKS)).all() == ["bob's"]
    async with asyncpg_maker() as session:
        identify(session, alice)
        assert (await session.scalars(TASKS)).all() == ["alice's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("isolation", [None, *sorted(ISOLATION_LEVELS)])
async def test_asyncpg_binds_a_caller_in_each_transaction_of_its_own(
    runner: asyncio.Runner,
    asyncpg_maker: async_sessionmaker[AsyncSession],
    alice: Caller,
    isolation: str | None,
) -> None:
    for readonly in (False, True):
        for deferrable in (False, True):
            async with asyncpg_maker() as session:
                identify(session, alice)
                await session.execute(ANYTHING)
                await session.commit()
                own = await raw(session)
                async with own.transaction(isolation=isolation, readonly=readonly, deferrable=deferrable):
                    assert tuple(await own.fetchrow(WHO)) == ALICE


async def test_asyncpg_discards_a_connection_whose_binding_failed_and_no_other(
    runner: asyncio.Runner, asyncpg_maker: async_sessionmaker[AsyncSession], todos: None, alice: Caller
) -> None:
    async with asyncpg_maker() as session:
        identify(session, Caller(role="nobody_has_it"))
        for _ in range(2):
            with pytest.raises(BindingError, match="no such role"):
                await session.execute(ANYTHING)
            with pytest.raises(SQLAlchemyError):
                await session.execute(ANYTHING)
            await session.rollback()
    async with asyncpg_maker() as session:
        identify(session, alice)
        assert (await session.scalars(TASKS)).all() == ["alice's"]


@pytest.mark.exhaustive
async def test_asyncpg_refuses_what_follows_a_transaction_that_sql_has_ended(
    runner: asyncio.Runner, asyncpg_maker: async_sessionmaker[AsyncSession], alice: Caller
) -> None:
    async with asyncpg_maker() as session:
        identify(session, alice)
        await session.execute(text("COMMIT"))
        with pytest.raises(TransactionRefused, match="ended the transaction"):
            await session.execute(CALLER)
        await session.rollback()
        assert (await session.execute(CALLER)).one() == ALICE


@pytest.mark.exhaustive
async def test_reset_of_asyncpg_ends_the_transaction(
    runner: asyncio.Runner, asyncpg_maker: async_sessionmaker[AsyncSession], alice: Caller
) -> None:
    # asyncpg reports the open transaction to it.
    runner.get_loop().set_exception_handler(lambda loop, context: None)
    async with asyncpg_maker() as session:
        identify(session, alice)
        await session.execute(text("CREATE TEMPORARY TABLE mine ()"))
        own = await raw(session)
        # It runs a text without a transaction after its ROLLBACK.
        with pytest.raises(TransactionRefused, match="ended the transaction"):
            await own.reset()
        with pytest.raises(TransactionRefused, match="ended the transaction"):
            await session.execute(CALLER)
        await session.rollback()
        assert await session.scalar(text("SELECT to_regclass('mine')")) is None
        assert (await session.execute(CALLER)).one() == ALICE


async def test_asyncpg_refuses_who_expires_before_the_first_statement(
    runner: asyncio.Runner, asyncpg_maker: async_sessionmaker[AsyncSession], alice: Caller, clocks: Clocks
) -> None:
    async with asyncpg_maker() as session:
        expires_at = time.time() + 60
        identify(session, Caller(role="authenticated", subject="alice", expires_at=expires_at))
        await session.execute(ANYTHING)
        await session.commit()
        await session.connection()
        clocks.ahead = 60
        with pytest.raises(ExpiredToken):
            await session.execute(CALLER)
    async with asyncpg_maker() as session:
        identify(session, alice)
        assert (await session.execute(CALLER)).one() == ALICE


@pytest.mark.exhaustive
@pytest.mark.parametrize("encoding", ["EUC_TW", "MULE_INTERNAL"])
async def test_asyncpg_gives_no_encoding_that_python_lacks_to_the_next_caller(
    runner: asyncio.Runner,
    asyncpg_maker: async_sessionmaker[AsyncSession],
    todos: None,
    alice: Caller,
    bob: Caller,
    encoding: str,
) -> None:
    for end in (AsyncSession.commit, AsyncSession.rollback):
        async with asyncpg_maker() as session:
            identify(session, alice)
            with suppress(Exception):
                # asyncpg can't read the answer.
                await session.execute(text(f"SET client_encoding = '{encoding}'"))
            with suppress(Exception):
                await end(session)
        async with asyncpg_maker() as session:
            identify(session, bob)
            assert (await session.scalars(TASKS)).all() == ["bob's"]
