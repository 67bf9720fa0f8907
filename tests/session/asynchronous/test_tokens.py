"""Tokens under asyncio: who they say, and what happens while keys are waited for."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken, KeysUnavailable
from sqla_rls.testing.issuer import Issuer
from tests.session.asynchronous.conftest import tasks_of
from tests.support.clocks import Clocks
from tests.support.sessions import ANYTHING, BAD_TOKENS, Todo, all_todos, assert_refused, verifier_of

pytestmark = [pytest.mark.sqlalchemy, pytest.mark.usefixtures("runner")]


@pytest.fixture
def by_token(async_pool: AsyncEngine, issuer: Issuer) -> async_sessionmaker[AsyncSession]:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker, verifier=verifier_of(issuer))
    return maker


@pytest.mark.exhaustive
async def test_a_token_is_who_it_says(
    by_token: async_sessionmaker[AsyncSession], issuer: Issuer, todos: None
) -> None:
    for name in ("alice", "bob"):
        async with by_token(token=issuer.token(name)) as session:
            for _ in range(3):
                assert await tasks_of(session) == [f"{name}'s"]
                await session.commit()
    assert issuer.fetches == 1


@pytest.mark.exhaustive
async def test_the_event_loop_goes_on_while_keys_are_waited_for(
    by_token: async_sessionmaker[AsyncSession], issuer: Issuer, todos: None
) -> None:
    issuer.delay = 0.3
    async with by_token(token=issuer.token("alice")) as session:
        reading = asyncio.create_task(tasks_of(session))
        turns = 0
        while not reading.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert reading.result() == ["alice's"]
    assert turns > 3


@pytest.mark.exhaustive
async def test_who_goes_on_when_cancelled_while_keys_are_waited_for_reads_nothing(
    by_token: async_sessionmaker[AsyncSession], issuer: Issuer, todos: None
) -> None:
    issuer.delay = 0.5
    async with by_token(token=issuer.token("alice")) as session:
        reading = asyncio.create_task(tasks_of(session))
        while not issuer.fetches:
            await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        with pytest.raises(SQLAlchemyError):
            await session.execute(ANYTHING)
        await session.rollback()
        assert await tasks_of(session) == ["alice's"]


@pytest.mark.exhaustive
async def test_a_bad_token_reads_nothing(
    by_token: async_sessionmaker[AsyncSession], issuer: Issuer, subtests: pytest.Subtests
) -> None:
    for name, forge in BAD_TOKENS.items():
        with subtests.test(name):
            async with by_token(token=forge(issuer)) as session:
                await session.run_sync(assert_refused, InvalidToken)


@pytest.mark.exhaustive
async def test_a_token_that_expires_is_refused_in_the_next_transaction(
    async_pool: AsyncEngine, issuer: Issuer, clocks: Clocks, todos: None
) -> None:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker, verifier=verifier_of(issuer))
    async with maker(token=issuer.token("alice", expires_in=60)) as session:
        assert await tasks_of(session) == ["alice's"]
        await session.commit()
        clocks.ahead = 60
        await session.run_sync(assert_refused, ExpiredToken)


@pytest.mark.exhaustive
async def test_without_keys_nothing_is_read(
    by_token: async_sessionmaker[AsyncSession], issuer: Issuer
) -> None:
    token = issuer.token("alice")
    issuer.close()
    async with by_token(token=token) as session:
        await session.run_sync(assert_refused, KeysUnavailable)


@pytest.mark.exhaustive
async def test_a_block_may_commit_at_its_end(
    maker: async_sessionmaker[AsyncSession], alice: Caller, admin: Engine
) -> None:
    def token() -> Caller:
        return alice

    async with maker(token=token) as session, session.begin():
        session.add(Todo(task="one"))
    with pytest.raises(DeclarationError, match="async with"):
        maker.begin(token=token)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    async with maker.begin() as session:
        identify(session, alice)
        session.add(Todo(task="two"))
    assert all_todos(admin) == [("alice", "one"), ("alice", "two")]


async def test_a_token_needs_a_verifier(maker: async_sessionmaker[AsyncSession], issuer: Issuer) -> None:
    with pytest.raises(DeclarationError, match="needs a verifier"):
        maker(token=issuer.token("alice"))
