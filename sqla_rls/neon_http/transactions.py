"""The ends of transactions: the connection is cleaned, or closed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from sqla_rls.driver import psycopg as driver
from sqla_rls.driver.base import NotDiscarded
from sqla_rls.driver.psycopg_text import StatementFailed, finish


def driver_connection(connection: AsyncConnection) -> Any:
    """Return the connection of the driver."""
    # get_raw_connection() returns the same, by way of a greenlet.
    assert connection.sync_connection is not None
    return connection.sync_connection.connection.driver_connection


async def commit(connection: AsyncConnection, bound: driver.AsyncConnection) -> None:
    """Commit the transaction, and clean the connection or close it."""
    try:
        await finish(bound, commit=True)
    except NotDiscarded:
        await abandon(connection)


async def undo(connection: AsyncConnection, bound: driver.AsyncConnection) -> None:
    """Roll the transaction back, and clean the connection or close it."""
    # It is active if a result wasn't read to its end.
    if bound.pgconn.transaction_status != psycopg.pq.TransactionStatus.ACTIVE:
        with suppress(psycopg.Error, StatementFailed, NotDiscarded):
            await finish(bound, commit=False)
            return
    await abandon(connection)


async def abandon(connection: AsyncConnection) -> None:
    """Close the connection, and cancel a statement that is in progress."""
    if connection.invalidated:
        return
    raw = driver_connection(connection)
    if isinstance(raw, driver.AsyncConnection) and not raw.closed:
        with suppress(psycopg.Error):
            await raw.cancel_safe(timeout=2.0)
    await connection.invalidate()
