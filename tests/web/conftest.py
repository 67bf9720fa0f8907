"""An app with an endpoint for each way to read, and its client."""

# No "from __future__ import annotations": FastAPI reads those of the endpoints.
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import Caller, Verifier, enforce_row_security
from sqla_rls.fastapi import add_exception_handlers, async_session_of, bearer_caller, session_of
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import CALLER, TASKS, verifier_of


@pytest.fixture
def verifier(issuer: Issuer) -> Verifier:
    return verifier_of(issuer)


@pytest.fixture
def caller(verifier: Verifier) -> bearer_caller:
    return bearer_caller(verifier)


@pytest.fixture
def factory(url: URL) -> Iterator[sessionmaker[Session]]:
    """Of a pool of two connections."""
    engine = create_engine(url, pool_size=2, max_overflow=0, pool_timeout=20)
    factory = sessionmaker(engine)
    enforce_row_security(factory)
    yield factory
    engine.dispose()


@pytest.fixture
def async_factory(url: URL) -> async_sessionmaker[AsyncSession]:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    factory = async_sessionmaker(engine)
    enforce_row_security(factory)
    return factory


@pytest.fixture
def app(
    verifier: Verifier,
    caller: bearer_caller,
    factory: sessionmaker[Session],
    async_factory: async_sessionmaker[AsyncSession],
) -> FastAPI:
    """An app with an endpoint for each way to read."""
    app = FastAPI()
    add_exception_handlers(app)
    anybody = bearer_caller(verifier, anonymous=Caller.anonymous())

    @app.get("/sync")
    def read(session: Annotated[Session, Depends(session_of(factory, caller))]) -> list[str]:
        return list(session.scalars(TASKS))

    @app.get("/async")
    async def read_async(
        session: Annotated[AsyncSession, Depends(async_session_of(async_factory, caller))],
    ) -> list[str]:
        return list(await session.scalars(TASKS))

    @app.get("/anybody")
    def who(session: Annotated[Session, Depends(session_of(factory, anybody))]) -> list[Any]:
        return list(session.execute(CALLER).one())

    return app


@pytest.fixture
def client(app: FastAPI, todos: None) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def session_dep(factory: sessionmaker[Session], caller: bearer_caller) -> Any:
    return Depends(session_of(factory, caller))
