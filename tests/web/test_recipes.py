"""The apps of docs/guide: who gets what, and what the users of each framework are used to.

fastapi.md and frameworks.md show them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import httpx2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session as FlaskSession
from sqlalchemy import URL, Engine, MetaData, create_engine, event, func, insert, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel
from sqlmodel import select as sqlmodel_select
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from werkzeug.serving import make_server

from recipes import fastapi_app, flask_app, litestar_app, sqlmodel_app
from sqla_rls import (
    Caller,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    enforce_row_security,
    identify,
    service_session,
)
from sqla_rls.exc import CallerRequired
from sqla_rls.fastapi import add_exception_handlers
from sqla_rls.http import bearer_token
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.testing.postgres import Server
from tests.support.sessions import ANYTHING, CALLER, TASKS, verifier_of
from tests.support.web import sent_by

pytestmark = pytest.mark.exhaustive

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


@dataclass(frozen=True)
class Recipe:
    """An app, its tables, and the page that shows it."""

    app: ModuleType
    metadata: MetaData
    page: str
    is_async: bool = True


RECIPES = {
    "fastapi": Recipe(fastapi_app, fastapi_app.Base.metadata, "fastapi.md"),
    "flask": Recipe(flask_app, flask_app.Base.metadata, "frameworks.md", is_async=False),
    "litestar": Recipe(litestar_app, litestar_app.Todo.metadata, "frameworks.md"),
    "sqlmodel": Recipe(sqlmodel_app, SQLModel.metadata, "fastapi.md", is_async=False),
}


@pytest.fixture(params=RECIPES)
def framework(request: pytest.FixtureRequest, engine: Engine) -> str:
    """Its name; its tables are there."""
    name: str = request.param
    RECIPES[name].metadata.create_all(engine)
    return name


@pytest.fixture
def table(framework: str) -> str:
    return "todo" if framework == "sqlmodel" else "todos"


@pytest.fixture
def app_url(server: Server, database: URL, template: str) -> str:
    """Logs in as ``app``, which may do nothing itself."""
    url = server.url(database.database, user="app", password="app")
    return url.render_as_string(hide_password=False)


@pytest.fixture
def flask(app_url: str, issuer: Issuer) -> Iterator[Flask]:
    app = flask_app.create_app(app_url, verifier_of(issuer))
    yield app
    with app.app_context():
        flask_app.db.engine.dispose()


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Litestar sets up logging for the whole process."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def client(framework: str, request: pytest.FixtureRequest, issuer: Issuer) -> Iterator[httpx2.Client]:
    if framework == "flask":
        # What becomes of a header that is sent twice is up to the server.
        server = make_server("127.0.0.1", 0, request.getfixturevalue("flask"), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with httpx2.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
            yield client
        server.shutdown()
        thread.join()
        server.server_close()
        return
    url: str = request.getfixturevalue("app_url")
    recipe = RECIPES[framework]
    engine = (
        create_async_engine(url.replace("+psycopg", "+asyncpg"), poolclass=NullPool)
        if recipe.is_async
        else create_engine(url, poolclass=NullPool)
    )
    app = recipe.app.create_app(engine, verifier_of(issuer))
    with TestClient(app) as client:
        yield client


def test_everybody_has_todos_of_their_own(client: httpx2.Client, issuer: Issuer) -> None:
    alice, bob = sent_by(issuer, "alice"), sent_by(issuer, "bob")
    for headers, task in ((alice, "alice's"), (bob, "bob's"), (alice, "alice's second")):
        assert client.post("/todos", json={"task": task}, headers=headers).status_code == 201
    for _ in range(2):
        assert client.get("/todos", headers=alice).json() == ["alice's", "alice's second"]
        assert client.get("/todos", headers=bob).json() == ["bob's"]
    assert client.get("/todos").status_code == 401


def test_who_is_not_believed_gets_nothing(client: httpx2.Client, issuer: Issuer) -> None:
    alice = issuer.token("alice")
    assert client.get("/todos", headers=sent_by(issuer, "alice")).status_code == 200
    for authorization, challenge in (
        ([], 'Bearer realm="api"'),
        (["Basic YWxpY2U6"], 'Bearer realm="api"'),
        (["Bearer garbage"], 'Bearer realm="api", error="invalid_token"'),
        ([f"Bearer {alice}"] * 2, 'Bearer realm="api", error="invalid_token"'),
        ([f"Bearer {issuer.token('alice', expires_in=-3600)}"], 'Bearer realm="api", error="invalid_token"'),
        (
            [f"Bearer {issuer.token('alice', key=Key.generate())}"],
            'Bearer realm="api", error="invalid_token"',
        ),
    ):
        headers = [("Authorization", value) for value in authorization]
        for answer in (
            client.get("/todos", headers=headers),
            client.post("/todos", headers=headers, json={"task": "x"}),
        ):
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
            assert answer.json()["detail"]
            assert "eyJ" not in answer.text
    assert client.get("/todos", headers=sent_by(issuer, "alice")).json() == []


def test_without_the_providers_keys_come_back_later(client: httpx2.Client, issuer: Issuer) -> None:
    issuer.status = 500
    answer = client.get("/todos", headers=sent_by(issuer, "alice"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")


def test_what_the_database_denies_is_403(
    client: httpx2.Client, issuer: Issuer, engine: Engine, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice = sent_by(issuer, "alice")
    assert client.post("/todos", json={"task": "x"}, headers=alice).status_code == 201
    with engine.begin() as connection:
        connection.execute(
            text(f"CREATE POLICY no_more ON {table} AS RESTRICTIVE FOR INSERT WITH CHECK (false)")
        )
    for log in ("row-level security", "permission denied"):
        answer = client.post("/todos", json={"task": "my secret"}, headers=alice)
        assert (answer.status_code, list(answer.json())) == (403, ["detail"])
        assert table not in answer.text
        assert "secret" not in answer.text
        assert log in caplog.text
        with engine.begin() as connection:
            connection.execute(text(f"REVOKE INSERT ON {table} FROM authenticated"))
    assert client.get("/todos", headers=alice).json() == ["x"]


def test_other_errors_of_the_database_are_500(
    client: httpx2.Client, issuer: Issuer, engine: Engine, table: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {table}"))
    try:
        answer = client.get("/todos", headers=sent_by(issuer, "alice"))
    except DBAPIError:
        return  # Starlette's test client raises what would be a 500
    assert answer.status_code in (409, 500)  # 409: advanced-alchemy's own
    assert "SELECT" not in answer.text


def test_alembic_finds_the_models_as_they_are(framework: str, engine: Engine) -> None:
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), RECIPES[framework].metadata) == []


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_document_shows_the_app(recipe: Recipe) -> None:
    assert recipe.app.__file__ is not None
    assert f"```python\n{Path(recipe.app.__file__).read_text()}```\n" in (GUIDE / recipe.page).read_text()


# Starlette


def test_a_starlette_endpoint_runs_as_its_caller(url: URL, todos: None, issuer: Issuer) -> None:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    SessionLocal = async_sessionmaker(engine)
    enforce_row_security(SessionLocal, verifier=verifier_of(issuer))

    async def read(request: Request) -> JSONResponse:
        async with SessionLocal(token=bearer_token(request.headers.getlist("authorization"))) as session:
            return JSONResponse(list(await session.scalars(TASKS)))

    app = Starlette(routes=[Route("/todos", read)])
    add_exception_handlers(app)
    with TestClient(app) as client:
        for name in ("alice", "bob"):
            assert client.get("/todos", headers=sent_by(issuer, name)).json() == [f"{name}'s"]
        for headers in ({}, {"Authorization": "Bearer garbage"}):
            answer = client.get("/todos", headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")


# Flask-SQLAlchemy


@pytest.mark.parametrize("framework", ["flask"], indirect=True)
def test_outside_a_request_only_a_service_session_runs(framework: str, flask: Flask) -> None:
    with flask.app_context():
        with pytest.raises(RuntimeError, match="outside of request context"):
            flask_app.db.session.execute(ANYTHING)
        flask_app.db.session.remove()
        with service_session(flask_app.db.session, reason="a job", role="authenticated") as session:
            assert session.execute(CALLER).one() == ("authenticated", None)


@pytest.mark.parametrize("framework", ["flask"], indirect=True)
def test_a_removed_session_runs_as_the_next_requests_caller(
    framework: str, flask: Flask, issuer: Issuer
) -> None:
    session = flask_app.db.session
    with flask.app_context():
        for name in ("alice", "bob"):
            with flask.test_request_context(headers=sent_by(issuer, name)):
                assert session.execute(CALLER).one() == ("authenticated", name)
                session.execute(insert(flask_app.Todo).values(task=f"{name}'s"))
                session.commit()
                page = flask_app.db.paginate(select(flask_app.Todo))
                assert [todo.task for todo in page] == [f"{name}'s"]
            session.remove()
        with flask.test_request_context(), pytest.raises(CallerRequired):
            session.execute(ANYTHING)


class BoundBase(DeclarativeBase):
    pass


bound = SQLAlchemy(model_class=BoundBase)
enforce_row_security(bound.session)


class Letter(bound.Model):  # type: ignore[misc,name-defined]
    user_id: Mapped[str] = mapped_column(server_default=auth.user_id(), primary_key=True)
    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


class OldLetter(bound.Model):  # type: ignore[misc,name-defined]
    __bind_key__ = "archive"
    user_id: Mapped[str] = mapped_column(server_default=auth.user_id(), primary_key=True)
    __table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)


def test_each_of_several_databases_knows_the_caller(
    server: Server, template: str, alice: Caller, bob: Caller
) -> None:
    app = Flask(__name__)
    names = {key: server.create_database() for key in ("main", "archive")}
    app.config["SQLALCHEMY_DATABASE_URI"] = server.url(names["main"], user="app", password="app")
    app.config["SQLALCHEMY_BINDS"] = {"archive": server.url(names["archive"], user="app", password="app")}
    bound.init_app(app)
    heard: list[type] = []
    event.listen(bound.session, "after_commit", lambda session: heard.append(type(session)))
    with app.app_context():
        for key, metadata in (("main", bound.metadatas[None]), ("archive", bound.metadatas["archive"])):
            owner = create_engine(server.url(names[key]))
            metadata.create_all(owner)
            owner.dispose()
        for caller in (alice, bob):
            identify(bound.session, caller)
            bound.session.add_all([Letter(), OldLetter()])
            bound.session.commit()
            for model in (Letter, OldLetter):
                assert bound.session.scalars(select(model.user_id)).all() == [caller.subject]
            with pytest.raises(ProgrammingError, match="row-level security"):
                bound.session.execute(insert(OldLetter).values(user_id="carol"))
            bound.session.remove()
        for engine in bound.engines.values():
            engine.dispose()
    assert len(heard) == 2
    assert all(issubclass(kind, FlaskSession) for kind in heard)
    for name in names.values():
        server.drop_database(name)


# SQLModel


@pytest.mark.usefixtures("runner")
async def test_sqlmodels_own_async_session_runs_as_the_caller(
    async_pool: AsyncEngine, todos: None, alice: Caller
) -> None:
    factory = async_sessionmaker(async_pool, class_=SQLModelAsyncSession)
    enforce_row_security(factory)
    async with factory() as session:
        with pytest.raises(CallerRequired):
            await session.exec(sqlmodel_select(func.count()))
        await session.rollback()
        identify(session, alice)
        assert (await session.exec(sqlmodel_select(func.current_user()))).one() == "authenticated"
