"""A pool of asyncpg for the tests of its pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from sqla_rls import BindingOptions, enforce_row_security
from tests.support.asyncpg_sessions import PIPELINE, Maker, Open


@pytest.fixture
def open_pool(url: URL, runner: asyncio.Runner) -> Iterator[Open]:
    """``open_pool(options, **connect_args)``: a factory of sessions on a pool of one connection."""
    engines = []

    def opened(options: BindingOptions = PIPELINE, **connect_args: Any) -> Maker:
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg").update_query_dict({"ssl": "disable"}),
            connect_args=connect_args,
            pool_size=1,
            max_overflow=0,
        )
        engines.append(engine)
        maker = async_sessionmaker(engine)
        enforce_row_security(maker, options=options)
        return maker

    yield opened
    for engine in engines:
        runner.run(engine.dispose())
