"""The pipeline of asyncpg, if a statement is given up, or another task uses the connection."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, TextClause, insert, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sqla_rls import BindingOptions, Caller, identify
from sqla_rls.driver import asyncpg_pipeline as pipeline
from sqla_rls.driver.base import Transport
from sqla_rls.exc import TransactionRefused
from tests.support.asyncpg_sessions import SLEEP, Open, begin_by, raw, scalar, tasks
from tests.support.sessions import ALICE, ANYTHING, BACKEND, CALLER, TASKS, Todo

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

#: The processes that execute SLEEP, and those that wait for a lock.
_SLEEPING, _WAITING = (
    text(f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}")
    for condition in ("state = 'active' AND wait_event = 'PgSleep'", "wait_event_type = 'Lock'")
)


async def until_none(admin: Engine, processes: TextClause) -> None:
    """Wait until there is none of *processes*, or fail."""
    deadline = time.monotonic() + 5
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while found := connection.scalar(processes):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_nobody_gets_the_answer_to_a_first_statement_that_was_given_up(
    runner: asyncio.Runner,
    open_pool: Open,
    todos: None,
    alice: Caller,
    bob: Caller,
    is_prepared: bool,
    way: str,
) -> None:
    maker = open_pool(**({"command_timeout": 0.3} if way == "timed out" else {}))
    if is_prepared:
        await scalar(maker, alice, SLEEP, seconds=0)
    for _ in range(2):
        async with maker() as session:
            identify(session, alice)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3 if way == "cancelled" else None):
                    await session.execute(SLEEP, {"seconds": 30})
            if way == "timed out":
                await session.rollback()
                assert (await session.execute(CALLER)).one() == ALICE
        assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_a_first_statement_that_is_given_up_ends_on_the_server(
    runner: asyncio.Runner, open_pool: Open, admin: Engine, alice: Caller, is_prepared: bool, level: str
) -> None:
    maker = open_pool()
    maker.configure(bind=maker.kw["bind"].execution_options(isolation_level=level))
    if is_prepared:
        await scalar(maker, alice, SLEEP, seconds=0)
    async with maker() as session:
        identify(session, alice)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await session.execute(SLEEP, {"seconds": 10})
    await until_none(admin, _SLEEPING)


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("way", ["cancelled", "timed out"])
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
async def test_a_first_statement_that_is_given_up_waits_for_no_lock(
    runner: asyncio.Runner,
    open_pool: Open,
    admin: Engine,
    todos: None,
    alice: Caller,
    is_prepared: bool,
    way: str,
    level: str,
) -> None:
    maker = open_pool(**({"command_timeout": 0.3} if way == "timed out" else {}))
    maker.configure(bind=maker.kw["bind"].execution_options(isolation_level=level))
    if is_prepared:
        assert await tasks(maker, alice) == ["alice's"]
    else:
        await scalar(maker, alice, ANYTHING)
    with admin.connect() as owner:
        owner.execute(text("LOCK TABLE todos"))
        async with maker() as session:
            identify(session, alice)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3 if way == "cancelled" else None):
                    await session.execute(TASKS)
        await until_none(admin, _WAITING)
    assert await tasks(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
async def test_an_error_in_place_of_the_answer_costs_that_connection(
    runner: asyncio.Runner,
    open_pool: Open,
    todos: None,
    alice: Caller,
    bob: Caller,
    is_prepared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    prepare = asyncpg.Connection.prepare

    async def interrupted(connection: Any, *args: Any, **kw: Any) -> Any:
        await prepare(connection, *args, **kw)
        raise KeyboardInterrupt

    def expect(self: pipeline.Answers, answer: bytes) -> None:
        raise KeyboardInterrupt

    async with maker() as session:
        identify(session, alice)
        with monkeypatch.context() as patch:
            if is_prepared:
                patch.setattr(pipeline.Answers, "expect", expect)
            else:
                patch.setattr(asyncpg.Connection, "prepare", interrupted)
            with pytest.raises(KeyboardInterrupt):
                await session.execute(BACKEND if is_prepared else TASKS)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) != backend


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_begin_of_asyncpg_that_times_out_costs_its_connection(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, is_known: bool
) -> None:
    maker = open_pool(command_timeout=0.2)
    backend = await scalar(maker, bob, BACKEND)
    if is_known:
        async with maker() as session:
            identify(session, alice)
            await begin_by(session, "transaction")
    async with maker() as session:
        identify(session, alice)
        own = await raw(session)
        os.kill(backend, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                async with own.transaction():
                    pass
        finally:
            os.kill(backend, signal.SIGCONT)
        with pytest.raises((SQLAlchemyError, asyncpg.InterfaceError)):
            await session.execute(ANYTHING)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) != backend


@pytest.mark.exhaustive
async def test_two_statements_at_once_read_nothing_of_anybody_else(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]
    async with maker() as session:
        identify(session, bob)
        own = await raw(session)
        await session.rollback()
        # As of an application that keeps a connection that it has returned.
        slow = asyncio.create_task(own.fetch("SELECT 'slow', pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises((SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)):
            await session.scalars(TASKS)
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await slow
    assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
async def test_a_session_joins_no_transaction_that_a_kept_connection_has_begun(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]
    async with maker() as session:
        identify(session, alice)
        own = await raw(session)
    # As of an application that keeps a connection that it has returned.
    begin = asyncio.create_task(own.execute("BEGIN"))
    await asyncio.sleep(0)
    async with maker() as session:
        identify(session, bob)
        await session.connection()
        await begin
        with pytest.raises(DBAPIError, match="manually started transaction"):
            await session.execute(TASKS)
    assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.parametrize("transport", ["pipeline", "with_begin"])
async def test_nothing_begins_after_a_rollback_during_discard_all(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, transport: Transport
) -> None:
    maker = open_pool(options=BindingOptions(transport=transport, reset="all"))
    assert await tasks(maker, Caller(role="authenticated", subject="bob")) == ["bob's"]
    async with maker() as session:
        identify(session, alice)
        connection = await session.connection()
        own = await raw(session)
        added = connection.execute(insert(Todo), [{"task": "another"}, {"task": "one more"}])
        execution = asyncio.create_task(added)
        while own.last_discard_key is not None:
            await asyncio.sleep(0)
        await connection.rollback()
        with pytest.raises((TransactionRefused, DBAPIError)):
            await execution
        assert not own.is_closed()
        assert not own.is_in_transaction()
    assert await tasks(maker, alice) == ["alice's"]
