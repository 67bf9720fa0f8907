"""Errors and interrupts that end in the middle of an exchange cost that connection."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from types import FrameType
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver import psycopg as psycopg_driver
from sqla_rls.driver.base import Reset, Transport
from sqla_rls.exc import RowSecurityError
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS
from tests.support.suite import table


class SoftTimeLimitExceeded(Exception):
    """What a signal handler raises, as Celery's does; SQLAlchemy keeps the connection."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftTimeLimitExceeded])
def test_an_error_that_keeps_a_connection_in_a_pipeline_costs_that_connection(
    pool: Engine, todos: None, alice: Caller, bob: Caller, error: type[BaseException]
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport="pipeline"))
    with maker() as session:
        identify(session, alice)
        session.execute(ANYTHING)
        session.commit()
        with _interrupted_exchange(error), pytest.raises(error):
            session.execute(TASKS)
    for caller in (bob, alice):
        with maker() as session:
            identify(session, caller)
            for _ in range(2):
                assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]


@table("transport", ["with_begin", "pipeline"])
@table("reset", ["settings", "all"])
def test_an_interrupt_between_binding_and_cursor_costs_that_connection(
    pool: Engine,
    todos: None,
    alice: Caller,
    bob: Caller,
    transport: Transport,
    reset: Reset,
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport, reset=reset))
    streamed = TASKS.execution_options(stream_results=True)
    with maker() as session:
        identify(session, alice)
        session.execute(ANYTHING)
        session.commit()
        with _interrupted_exchange(SoftTimeLimitExceeded), pytest.raises(SoftTimeLimitExceeded):
            session.execute(streamed)
        session.rollback()
        assert session.scalars(streamed).all() == ["alice's"]
    with maker() as session:
        identify(session, bob)
        assert session.scalars(streamed).all() == ["bob's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("error", [KeyboardInterrupt, SoftTimeLimitExceeded])
@pytest.mark.parametrize("transport", ["pipeline", "statement"])
def test_an_interrupt_at_any_line_of_a_session_leaves_it_usable_and_shows_it_nothing_of_anothers(
    pool: Engine,
    todos: None,
    alice: Caller,
    bob: Caller,
    transport: Transport,
    error: type[BaseException],
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    def tasks_of(caller: Caller) -> Any:
        with maker() as session:
            identify(session, caller)
            return session.scalars(TASKS).all()

    assert tasks_of(alice) == ["alice's"]
    line, interrupted = 0, ["none yet"]
    while interrupted:
        line += 1
        with maker() as session:
            identify(session, alice)
            with _interrupted_at(line, error) as interrupted, suppress(error):
                session.scalars(TASKS).all()
                session.commit()
            with suppress(SQLAlchemyError, RowSecurityError):
                assert session.scalars(TASKS).all() == ["alice's"]
            session.rollback()
            assert session.scalars(TASKS).all() == ["alice's"]
        assert tasks_of(bob) == ["bob's"]
    assert line > 50


@contextmanager
def _interrupted_exchange(error: type[BaseException]) -> Iterator[None]:
    """Raise *error* in the middle of an exchange of psycopg."""
    begun: list[Any] = []

    def interrupted(connection: psycopg_driver.Connection, exchange: Any, **_: Any) -> Any:
        # Kept: else Python closes the generator.
        begun.append(exchange)
        next(exchange)
        raise error

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(psycopg_driver.Connection, "wait", interrupted)
        yield


@contextmanager
def _interrupted_at(line: int, error: type[BaseException]) -> Iterator[list[str]]:
    """Raise *error* at the line of that number in ``sqla_rls/session/``; the list then has its function."""
    places: list[str] = []
    lines = count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if "sqla_rls/session/" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(lines) == line:
            places.append(frame.f_code.co_qualname)
            raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield places
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("transport", ["with_begin", "pipeline"])
def test_an_error_that_is_not_the_servers_is_reported_as_it_is(
    pool: Engine, todos: None, alice: Caller, bob: Caller, transport: Transport, monkeypatch: Any
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    def timed_out(*_: object, **__: object) -> Any:
        raise TimeoutError("of the application's own")

    with maker() as session:
        identify(session, alice)
        session.execute(ANYTHING)
        session.commit()
        monkeypatch.setattr(psycopg.Connection, "wait", timed_out)
        with pytest.raises(TimeoutError, match="of the application's own"):
            session.execute(text("SELECT 1; SELECT 2") if transport == "with_begin" else TASKS)
        monkeypatch.undo()
    with maker() as session:
        identify(session, bob)
        assert session.scalars(TASKS).all() == ["bob's"]


@table("transport", ["with_begin", "statement"])
@table("command", ["ROLLBACK", "BEGIN"])
async def test_an_error_in_place_of_asyncpgs_own_costs_that_connection(
    runner: asyncio.Runner,
    url: URL,
    todos: None,
    alice: Caller,
    bob: Caller,
    transport: Transport,
    command: str,
    monkeypatch: Any,
) -> None:
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"}),
        pool_size=1,
        max_overflow=0,
    )
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    execute = asyncpg.Connection.execute

    async def timed_out(connection: Any, query: str, *args: Any, **kw: Any) -> Any:
        if command == "BEGIN":
            await execute(connection, query, *args, **kw)
        if query.startswith(command):
            raise TimeoutError("of the application's own")
        return await execute(connection, query, *args, **kw)

    session: AsyncSession
    with suppress(SQLAlchemyError):
        async with maker() as session:
            identify(session, alice)
            if command == "ROLLBACK":
                await session.execute(ANYTHING)
            monkeypatch.setattr(asyncpg.Connection, "execute", timed_out)
            with pytest.raises(TimeoutError, match="of the application's own"):
                await (session.rollback() if command == "ROLLBACK" else session.execute(ANYTHING))
            monkeypatch.undo()
    for caller in (bob, alice):
        async with maker() as session:
            identify(session, caller)
            assert (await session.scalars(TASKS)).all() == [f"{caller.subject}'s"]
    await engine.dispose()


@pytest.mark.exhaustive
def test_a_transaction_that_text_has_begun_in_autocommit_is_not_the_next_callers(
    url: URL, todos: None, alice: Caller, bob: Caller
) -> None:
    engine = create_engine(
        url, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True, pool_size=1, max_overflow=0
    )
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        session.connection().connection.driver_connection.pgconn.exec_(b"BEGIN")  # type: ignore[union-attr]
    with maker() as session:
        identify(session, bob)
        assert session.scalars(TASKS).all() == ["bob's"]
    with engine.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY
    engine.dispose()
