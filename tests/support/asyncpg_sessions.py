"""Statements of asyncpg's sessions, and the types of their pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Integer, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from sqla_rls import BindingOptions, Caller, identify
from tests.support.sessions import TASKS

#: asyncpg refuses a number of more than 32 bits.
NUMBER = text("SELECT :number + pg_backend_pid() * 0").bindparams(bindparam("number", type_=Integer))
SLEEP = text("SELECT pg_sleep(CAST(:seconds AS float))")
PIPELINE = BindingOptions(transport="pipeline")
#: The binding of this caller is refused.
NO_ROLE = Caller(role="nobody_has_it", subject="alice")

Maker = async_sessionmaker[AsyncSession]
Open = Callable[..., Maker]


async def scalar(maker: Maker, caller: Caller, statement: Any, **values: Any) -> Any:
    async with maker() as session:
        identify(session, caller)
        found = await session.scalar(statement, values)
        await session.commit()
    return found


async def tasks(maker: Maker, caller: Caller) -> object:
    async with maker() as session:
        identify(session, caller)
        found = (await session.scalars(TASKS)).all()
        await session.commit()
    return found


async def raw(session: AsyncSession) -> Any:
    """asyncpg's own connection."""
    return (await (await session.connection()).get_raw_connection()).driver_connection


async def begin_by(session: AsyncSession, way: str) -> None:
    """Let the transaction of *session* begin in one of the ways that no message goes ahead of."""
    if way == "stream":
        assert [row.task async for row in await session.stream(TASKS)] == ["alice's"]
    elif way == "executemany":
        await session.execute(text("INSERT INTO todos (task) VALUES (:task)"), [{"task": "x"}, {"task": "y"}])
    else:
        connection = await raw(session)
        async with connection.transaction():
            assert await connection.fetchval("SELECT auth.user_id()") == "alice"
