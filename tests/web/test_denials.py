"""What an HTTP client gets where the database denies, or fails."""

# No "from __future__ import annotations": FastAPI reads those of the endpoints.
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, insert, text
from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, enforce_row_security
from sqla_rls.fastapi import add_exception_handlers, async_session_of, bearer_caller
from sqla_rls.testing.issuer import Issuer
from tests.support.sessions import ANYTHING, Todo, all_todos
from tests.support.suite import transports
from tests.support.web import sent_by

NOT_YOURS = {"detail": "the request was denied: its caller may not read or write these rows"}
DEFERRED = """
CREATE FUNCTION denied() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM FROM hidden; RETURN NULL; END$$;
CREATE TABLE hidden ();
CREATE CONSTRAINT TRIGGER denied AFTER INSERT ON todos DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION denied();
"""


@pytest.fixture(
    params=transports(
        {
            "psycopg-pipeline": ("psycopg", "pipeline"),
            "psycopg-with_begin": ("psycopg", "with_begin"),
            "asyncpg-pipeline": ("asyncpg", "pipeline"),
            "asyncpg-with_begin": ("asyncpg", "with_begin"),
        },
        ["psycopg-pipeline", "asyncpg-pipeline"],
    )
)
def any_factory(request: pytest.FixtureRequest, url: URL) -> async_sessionmaker[AsyncSession]:
    driver, transport = request.param
    factory = async_sessionmaker(
        create_async_engine(url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
    )
    enforce_row_security(factory, options=BindingOptions(transport=transport))
    return factory


@pytest.mark.exhaustive
def test_what_the_database_denies_is_403(
    app: FastAPI,
    client: TestClient,
    issuer: Issuer,
    admin: Engine,
    caller: bearer_caller,
    any_factory: async_sessionmaker[AsyncSession],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By a policy, a privilege, the driver itself, COMMIT in the endpoint, and COMMIT after the endpoint."""
    session_dep = Depends(async_session_of(any_factory, caller))

    async def committed(session: Annotated[AsyncSession, session_dep]) -> AsyncIterator[AsyncSession]:
        yield session
        await session.commit()

    @app.post("/core")
    async def write(session: Annotated[AsyncSession, session_dep], statement: str) -> None:
        await session.execute(text(statement))
        await session.commit()

    @app.post("/orm")
    async def add(session: Annotated[AsyncSession, session_dep]) -> None:
        session.add(Todo(user_id="bob", task="bob's secret"))
        await session.flush()

    @app.post("/raw")
    async def copy(session: Annotated[AsyncSession, session_dep]) -> None:
        await session.execute(ANYTHING)
        connection: Any = (await (await session.connection()).get_raw_connection()).driver_connection
        await connection.execute("SELECT FROM hidden")

    @app.post("/late", status_code=201)
    async def late(session: Annotated[AsyncSession, Depends(committed, scope="function")]) -> None:
        await session.execute(insert(Todo).values(task="x"))

    with admin.begin() as connection:
        connection.exec_driver_sql(DEFERRED)
    alice = sent_by(issuer, "alice")
    for path, params, logged in (
        ("/core", {"statement": "INSERT INTO todos (user_id, task) VALUES ('bob', 'secret')"}, '"todos"'),
        ("/core", {"statement": "SELECT 'secret' FROM hidden"}, "table hidden"),
        ("/core", {"statement": "INSERT INTO todos (task) VALUES ('secret')"}, "table hidden"),
        ("/orm", {}, '"todos"'),
        ("/raw", {}, "table hidden"),
        ("/late", {}, "table hidden"),
    ):
        caplog.clear()
        answer = client.post(path, params=params, headers=alice)
        assert (path, answer.status_code, answer.json()) == (path, 403, NOT_YOURS)
        assert logged in caplog.text
        assert "secret" not in caplog.text
    assert all_todos(admin) == [("alice", "alice's"), ("bob", "bob's")]


def test_other_errors_of_the_database_go_where_they_went(
    app: FastAPI, client: TestClient, issuer: Issuer, session_dep: Any
) -> None:
    @app.get("/missing")
    def read(session: Annotated[Session, session_dep]) -> None:
        session.execute(text("SELECT FROM missing"))

    alice = sent_by(issuer, "alice")
    with pytest.raises(ProgrammingError, match="missing"):
        client.get("/missing", headers=alice)
    app.middleware_stack = None  # which is built from the handlers at the first request

    @app.exception_handler(SQLAlchemyError)
    def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(type(error).__name__, 418)

    assert client.get("/missing", headers=alice).json() == "ProgrammingError"
    app.middleware_stack = None

    async def answer_at_once(request: Request, error: Exception) -> JSONResponse:
        return answer(request, error)

    before = FastAPI(exception_handlers={DBAPIError: answer_at_once})
    before.include_router(app.router)
    add_exception_handlers(before)
    assert TestClient(before).get("/missing", headers=alice).status_code == 418
