"""One connection and who comes to it in turns, whatever the driver and however they are bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from _pytest.mark import ParameterSet
from sqlalchemy import URL, Executable, create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import Identity, enforce_row_security, identify
from sqla_rls.driver.base import Way
from tests.suite import transports

T = TypeVar("T")


class How(NamedTuple):
    """How both are bound."""

    driver: str
    way: Way
    is_async: bool = False
    autocommit: bool = False


HOWS = {
    "psycopg, message": How("psycopg", "message"),
    "psycopg, pipeline": How("psycopg", "pipeline"),
    "psycopg, one-shot": How("psycopg", "pipeline", autocommit=True),
    "psycopg, statement": How("psycopg", "statement"),
    "psycopg, asyncio, message": How("psycopg", "message", is_async=True),
    "psycopg, asyncio, pipeline": How("psycopg", "pipeline", is_async=True),
    "psycopg, asyncio, one-shot": How("psycopg", "message", is_async=True, autocommit=True),
    "asyncpg, message": How("asyncpg", "message", is_async=True),
    "asyncpg, statement": How("asyncpg", "statement", is_async=True),
}


def hows(names: Iterable[str] = HOWS) -> list[ParameterSet]:
    """Parameters: those of *names* that this run tries."""
    return transports({name: HOWS[name] for name in names}, ["psycopg, pipeline", "asyncpg, message"])


class Line:
    """One connection, and who comes to it in turns."""

    def __init__(
        self,
        url: URL,
        how: How,
        runner: asyncio.Runner,
        connect_args: Mapping[str, Any] | None = None,
        engine_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.how, self._runner = how, runner
        url = url.set(drivername=f"postgresql+{how.driver}")
        settings: dict[str, Any] = {
            "pool_size": 1,
            "max_overflow": 0,
            "connect_args": dict(connect_args or {}),
            **(engine_options or {}),
        }
        if how.autocommit:
            settings["isolation_level"] = "AUTOCOMMIT"
        if how.is_async:
            self.async_engine = create_async_engine(url, **settings)
            self.engine = self.async_engine.sync_engine
            self._async_maker = async_sessionmaker(self.async_engine)
            enforce_row_security(self._async_maker, way=how.way, **options)
        else:
            self.engine = create_engine(url, **settings)
            self._maker = sessionmaker(self.engine)
            enforce_row_security(self._maker, way=how.way, **options)

    def visit(self, who: Identity, work: Callable[[Session], T]) -> T:
        if self.how.is_async:
            return self._runner.run(self._visit(who, work))
        with self._maker() as session:
            identify(session, who)
            return work(session)

    async def _visit(self, who: Identity, work: Callable[[Session], T]) -> T:
        async with self._async_maker() as session:
            identify(session, who)
            return await session.run_sync(work)

    def unbound(self, statement: Executable) -> object:
        """What *statement* says on a connection of the engine that is no session's."""
        if self.how.is_async:
            return self._runner.run(self._unbound(statement))
        with self.engine.connect() as connection:
            return connection.scalar(statement)

    async def _unbound(self, statement: Executable) -> object:
        async with self.async_engine.connect() as connection:
            return await connection.scalar(statement)

    def hang_up(self) -> None:
        """Let the next one have a new connection."""
        if self.how.is_async:
            self._runner.run(self.async_engine.dispose())
        else:
            self.engine.dispose()
