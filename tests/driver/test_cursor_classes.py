"""Cursors of other classes than ours, as tracing libraries and applications set them: they are bound, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import UnsupportedTransaction
from tests.support.psycopg_statements import WHO, raw
from tests.support.sessions import (
    ALICE,
    ANYTHING,
    CALLER,
    NOBODY,
    TASKS,
    UNTOUCHED,
    Sessions,
    Todo,
    all_todos,
    by_transports,
)
from tests.support.suite import table


class Own(psycopg.Cursor[Any]):
    """An application's."""


class AsyncOwn(psycopg.AsyncCursor[Any]):
    """An application's."""


@table("factory", [psycopg.ClientCursor, Own, psycopg.Cursor])
def test_a_cursor_factory_that_is_set_later_is_bound(
    pool: Engine, transport: Transport, admin: Engine, todos: None, alice: Caller, bob: Caller, factory: Any
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    @event.listens_for(pool, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.cursor_factory = factory

    for caller in (alice, bob, alice):
        with maker() as session:
            identify(session, caller)
            who = session.execute(text("SELECT current_user::text, auth.user_id()")).one()
            assert who == ("authenticated", caller.subject)
            assert session.execute(text("SELECT task FROM todos")).scalars().all() == [f"{caller.subject}'s"]
            session.commit()
    with maker() as session:
        identify(session, alice)
        session.add_all([Todo(task="hers"), Todo(task="hers, too")])
        session.flush()
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]
    with pool.begin() as connection:
        assert connection.execute(CALLER).one() == NOBODY
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
def test_what_the_owner_writes_is_rolled_back_whatever_the_cursor(
    admin: Engine, transport: Transport
) -> None:
    engine = create_engine(admin.url)
    enforce_row_security(sessionmaker(engine), options=BindingOptions(transport=transport))

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.cursor_factory = psycopg.ClientCursor

    with engine.connect() as connection:
        connection.execute(insert(Todo).values(user_id="alice", task="never"))
        connection.rollback()
    with engine.connect() as connection:
        assert connection.scalars(select(Todo.task)).all() == []
    engine.dispose()


def by_execute(cursor: Any) -> Any:
    return cursor.execute(WHO).fetchone()


def by_executemany(cursor: Any) -> Any:
    cursor.executemany(WHO + " WHERE %s", [[True]], returning=True)
    return cursor.fetchone()


def by_stream(cursor: Any) -> Any:
    return next(iter(list(cursor.stream(WHO))))


def by_copy(cursor: Any) -> Any:
    with cursor.copy(f"COPY ({WHO}) TO STDOUT") as copy:
        (row,) = copy.rows()
        return row


def in_a_pipeline(cursor: Any) -> Any:
    with cursor.connection.pipeline():
        cursor.execute(WHO)
        again = psycopg.Cursor(cursor.connection)
        again.execute(WHO)
        assert again.fetchone() == ALICE
    return cursor.fetchone()


@pytest.mark.exhaustive
@table("use", [by_execute, by_executemany, by_stream, by_copy, in_a_pipeline])
@by_transports("with_begin", "pipeline")
def test_a_cursor_made_by_hand_is_bound(
    sessions: Sessions, todos: None, alice: Caller, bob: Caller, use: Callable[[Any], Any]
) -> None:
    with sessions(bob) as session:
        session.execute(ANYTHING)
    with sessions(alice) as session:
        assert use(psycopg.Cursor(raw(session))) == ALICE
        assert session.scalars(TASKS).all() == ["alice's"]


@by_transports("with_begin", "pipeline")
def test_a_server_cursor_made_by_hand_is_bound(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session, psycopg.ServerCursor(raw(session), "named") as cursor:
        assert cursor.execute(WHO).fetchone() == ALICE


@pytest.mark.exhaustive
def test_in_autocommit_a_cursor_of_another_class_is_refused(url: URL, alice: Caller) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(UnsupportedTransaction):
            psycopg.Cursor(raw(session)).execute(WHO)
    engine.dispose()


@pytest.mark.parametrize("transport", ["with_begin", "pipeline", "statement"])
@pytest.mark.exhaustive
async def test_a_cursor_factory_of_asyncio_is_bound(
    runner: asyncio.Runner, url: URL, transport: Transport, todos: None, alice: Caller, bob: Caller
) -> None:
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, record: object) -> None:
        connection.driver_connection.cursor_factory = AsyncOwn

    for caller in (alice, bob):
        session: AsyncSession
        async with maker() as session:
            identify(session, caller)
            assert (await session.scalars(TASKS)).all() == [f"{caller.subject}'s"]
            session.add(Todo(task="never"))
            await session.flush()
            await session.rollback()
            assert (await session.scalars(TASKS)).all() == [f"{caller.subject}'s"]
    await engine.dispose()


@pytest.mark.exhaustive
@pytest.mark.parametrize("library", ["opentelemetry", "sentry", "ddtrace"])
def test_statements_that_a_tracing_library_sees_are_bound(url: URL, todos: None, library: str) -> None:
    script = Path(__file__).parents[1] / "support" / "instrumented.py"
    dsn = url.render_as_string(hide_password=False)
    ended = subprocess.run(
        [sys.executable, script, library, dsn], capture_output=True, encoding="utf-8", timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "alice's bob's alice's"
