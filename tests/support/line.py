"""One connection and who comes to it in turns, whatever the driver and however they are bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from _pytest.mark import ParameterSet
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from tests.support.suite import transports

T = TypeVar("T")


class How(NamedTuple):
    """How both are bound."""

    driver: str
    transport: Transport
    is_async: bool = False
    autocommit: bool = False


HOWS = {
    "psycopg, with_begin": How("psycopg", "with_begin"),
    "psycopg, pipeline": How("psycopg", "pipeline"),
    "psycopg, one-shot": How("psycopg", "pipeline", autocommit=True),
    "psycopg, statement": How("psycopg", "statement"),
    "psycopg, asyncio, with_begin": How("psycopg", "with_begin", is_async=True),
    "psycopg, asyncio, pipeline": How("psycopg", "pipeline", is_async=True),
    "psycopg, asyncio, one-shot": How("psycopg", "with_begin", is_async=True, autocommit=True),
    "asyncpg, with_begin": How("asyncpg", "with_begin", is_async=True),
    "asyncpg, pipeline": How("asyncpg", "pipeline", is_async=True),
    "asyncpg, one-shot": How("asyncpg", "pipeline", is_async=True, autocommit=True),
    "asyncpg, statement": How("asyncpg", "statement", is_async=True),
}


def hows(names: Iterable[str] = HOWS, *, always: Iterable[str] = ()) -> list[ParameterSet]:
    """Parameters: those of *names* that this run tries; each run tries those of *always*."""
    wanted = ["psycopg, pipeline", "asyncpg, pipeline", *always]
    return transports({name: HOWS[name] for name in names}, wanted)


class Line:
    """One connection, and who comes to it in turns."""

    def __init__(
        self,
        url: URL,
        how: How,
        runner: asyncio.Runner,
        connect_args: Mapping[str, Any] | None = None,
        engine_options: Mapping[str, Any] | None = None,
        *,
        signing_key: str | None = None,
        settings: Mapping[str, str] | None = None,
        on_bind: Callable[..., object] | None = None,
        **options: Any,
    ) -> None:
        self.how, self.runner = how, runner
        url = url.set(drivername=f"postgresql+{how.driver}")
        arguments: dict[str, Any] = {
            "pool_size": 1,
            "max_overflow": 0,
            "connect_args": dict(connect_args or {}),
            **(engine_options or {}),
        }
        if how.autocommit:
            arguments["isolation_level"] = "AUTOCOMMIT"
        enforced: dict[str, Any] = {
            "signing_key": signing_key,
            "settings": settings,
            "on_bind": on_bind,
            "options": BindingOptions(transport=how.transport, **options),
        }
        if how.is_async:
            self.async_engine = create_async_engine(url, **arguments)
            self.engine = self.async_engine.sync_engine
            self.maker: Any = async_sessionmaker(self.async_engine)
        else:
            self.engine = create_engine(url, **arguments)
            self.maker = sessionmaker(self.engine)
        enforce_row_security(self.maker, **enforced)

    def visit(self, who: Caller, work: Callable[[Session], T]) -> T:
        if self.how.is_async:
            return self.runner.run(self._visit(who, work))
        session: Session
        with self.maker() as session:
            identify(session, who)
            return work(session)

    async def _visit(self, who: Caller, work: Callable[[Session], T]) -> T:
        session: AsyncSession
        async with self.maker() as session:
            identify(session, who)
            return await session.run_sync(work)

    def raw(self, work: Callable[[Connection], T]) -> T:
        """What *work* returns of a connection of the engine that is no session's."""
        if self.how.is_async:
            return self.runner.run(self._raw(work))
        with self.engine.connect() as connection:
            return work(connection)

    async def _raw(self, work: Callable[[Connection], T]) -> T:
        async with self.async_engine.connect() as connection:
            return await connection.run_sync(work)

    def hang_up(self) -> None:
        """Let the next one have a new connection."""
        if self.how.is_async:
            self.runner.run(self.async_engine.dispose())
        else:
            self.engine.dispose()
