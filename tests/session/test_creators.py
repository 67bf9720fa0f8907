"""Connections that the application opens itself: nothing runs on them after the bound transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import TransactionRefused
from tests.support.sessions import ALICE, ANYTHING, CALLER, NOBODY
from tests.support.suite import table

pytestmark = [
    pytest.mark.sqlalchemy,
    pytest.mark.filterwarnings("ignore:transaction already deassociated"),
]

#: What Alice's SQL leaves on the connection.  A connection of one's own is replaced once.
LEAVE = ("SET ROLE authenticated", 'SET request.jwt.claims = \'{"sub":"alice"}\'')


def address(url: URL) -> dict[str, Any]:
    return {"host": url.host, "port": url.port, "user": "app", "password": "app"}


@pytest.fixture
def maker(url: URL) -> Iterator[sessionmaker[Session]]:
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(**address(url), dbname=url.database),
        pool_size=1,
        max_overflow=0,
    )
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    yield maker
    engine.dispose()


@table("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "COMMIT; BEGIN", None])
def test_nothing_runs_after_the_end_of_its_transaction(
    maker: sessionmaker[Session], alice: Caller, bob: Caller, end: str | None
) -> None:
    for _ in range(2):
        with maker() as session:
            identify(session, alice)
            for sql in LEAVE:
                session.execute(text(sql))
            session.commit()
    with maker() as session:
        identify(session, bob)
        for _ in range(2):
            connection = session.connection()
            if end is None:
                connection.commit()
            else:
                session.execute(text(end))
            for go_on in (session.execute, connection.execute, session.execute):
                with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                    go_on(CALLER)
            with pytest.raises(TransactionRefused):
                connection.begin_nested()
            session.rollback()
            assert session.execute(CALLER).one() == ("authenticated", "bob")


@pytest.mark.exhaustive
def test_what_ends_no_transaction_is_not_refused(maker: sessionmaker[Session], alice: Caller) -> None:
    for _ in range(3):
        with maker() as session:
            identify(session, alice)
            session.execute(text("SAVEPOINT own"))
            session.execute(text("ROLLBACK TO own"))
            with pytest.raises(DBAPIError), session.begin_nested():
                session.execute(text("SELECT 1/0"))
            assert session.execute(CALLER).one() == ALICE
            with pytest.raises(DBAPIError, match="division by zero"):
                session.execute(text("SELECT 1/0"))
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                session.execute(ANYTHING)
            session.rollback()
            assert session.execute(CALLER).one() == ALICE
            session.commit()
    with maker.kw["bind"].connect() as connection:
        assert connection.execute(ANYTHING).one() == (1,)


@pytest.mark.filterwarnings("ignore:The garbage collector")
def test_outside_a_session_it_is_not_the_last_callers(maker: sessionmaker[Session], alice: Caller) -> None:
    engine = maker.kw["bind"]
    path = ""
    for end in (Session.commit, Session.rollback, Session.close):
        for _ in range(2):
            with maker() as session:
                identify(session, alice)
                for sql in (*LEAVE, "SET search_path = pg_temp", "COMMIT"):
                    session.execute(text(sql))
                end(session)
            with engine.connect() as connection:
                assert connection.execute(CALLER).one() == NOBODY
                path = path or connection.scalar(text("SHOW search_path"))
                assert connection.scalar(text("SHOW search_path")) == path != "pg_temp"
                assert not connection.connection.driver_connection.autocommit
        with maker() as session:
            identify(session, alice)
            session.execute(text(LEAVE[0]))
            session.commit()
        raw = engine.raw_connection()
        assert raw.cursor().execute("SELECT current_user").fetchone() == ("app",)
        raw.close()


@pytest.mark.exhaustive
def test_a_connection_that_cannot_be_reset_is_given_up(
    maker: sessionmaker[Session], admin: Engine, alice: Caller
) -> None:
    engine = maker.kw["bind"]
    with maker() as session:
        identify(session, alice)
        session.execute(ANYTHING)
        session.commit()
        lost = session.scalar(text("SELECT pg_backend_pid()"))
        event.listen(engine, "checkin", lambda *_: end_process(admin, lost), insert=True)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != lost


def end_process(admin: Engine, pid: int) -> None:
    with admin.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_outside_a_session_it_is_not_the_last_callers_under_asyncio(
    runner: asyncio.Runner, url: URL, alice: Caller, driver: str
) -> None:
    engine = create_async_engine(f"postgresql+{driver}://", async_creator=creator(driver, url), pool_size=1)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker)
    for _ in range(3):
        async with maker() as session:
            identify(session, alice)
            for sql in LEAVE:
                await session.execute(text(sql))
            await session.commit()
        async with engine.connect() as connection:
            assert (await connection.execute(CALLER)).one() == NOBODY
            await connection.commit()
            assert (await connection.execute(CALLER)).one() == NOBODY
    await engine.dispose()


def creator(driver: str, url: URL) -> Callable[[], Awaitable[Any]]:
    async def connect() -> Any:
        if driver == "asyncpg":
            return await asyncpg.connect(**address(url), database=url.database, ssl="disable")
        return await psycopg.AsyncConnection.connect(**address(url), dbname=url.database)

    return connect


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@table("end", ["COMMIT", "COMMIT AND CHAIN", None])
async def test_nothing_runs_after_the_end_of_its_transaction_under_asyncio(
    runner: asyncio.Runner, url: URL, alice: Caller, driver: str, end: str | None
) -> None:
    engine = create_async_engine(f"postgresql+{driver}://", async_creator=creator(driver, url))
    maker = async_sessionmaker(engine)
    enforce_row_security(maker)
    for _ in range(3):
        async with maker() as session:
            identify(session, alice)
            assert (await session.execute(CALLER)).one() == ALICE
            connection = await session.connection()
            if end is None:
                await connection.commit()
            else:
                await session.execute(text(end))
            for go_on in (session.execute, connection.execute):
                with pytest.raises(TransactionRefused):
                    await go_on(CALLER)
            await session.rollback()
            assert (await session.execute(CALLER)).one() == ALICE
    await engine.dispose()
