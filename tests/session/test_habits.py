"""How frameworks use sessions: by scope, by block, in threads, made by a factory of a factory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import Engine, event, insert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import CallerRequired, DeclarationError
from tests.support.sessions import ANYTHING, TASKS, Todo, all_todos

pytestmark = pytest.mark.sqlalchemy

pytestmark = pytest.mark.usefixtures("runner")

NAMES = ("alice", "bob")


def person(name: str) -> Caller:
    return Caller(role="authenticated", subject=name)


def test_a_worker_thread_serves_one_after_another(maker: sessionmaker[Session], todos: None) -> None:
    scoped = scoped_session(maker)

    def serve(name: str) -> list[str]:
        identify(scoped, person(name))
        try:
            return [*scoped.scalars(TASKS)]
        finally:
            scoped.remove()

    def serve_nobody() -> None:
        with pytest.raises(CallerRequired):
            scoped.execute(ANYTHING)
        scoped.remove()

    with ThreadPoolExecutor(1) as thread:
        for name in NAMES * 2:
            assert thread.submit(serve, name).result() == [f"{name}'s"]
            thread.submit(serve_nobody).result()


@pytest.mark.exhaustive
def test_a_block_commits_or_leaves_nothing(
    maker: sessionmaker[Session], admin: Engine, alice: Caller
) -> None:
    with maker.begin() as session:
        identify(session, alice)
        session.add(Todo(task="kept"))
    with suppress(ZeroDivisionError), maker.begin() as session:
        identify(session, alice)
        session.add(Todo(task="lost"))
        session.flush()
        raise ZeroDivisionError
    with pytest.raises(CallerRequired), maker.begin() as session:
        session.add(Todo(task="nobody's"))
    assert all_todos(admin) == [("alice", "kept")]


# Under asyncio


@pytest.mark.exhaustive
async def test_an_async_block_commits_or_leaves_nothing(
    async_pool: AsyncEngine, admin: Engine, alice: Caller
) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker)
    async with maker.begin() as session:
        identify(session, alice)
        session.add(Todo(task="kept"))
    with suppress(ZeroDivisionError):
        async with maker.begin() as session:
            identify(session, alice)
            session.add(Todo(task="lost"))
            await session.flush()
            raise ZeroDivisionError
    with pytest.raises(CallerRequired):
        async with maker.begin() as session:
            session.add(Todo(task="nobody's"))
    assert all_todos(admin) == [("alice", "kept")]


@pytest.mark.exhaustive
async def test_sync_code_may_begin_and_end_transactions(
    async_pool: AsyncEngine, admin: Engine, alice: Caller
) -> None:
    def work(session: Session) -> list[str]:
        for task in ("first", "second"):
            with session.begin_nested():
                session.add(Todo(task=task))
            session.commit()
            session.add(Todo(task="lost"))
            session.flush()
            session.rollback()
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.execute(insert(Todo).values(user_id="bob", task="forged"))
        session.rollback()
        return [*session.scalars(TASKS)]

    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker)
    async with maker() as session:
        identify(session, alice)
        assert await session.run_sync(work) == ["first", "second"]
    assert all_todos(admin) == [("alice", "first"), ("alice", "second")]


@pytest.mark.exhaustive
async def test_a_scope_that_is_removed_is_nobodys(async_pool: AsyncEngine, todos: None) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker)
    scoped = async_scoped_session(maker, scopefunc=lambda: "one for all")
    for name in NAMES:
        identify(scoped, person(name))
        assert (await scoped.scalars(TASKS)).all() == [f"{name}'s"]
        await scoped.remove()
        with pytest.raises(CallerRequired):
            await scoped.execute(ANYTHING)
        await scoped.remove()


async def test_inner_sessions_may_come_from_a_factory_with_listeners(
    async_pool: AsyncEngine, todos: None, alice: Caller
) -> None:
    inner, heard = sessionmaker(), []
    event.listen(inner, "before_flush", lambda *_: heard.append("flush"))
    maker = async_sessionmaker(async_pool, sync_session_class=inner)
    enforce_row_security(maker)
    with pytest.raises(DeclarationError, match="already"):
        enforce_row_security(maker)
    async with maker() as session:
        with pytest.raises(CallerRequired):
            await session.execute(ANYTHING)
        await session.rollback()
        identify(session, alice)
        session.add(Todo(task="more"))
        assert (await session.scalars(TASKS)).all() == ["alice's", "more"]
    assert heard == ["flush"]
