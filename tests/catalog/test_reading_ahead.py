"""Postgres answers the longest queries of the catalog while the declarations become values."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_rls.catalog.query import reading_ahead

_LOCK = text("SELECT pg_advisory_xact_lock(1)")
_WAITS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


def _ask(connection: Connection) -> int:
    """Ask for a lock, and give up after a while."""
    connection.execute(text("SET LOCAL lock_timeout = '20s'"))
    return len(connection.execute(_LOCK).all())


def test_the_block_runs_while_postgres_works(engine: Engine) -> None:
    with engine.connect() as connection, engine.connect() as holder:
        holder.execute(_LOCK)
        with reading_ahead(connection) as start:
            found = start(lambda: _ask(connection))
            # A read that came first would never have the lock.
            holder.rollback()
            assert found() == 1


@pytest.mark.exhaustive
def test_an_error_comes_with_the_result(engine: Engine) -> None:
    with engine.connect() as connection, reading_ahead(connection) as start:
        found = start(lambda: connection.execute(text("SELECT 1 / 0")))
        with pytest.raises(DBAPIError, match="division by zero"):
            found()


def _start_and_fail(
    connection: Connection, holder: Connection, found: list[Callable[[], int]], error: BaseException
) -> None:
    """Start two reads, and fail while the first waits for the lock of *holder*."""
    with reading_ahead(connection) as start:
        found += [start(lambda: _ask(connection)) for _ in range(2)]
        while not holder.scalar(_WAITS):
            pass
        if not isinstance(error, KeyboardInterrupt):
            holder.rollback()
        raise error


@pytest.mark.exhaustive
def test_a_block_that_fails_waits_for_the_reads(engine: Engine) -> None:
    found: list[Callable[[], int]] = []
    with engine.connect() as connection, engine.connect() as holder:
        holder.execute(_LOCK)
        with pytest.raises(LookupError):
            _start_and_fail(connection, holder, found, LookupError())
        assert [read() for read in found] == [1, 1]
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.exhaustive
def test_an_interrupt_cancels_the_reads(engine: Engine) -> None:
    found: list[Callable[[], int]] = []
    with engine.connect() as connection, engine.connect() as holder:
        holder.execute(_LOCK)
        with pytest.raises(KeyboardInterrupt):
            _start_and_fail(connection, holder, found, KeyboardInterrupt())
        running, waiting = found
        with pytest.raises(DBAPIError, match="canceling statement due to user request"):
            running()
        with pytest.raises(CancelledError):
            waiting()
        connection.rollback()
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.exhaustive
def test_an_async_driver_reads_at_once(database: URL) -> None:
    pytest.importorskip("asyncpg")

    def read(connection: Connection) -> None:
        with reading_ahead(connection) as start:
            found = start(lambda: connection.scalar(text("SELECT 1")))
        assert found() == 1

    async def main() -> None:
        engine = create_async_engine(database.set(drivername="postgresql+asyncpg"))
        async with engine.connect() as connection:
            await connection.run_sync(read)
        await engine.dispose()

    asyncio.run(main())
