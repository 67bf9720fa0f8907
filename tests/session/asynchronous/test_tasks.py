"""Tasks that are cancelled, many at once, and connections that break."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import suppress

import pytest
from sqlalchemy import URL, Engine, func, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, enforce_row_security, identify
from tests.session.asynchronous.conftest import AsyncSessions, caller_of, tasks_of
from tests.support.sessions import ANYTHING, CALLER, NOBODY, Todo, all_todos, kill

pytestmark = [pytest.mark.sqlalchemy, pytest.mark.usefixtures("runner")]


@pytest.mark.exhaustive
async def test_who_loses_the_connection_is_bound_on_the_next(
    admin: Engine, sessions: AsyncSessions, todos: None, alice: Caller, bob: Caller
) -> None:
    async with sessions(alice) as session:
        kill(admin, await session.scalar(select(func.pg_backend_pid())))
        for _ in range(2):
            with pytest.raises(SQLAlchemyError):
                await session.execute(ANYTHING)
        await session.rollback()
        assert await tasks_of(session) == ["alice's"]
        backend = await session.scalar(select(func.pg_backend_pid()))
    kill(admin, backend)
    async with sessions(bob) as session:
        with pytest.raises(DBAPIError) as lost:
            await session.execute(ANYTHING)
        assert lost.value.connection_invalidated
        await session.rollback()
        assert await tasks_of(session) == ["bob's"]


async def read_own(sessions: AsyncSessions, name: str) -> None:
    """A transaction that sees what is the user's own, and nothing else."""
    async with sessions(Caller(role="authenticated", subject=name)) as session:
        assert (await session.scalars(select(Todo.user_id))).all() == [name]
        await session.execute(update(Todo).values(task=f"{name}'s"))
        await session.commit()


@pytest.mark.exhaustive
async def test_a_task_may_be_cancelled_at_any_moment(
    async_pool: AsyncEngine, sessions: AsyncSessions, todos: None, admin: Engine, alice: Caller
) -> None:
    async def work() -> None:
        async with sessions(alice) as session:
            try:
                await session.execute(update(Todo).values(task="alice's"))
                await session.commit()
            except asyncio.CancelledError:
                with suppress(SQLAlchemyError):
                    assert await caller_of(session) == ("authenticated", "alice")
                raise

    cancelled = 0
    for moment in range(50):
        task = asyncio.create_task(work())
        await asyncio.sleep(moment * 0.0002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        cancelled += task.cancelled()
        await read_own(sessions, "bob")
        async with async_pool.connect() as connection:
            assert (await connection.execute(CALLER)).one() == NOBODY
    assert cancelled
    assert all_todos(admin) == [("alice", "alice's"), ("bob", "bob's")]


@pytest.mark.exhaustive
async def test_who_is_cancelled_while_connecting_leaves_no_connection_behind(async_url: URL) -> None:
    engine = create_async_engine(async_url, poolclass=NullPool)
    enforce_row_security(async_sessionmaker(engine))

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(ANYTHING)

    async def cancel_at(moment: int) -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(moment * 0.0002)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    for moment in range(100):
        await cancel_at(moment)
    # One that nobody has closed warns as it goes; pytest fails the test for it.
    gc.collect()


@pytest.mark.exhaustive
async def test_tasks_do_not_see_each_others_rows(async_url: URL, admin: Engine) -> None:
    people = [f"user {number}" for number in range(5)]
    with Session(admin) as owner:
        owner.add_all([Todo(task="x", user_id=name) for name in people])
        owner.commit()
    engine = create_async_engine(async_url, pool_size=3, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker)

    def open_session(caller: Caller) -> AsyncSession:
        session = maker()
        identify(session, caller)
        return session

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(10):
            await read_own(open_session, chance.choice(people))

    chance = random.Random(0)
    workers = [asyncio.create_task(work(seed)) for seed in range(50)]
    for victim in workers[::3]:
        await asyncio.sleep(chance.random() * 0.01)
        victim.cancel()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    for _ in range(3):
        async with engine.connect() as connection:
            assert (await connection.execute(CALLER)).one() == NOBODY
    await engine.dispose()
