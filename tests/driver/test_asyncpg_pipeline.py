"""BEGIN and the binding ahead of asyncpg's own messages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, Integer, bindparam, insert, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused
from tests.support.asyncpg_sessions import NO_ROLE, NUMBER, PIPELINE, Open, begin_by, raw, scalar, tasks
from tests.support.clocks import Clocks
from tests.support.sessions import ALICE, ANYTHING, BACKEND, CALLER, TASKS, Todo
from tests.support.suite import table

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]


async def test_a_statement_that_asyncpg_refuses_leaves_the_transaction_bound(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    assert await scalar(maker, alice, NUMBER, number=1) == 1  # from now on it is prepared
    async with maker() as session:
        identify(session, alice)
        for _ in range(2):
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await session.scalar(NUMBER, {"number": 2**40})
            assert (await session.execute(CALLER)).one() == ALICE
            assert await session.scalar(NUMBER, {"number": 2}) == 2
        await session.commit()
        with pytest.raises(DBAPIError, match="out of int32 range"):
            await session.scalar(NUMBER, {"number": 2**40})
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@table("then", ["stream", "executemany"])
async def test_a_new_statement_that_asyncpg_refuses_leaves_a_transaction_that_asyncpg_knows(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, then: str
) -> None:
    maker = open_pool()
    assert await tasks(maker, alice) == ["alice's"]  # the checks of the pool's first transaction are done
    async with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="out of int32 range"):
            await session.scalar(NUMBER, {"number": 2**40})
        if then == "stream":
            assert [row.task async for row in await session.stream(TASKS)] == ["alice's"]
        else:
            added = text("INSERT INTO todos (id, task) VALUES (:number, 'x')")
            added = added.bindparams(bindparam("number", type_=Integer))
            # More than asyncpg sends at once, so that it has sent some when it finds the wrong one.
            values = [{"number": number} for number in (*range(1000, 8000), 2**40)]
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await session.execute(added, values)
        assert (await session.execute(CALLER)).one() == ALICE


@pytest.mark.parametrize("is_prepared", [True, False])
async def test_a_refused_binding_skips_the_statement_and_costs_no_connection(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, is_prepared: bool
) -> None:
    maker = open_pool()
    another = insert(Todo).values(task="another")
    backend = await scalar(maker, bob, BACKEND)
    if is_prepared:
        async with maker() as session:
            identify(session, alice)
            await session.execute(another)
            await session.rollback()
    for _ in range(2):
        async with maker() as session:
            identify(session, NO_ROLE)
            with pytest.raises(BindingError, match="no such role"):
                await session.execute(another)
            with pytest.raises(SQLAlchemyError):
                await session.execute(another)
            await session.rollback()
    assert await tasks(maker, alice) == ["alice's"]
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_statement_without_a_name_never_is_that_of_the_binding(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool(prepared_statement_name_func=str)
    # As many parameters as the binding has, in its order: the first one would be the role.
    values = text("SELECT " + ", ".join(f"CAST(:value_{number} AS text)" for number in range(5)))
    roles = {f"value_{number}": "anonymous" for number in range(5)}
    for _ in range(2):
        async with maker() as session:
            identify(session, alice)
            assert (await session.execute(values, roles)).one() == ("anonymous",) * 5
            assert (await session.execute(CALLER)).one() == ALICE
        assert await tasks(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
async def test_a_refused_binding_ahead_of_a_statement_that_asyncpg_refuses_is_the_error(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    backend = await scalar(maker, bob, BACKEND)
    assert await scalar(maker, alice, NUMBER, number=1) == 1
    async with maker() as session:
        identify(session, NO_ROLE)
        with pytest.raises(BindingError, match="no such role") as refused:
            await session.scalar(NUMBER, {"number": 2**40})
        assert isinstance(refused.value.__cause__, asyncpg.DataError)
        with pytest.raises(SQLAlchemyError):
            await session.execute(ANYTHING)
    assert await tasks(maker, bob) == ["bob's"]
    assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_caller_who_expires_costs_no_connection(
    runner: asyncio.Runner, open_pool: Open, alice: Caller, clocks: Clocks
) -> None:
    maker = open_pool()
    backend = await scalar(maker, alice, BACKEND)
    async with maker() as session:
        identify(session, Caller(role="authenticated", subject="alice", expires_at=time.time() + 60))
        await session.connection()
        clocks.ahead = 60
        for statement in (BACKEND, CALLER):
            with pytest.raises(ExpiredToken):
                await session.execute(statement)
    assert await scalar(maker, alice, BACKEND) == backend


@pytest.mark.exhaustive
async def test_a_statement_without_its_begin_is_refused(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller
) -> None:
    maker = open_pool()
    async with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="syntax error"):
            await session.execute(text("SELEC 1"))
        with pytest.raises(DBAPIError, match="aborted"):
            await session.execute(TASKS)
        await session.rollback()
        own = await raw(session)
        # Nothing was executed, so the server has seen no BEGIN.
        await session.rollback()
        identify(session, bob)
        assert (await session.scalars(TASKS)).all() == ["bob's"]
        await own.execute("COMMIT")
        for _ in range(2):
            with pytest.raises(TransactionRefused, match="ended the transaction"):
                await session.execute(TASKS)


@pytest.mark.exhaustive
@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1"])
@pytest.mark.parametrize("way", ["stream", "executemany", "transaction"])
async def test_the_claims_are_parameters_whatever_comes_first(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, way: str, encoding: str
) -> None:
    maker = open_pool(server_settings={"client_encoding": encoding})
    texts: list[str] = []
    async with maker() as session:
        identify(session, alice)
        await session.execute(TASKS)
        own = await raw(session)
        await session.rollback()
        own.add_query_logger(lambda record: texts.append(record.query))
        for _ in range(2):
            await begin_by(session, way)
            await session.rollback()
        await asyncio.sleep(0)
    assert texts
    assert not [sent for sent in texts if "alice" in sent]


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["stream", "executemany", "transaction"])
async def test_a_refused_binding_is_the_error_whatever_comes_first(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller, bob: Caller, way: str
) -> None:
    maker = open_pool()
    backend = await scalar(maker, bob, BACKEND)
    for _ in range(2):
        async with maker() as session:
            identify(session, NO_ROLE)
            with pytest.raises(BindingError, match="no such role") as refused:
                await begin_by(session, way)
            assert isinstance(refused.value.__cause__, asyncpg.InvalidParameterValueError)
            with pytest.raises(SQLAlchemyError):
                await session.execute(ANYTHING)
            await session.rollback()
        async with maker() as session:
            identify(session, alice)
            await begin_by(session, way)
        assert await tasks(maker, bob) == ["bob's"]
    if way != "transaction":
        assert await scalar(maker, bob, BACKEND) == backend


@pytest.mark.exhaustive
async def test_notices_come_between_the_answers(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller
) -> None:
    maker = open_pool(server_settings={"client_min_messages": "debug5"})
    notices: list[Any] = []
    async with maker() as session:
        identify(session, alice)
        await session.execute(TASKS)
        own = await raw(session)
        own.add_log_listener(lambda connection, message: notices.append(message))
        await session.commit()
        for _ in range(3):
            notices.clear()
            assert (await session.scalars(TASKS)).all() == ["alice's"]
            await session.commit()
            await asyncio.sleep(0)
            assert any("StartTransaction" in str(notice) for notice in notices)


@pytest.mark.exhaustive
async def test_the_types_that_asyncpg_asks_for_are_asked_for_by_the_caller(
    runner: asyncio.Runner, open_pool: Open, todos: None, alice: Caller
) -> None:
    maker = open_pool()
    row = text("SELECT todos, current_user::text, auth.user_id() FROM todos")
    async with maker() as session:
        identify(session, alice)
        todo, *who = (await session.execute(row)).one()
        assert ("alice's" in tuple(todo), *who) == (True, *ALICE)


@pytest.mark.exhaustive
def test_it_works_on_the_loop_of_uvloop(url: URL, todos: None, alice: Caller, bob: Caller) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def take_turns() -> None:
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"}),
            pool_size=1,
            max_overflow=0,
        )
        maker = async_sessionmaker(engine)
        enforce_row_security(maker, options=PIPELINE)
        backend = await scalar(maker, alice, BACKEND)
        for caller in (alice, bob, alice):
            assert await scalar(maker, caller, NUMBER, number=1) == 1
            with pytest.raises(DBAPIError, match="out of int32 range"):
                await scalar(maker, caller, NUMBER, number=2**40)
            with pytest.raises(BindingError, match="no such role"):
                await scalar(maker, NO_ROLE, NUMBER, number=1)
            assert await tasks(maker, caller) == [f"{caller.subject}'s"]
        assert await scalar(maker, bob, BACKEND) == backend
        await engine.dispose()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(take_turns())
