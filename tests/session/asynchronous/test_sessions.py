"""The same under asyncio, with each driver: what a person may do, also when tasks are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL, Engine, event, func, insert, select, update
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, auth, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import (
    BindingError,
    CallerRequired,
    DeclarationError,
    TransactionInProgress,
    TransactionRefused,
    UnsupportedTransaction,
)
from tests.session.asynchronous.conftest import AsyncSessions, caller_of, tasks_of
from tests.support.sessions import (
    ALICE_OF_MANY_GROUPS,
    ANYTHING,
    CALLER,
    GROUPS,
    NOBODY,
    TASKS,
    Todo,
    all_todos,
    assert_refused,
    bindings,
    statements_of,
)
from tests.support.suite import table

pytestmark = [pytest.mark.sqlalchemy, pytest.mark.usefixtures("runner")]


# One's own rows, and nobody else's


async def test_bob_does_not_see_what_alice_wrote(sessions: AsyncSessions, alice: Caller, bob: Caller) -> None:
    async with sessions(alice) as session:
        session.add(Todo(task="buy milk"))
        await session.commit()
        assert await tasks_of(session) == ["buy milk"]
    async with sessions(bob) as session:
        assert await tasks_of(session) == []


@pytest.mark.exhaustive
async def test_a_caller_may_have_many_claims(sessions: AsyncSessions, todos: None) -> None:
    async with sessions(ALICE_OF_MANY_GROUPS) as session:
        assert (await session.scalars(TASKS)).all() == ["alice's"]
        claims: Any = await session.scalar(select(auth.session()))
        assert claims["groups"] == GROUPS


async def test_bob_cannot_write_in_the_name_of_alice(
    sessions: AsyncSessions, todos: None, admin: Engine, bob: Caller
) -> None:
    async with sessions(bob) as session:
        changed = await session.scalars(update(Todo).values(task="bob's").returning(Todo.user_id))
        assert changed.all() == ["bob"]
        await session.commit()
        with pytest.raises(ProgrammingError, match="row-level security"):
            await session.execute(insert(Todo).values(user_id="alice", task="forged"))
    assert all_todos(admin) == [("alice", "alice's"), ("bob", "bob's")]


@pytest.mark.exhaustive
async def test_anonymous_may_not_touch_todos(sessions: AsyncSessions, todos: None) -> None:
    async with sessions(Caller.anonymous()) as session:
        assert await caller_of(session) == ("anonymous", None)
        with pytest.raises(ProgrammingError, match="permission denied"):
            await tasks_of(session)


@pytest.mark.exhaustive
async def test_nobody_gets_anywhere_nor_by_going_on(
    maker: async_sessionmaker[AsyncSession], alice: Caller
) -> None:
    async with maker() as session:
        await session.run_sync(assert_refused, CallerRequired)
        for going_on in (session.execute, session.scalars, session.stream):
            with pytest.raises(TransactionRefused):
                await going_on(ANYTHING)
        with pytest.raises(TransactionRefused):
            await session.connection()
        with pytest.raises(SQLAlchemyError):
            async with session.begin_nested():
                await session.execute(ANYTHING)
        await session.rollback()
        identify(session, alice)
        assert await caller_of(session) == ("authenticated", "alice")


@pytest.mark.exhaustive
@table("ending", ["close", "aclose", "reset", "invalidate"])
async def test_a_closed_session_is_nobodys(sessions: AsyncSessions, alice: Caller, ending: str) -> None:
    session = sessions(alice)
    await session.execute(ANYTHING)
    await getattr(session, ending)()
    async with session:
        await session.run_sync(assert_refused, CallerRequired)


# From one transaction to the next


@pytest.mark.exhaustive
async def test_each_transaction_is_bound_anew_by_one_statement(
    async_pool: AsyncEngine, async_transport: Transport, sessions: AsyncSessions, todos: None, alice: Caller
) -> None:
    async with sessions(alice) as session:
        await session.execute(ANYTHING)
        await session.commit()
        sent = statements_of(async_pool.sync_engine)
        for end in (session.commit, session.rollback, session.commit):
            assert await tasks_of(session) == ["alice's"]
            assert await tasks_of(session) == ["alice's"]
            await end()
    assert [bindings([statement]) for statement in sent] == (
        [1, 0, 0] * 3 if async_transport == "statement" else [0, 0] * 3
    )


@pytest.mark.exhaustive
async def test_a_flush_that_comes_first_is_bound(
    async_pool: AsyncEngine, sessions: AsyncSessions, alice: Caller
) -> None:
    async with sessions(alice) as session:
        await session.execute(ANYTHING)
        await session.commit()
        sent = statements_of(async_pool.sync_engine)
        for _ in range(2):
            session.add(Todo(task="buy milk"))
            await session.commit()
    assert [statement.split()[0] for statement in sent if not bindings([statement])] == ["INSERT"] * 2


@pytest.mark.exhaustive
async def test_what_is_loaded_after_a_commit_is_ones_own(
    sessions: AsyncSessions, todos: None, alice: Caller
) -> None:
    async with sessions(alice) as session:
        todo = (await session.scalars(select(Todo))).one()
        await session.commit()
        await session.refresh(todo)
        await session.commit()
        assert await session.run_sync(lambda _: [step.what for step in todo.steps]) == ["alice's step"]


@pytest.mark.exhaustive
async def test_a_savepoint_is_bound_already(
    async_pool: AsyncEngine, async_transport: Transport, sessions: AsyncSessions, todos: None, alice: Caller
) -> None:
    sent = statements_of(async_pool.sync_engine)
    async with sessions(alice) as session, session.begin_nested():
        with pytest.raises(ProgrammingError, match="row-level security"):
            async with session.begin_nested():
                await session.execute(insert(Todo).values(user_id="bob", task="forged"))
        assert await tasks_of(session) == ["alice's"]
    assert bindings(sent) == (1 if async_transport == "statement" else 0)


@pytest.mark.exhaustive
async def test_nobody_else_may_go_on_in_a_transaction(
    sessions: AsyncSessions, alice: Caller, bob: Caller
) -> None:
    async with sessions(alice) as session:
        await session.execute(ANYTHING)
        identify(session, alice)
        with pytest.raises(TransactionInProgress):
            identify(session, bob)
        await session.commit()
        identify(session, bob)
        assert await caller_of(session) == ("authenticated", "bob")


@pytest.mark.exhaustive
async def test_nothing_outlives_the_transaction(
    async_pool: AsyncEngine, sessions: AsyncSessions, alice: Caller
) -> None:
    backend = select(func.pg_backend_pid())
    async with sessions(alice) as session:
        before = await session.scalar(backend)
        await session.commit()
    async with async_pool.connect() as connection:
        assert await connection.scalar(backend) == before
        assert (await connection.execute(CALLER)).one() == NOBODY


# Factories


async def test_a_plain_session_cannot_be_identified(async_pool: AsyncEngine, alice: Caller) -> None:
    maker = async_sessionmaker(async_pool)
    for session in (maker(), async_scoped_session(maker, scopefunc=asyncio.current_task)):
        with pytest.raises(BindingError, match="enforce_row_security"):
            identify(session, alice)


@pytest.mark.exhaustive
async def test_enforcing_twice_is_a_mistake(maker: async_sessionmaker[AsyncSession]) -> None:
    for factory in (maker, async_scoped_session(maker, scopefunc=asyncio.current_task)):
        with pytest.raises(DeclarationError, match="already"):
            enforce_row_security(factory)


class Counting(Session):
    """An application's own."""

    def count(self) -> int:
        return len(self.scalars(TASKS).all())


class CountingAsync(AsyncSession):
    sync_session_class = Counting


@pytest.mark.exhaustive
async def test_session_classes_of_ones_own_go_on(async_pool: AsyncEngine, todos: None, alice: Caller) -> None:
    heard: list[object] = []

    @event.listens_for(Counting, "after_begin")
    def after_begin(session: Session, *_: object) -> None:
        heard.append(type(session).__name__)

    for maker in (
        async_sessionmaker(async_pool, sync_session_class=Counting),
        async_sessionmaker(async_pool, class_=CountingAsync),
    ):
        enforce_row_security(maker)
        async with maker() as session:
            identify(session, alice)
            assert isinstance(session.sync_session, Counting)
            assert await session.run_sync(lambda own: isinstance(own, Counting) and own.count()) == 1
    event.remove(Counting, "after_begin", after_begin)
    assert heard == ["Counting", "Counting"]


@pytest.mark.exhaustive
async def test_a_scoped_session_is_one_per_task(maker: async_sessionmaker[AsyncSession], todos: None) -> None:
    scoped = async_scoped_session(maker, scopefunc=asyncio.current_task)

    async def work(name: str) -> None:
        identify(scoped, Caller(role="authenticated", subject=name))
        assert (await scoped.scalars(TASKS)).all() == [f"{name}'s"]
        await scoped.remove()
        with pytest.raises(CallerRequired):
            await scoped.execute(ANYTHING)
        await scoped.remove()

    await asyncio.gather(work("alice"), work("bob"))


# Every way to run SQL


@pytest.mark.exhaustive
async def test_streams_hold_ones_own_rows(admin: Engine, sessions: AsyncSessions, alice: Caller) -> None:
    with Session(admin) as owner:
        owner.add_all([Todo(task="x", user_id=name) for name in ("alice", "bob") * 100])
        owner.commit()
    async with sessions(alice) as session:
        stream = await session.stream_scalars(select(Todo), execution_options={"yield_per": 7})
        assert [todo.user_id async for todo in stream] == ["alice"] * 100


@pytest.mark.exhaustive
async def test_core_and_bulk_statements_run_as_the_caller(
    admin: Engine, sessions: AsyncSessions, alice: Caller
) -> None:
    async with sessions(alice) as session:
        connection = await session.connection()
        await connection.execute(insert(Todo), [{"task": "x"}] * 100)
        await session.execute(insert(Todo), [{"task": "x"}] * 100)
        await session.run_sync(lambda own: own.bulk_save_objects([Todo(task="x") for _ in range(100)]))
        await session.commit()
    assert all_todos(admin) == [("alice", "x")] * 300


@pytest.mark.exhaustive
async def test_a_session_may_join_a_transaction(
    async_pool: AsyncEngine, admin: Engine, alice: Caller, bob: Caller
) -> None:
    maker = async_sessionmaker(join_transaction_mode="create_savepoint")
    enforce_row_security(maker)
    async with async_pool.connect() as connection:
        transaction = await connection.begin()
        for caller in (alice, bob):
            async with maker(bind=connection) as session:
                identify(session, caller)
                session.add(Todo(task="joined"))
                await session.commit()
                assert (await session.scalars(select(Todo.user_id))).all() == [caller.subject]
        async with maker(bind=connection) as session:
            await session.run_sync(assert_refused, CallerRequired)
        await transaction.rollback()
        assert (await connection.execute(CALLER)).one() == NOBODY
    assert all_todos(admin) == []


# What is refused


@pytest.mark.exhaustive
async def test_who_did_nothing_on_a_connection_leaves_nothing_on_it(
    async_pool: AsyncEngine, maker: async_sessionmaker[AsyncSession], alice: Caller
) -> None:
    async with async_pool.connect() as connection:
        for _ in range(2):
            async with maker(bind=connection) as session:
                identify(session, alice)
                await session.execute(ANYTHING)
                await session.commit()
                await session.connection()
            assert (await connection.execute(CALLER)).one() == NOBODY
            await connection.rollback()


@pytest.mark.exhaustive
async def test_autocommit_is_refused_with_a_statement(
    async_url: URL, async_transport: Transport, sessions: AsyncSessions, alice: Caller
) -> None:
    maker = async_sessionmaker(
        create_async_engine(async_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    )
    enforce_row_security(maker, options=BindingOptions(transport="statement"))
    async with maker() as session:
        identify(session, alice)
        await session.run_sync(assert_refused, UnsupportedTransaction, "AUTOCOMMIT")
    async with sessions(alice) as session:
        if async_transport == "statement":
            with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
                await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await session.rollback()
        assert await caller_of(session) == ("authenticated", "alice")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("role", "hint"), [("nobody_has_it", "Create it"), ("pg_monitor", "GRANT it")])
async def test_a_role_that_cannot_be_bound_names_the_cure(
    sessions: AsyncSessions, bob: Caller, role: str, hint: str
) -> None:
    async with sessions(Caller(role=role, subject="alice")) as session:
        await session.run_sync(assert_refused, BindingError, f"{role}.*{hint}")
    async with sessions(bob) as session:
        assert await caller_of(session) == ("authenticated", "bob")
