"""Sessions under asyncio, with each driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from tests.support.sessions import CALLER, TASKS

AsyncSessions: TypeAlias = Callable[[Caller], AsyncSession]


@pytest.fixture
def maker(async_pool: AsyncEngine, async_transport: Transport) -> async_sessionmaker[AsyncSession]:
    maker = async_sessionmaker(async_pool, expire_on_commit=False)
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    return maker


@pytest.fixture
def sessions(maker: async_sessionmaker[AsyncSession]) -> AsyncSessions:
    """``sessions(alice)``: a session that runs as Alice."""

    def open_session(caller: Caller) -> AsyncSession:
        session = maker()
        identify(session, caller)
        return session

    return open_session


async def tasks_of(session: AsyncSession) -> list[str]:
    return list((await session.scalars(TASKS)).all())


async def caller_of(session: AsyncSession) -> tuple[str, str | None]:
    role, subject = (await session.execute(CALLER)).one()
    return role, subject
