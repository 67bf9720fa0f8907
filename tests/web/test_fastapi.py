"""What an HTTP client gets, by the token that it sends."""

# No "from __future__ import annotations": FastAPI reads those of the endpoints.
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Cookie, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from sqlalchemy import URL, Engine, create_engine, func, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, Verifier, enforce_row_security
from sqla_rls.exc import BindingError, CallerRequired, DeclarationError
from sqla_rls.fastapi import RowSecurity, async_session_of, bearer_caller, session_of
from sqla_rls.testing.issuer import Issuer, Key
from tests.support.clocks import Clocks
from tests.support.sessions import ANYTHING, CALLER, TASKS, Todo, all_todos, verifier_of
from tests.support.suite import first_and_rest
from tests.support.web import INVALID, MISSING, sent_by, served

# The short form


@pytest.mark.parametrize("is_async", [False, True])
def test_one_object_has_the_session_the_caller_and_the_answers(
    url: URL, todos: None, issuer: Issuer, is_async: bool
) -> None:
    engine = create_engine(url, poolclass=NullPool)
    async_engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    factory = async_sessionmaker(async_engine) if is_async else sessionmaker(engine)
    security = RowSecurity(factory, verifier_of(issuer))
    app = FastAPI()
    security.init_app(app)

    @app.get("/me")
    def me(caller: Annotated[Caller, Depends(security.caller)]) -> str | None:
        return caller.subject

    @app.get("/tasks")
    async def tasks(session: Annotated[Any, Depends(security.session)]) -> list[str]:
        found = session.scalars(TASKS)
        return list(await found if is_async else found)

    @app.get("/denied")
    async def denied(session: Annotated[Any, Depends(security.session)]) -> None:
        done = session.execute(text("DELETE FROM pg_authid"))
        if is_async:
            await done

    client = TestClient(app)
    headers = sent_by(issuer, "alice")
    assert client.get("/me", headers=headers).json() == "alice"
    assert client.get("/tasks", headers=headers).json() == ["alice's"]
    assert client.get("/denied", headers=headers).status_code == 403
    assert client.get("/tasks").status_code == 401


def test_the_short_form_takes_a_provider_and_a_factory_that_is_enforced(
    factory: sessionmaker[Session], todos: None, issuer: Issuer
) -> None:
    with pytest.raises(DeclarationError, match="already"):
        RowSecurity(factory, issuer.provider, options=BindingOptions())
    security = RowSecurity(factory, issuer.provider, anonymous=Caller.anonymous())
    app = FastAPI()

    @app.get("/who")
    def who(session: Annotated[Session, Depends(security.session)]) -> list[Any]:
        return list(session.execute(CALLER).one())

    client = TestClient(app)
    assert client.get("/who").json() == ["anonymous", None]
    assert client.get("/who", headers=sent_by(issuer, "bob")).json() == ["authenticated", "bob"]


def test_the_short_form_takes_no_other_factory(url: URL, issuer: Issuer) -> None:
    wrong: Any = scoped_session(sessionmaker(create_engine(url)))
    with pytest.raises(DeclarationError, match="a sessionmaker"):
        RowSecurity(wrong, issuer.provider)


# Who is calling


@pytest.mark.parametrize("path", ["/sync", "/async"])
def test_callers_get_their_own_rows(client: TestClient, issuer: Issuer, path: str) -> None:
    for subject, rows in (("alice", ["alice's"]), ("bob", ["bob's"]), ("carol", [])):
        assert client.get(path, headers=sent_by(issuer, subject)).json() == rows


def test_anonymous_is_opt_in(client: TestClient, issuer: Issuer) -> None:
    assert client.get("/anybody").json() == ["anonymous", None]
    assert client.get("/anybody", headers=sent_by(issuer, "alice")).json() == ["authenticated", "alice"]
    for path in ("/sync", "/async"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, MISSING)


@pytest.mark.exhaustive
def test_the_name_of_the_scheme_may_be_in_any_case(client: TestClient, issuer: Issuer) -> None:
    for scheme in ("bearer", "BEARER", "Bearer "):
        header = f"{scheme} {issuer.token('alice')}"
        assert client.get("/sync", headers={"Authorization": header}).json() == ["alice's"]


#: By what is wrong with it, a header, and how it is answered.
REFUSED: dict[str, tuple[Callable[[Issuer], list[str | bytes]], str]] = {
    "expired": (lambda issuer: [f"Bearer {issuer.token('alice', expires_in=-3600)}"], INVALID),
    "forged": (lambda issuer: [f"Bearer {issuer.token('alice', key=Key.generate())}"], INVALID),
    "unsigned": (lambda issuer: [f"Bearer {issuer.token('alice', algorithm='none')}"], INVALID),
    "garbage": (lambda issuer: ["Bearer garbage"], INVALID),
    "not ascii": (lambda issuer: ["Bearer gärbage".encode()], INVALID),
    "empty token": (lambda issuer: ["Bearer "], INVALID),
    "two in one": (
        lambda issuer: [f"Bearer {issuer.token('alice')}, Bearer {issuer.token('alice')}"],
        INVALID,
    ),
    "the same twice": (lambda issuer: [f"Bearer {issuer.token('alice')}"] * 2, INVALID),
    "basic beside it": (lambda issuer: [f"Bearer {issuer.token('alice')}", "Basic YWxpY2U6"], INVALID),
    "basic first": (lambda issuer: ["Basic YWxpY2U6", f"Bearer {issuer.token('alice')}"], INVALID),
    "basic": (lambda issuer: ["Basic YWxpY2U6"], MISSING),
    "another scheme": (lambda issuer: [f"Token {issuer.token('alice')}"], MISSING),
    "no scheme": (lambda issuer: [issuer.token("alice")], MISSING),
    "a tab": (lambda issuer: [f"Bearer\t{issuer.token('alice')}"], MISSING),
    "empty": (lambda issuer: [""], MISSING),
}


@first_and_rest("headers", REFUSED.items())
def test_what_is_not_believed_is_401(
    client: TestClient,
    issuer: Issuer,
    headers: list[tuple[str, tuple[Callable[[Issuer], list[str | bytes]], str]]],
    subtests: pytest.Subtests,
) -> None:
    for path, (name, (authorization, challenge)) in product(("/sync", "/async", "/anybody"), headers):
        with subtests.test(f"{path}, {name}"):
            sent: Any = [("Authorization", value) for value in authorization(issuer)]
            answer = client.get(path, headers=sent)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, challenge)
            assert "eyJ" not in f"{answer.headers} {answer.text}"


def test_keys_that_can_not_be_had_are_503(client: TestClient, issuer: Issuer) -> None:
    issuer.status = 500
    for path in ("/sync", "/async", "/anybody"):
        answer = client.get(path, headers=sent_by(issuer, "alice"))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert "WWW-Authenticate" not in answer.headers


@pytest.mark.exhaustive
def test_the_openapi_document_has_the_scheme(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    for path in ("/sync", "/async", "/anybody"):
        assert document["paths"][path]["get"]["security"] == [{"HTTPBearer": []}]
        # Nothing of the dependencies looks like a parameter of the endpoint.
        assert "parameters" not in document["paths"][path]["get"]


@pytest.mark.exhaustive
def test_a_dependency_of_ones_own_may_tell_who_is_calling(
    client: TestClient, app: FastAPI, factory: sessionmaker[Session], verifier: Verifier, issuer: Issuer
) -> None:
    async def from_cookie(token: Annotated[str, Cookie()] = "") -> Caller:
        return await verifier.verify_async(token)

    @app.get("/cookie")
    def read(session: Annotated[Session, Depends(session_of(factory, from_cookie))]) -> list[str]:
        return list(session.scalars(TASKS))

    refused = client.get("/cookie")
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, INVALID)
    assert client.get("/cookie", headers={"Cookie": f"token={issuer.token('bob')}"}).json() == ["bob's"]


@pytest.mark.exhaustive
def test_a_router_may_require_a_caller(
    client: TestClient, app: FastAPI, caller: bearer_caller, session_dep: Any, issuer: Issuer
) -> None:
    router = APIRouter(prefix="/router", dependencies=[Depends(caller)])

    @router.get("/static")
    def static() -> str:
        return "for those who have signed in"

    @router.get("/rows")
    def rows(session: Annotated[Session, session_dep]) -> list[str]:
        return list(session.scalars(TASKS))

    app.include_router(router)
    assert client.get("/router/static").status_code == 401
    assert client.get("/router/static", headers=sent_by(issuer, "alice")).status_code == 200
    assert client.get("/router/rows", headers=sent_by(issuer, "alice")).json() == ["alice's"]
    security = client.get("/openapi.json").json()["paths"]["/router/static"]["get"]["security"]
    assert security == [{"HTTPBearer": []}]


@pytest.mark.exhaustive
def test_a_test_may_say_who_is_calling(
    client: TestClient, app: FastAPI, caller: bearer_caller, alice: Caller
) -> None:
    app.dependency_overrides[caller] = lambda: alice
    assert client.get("/sync").json() == client.get("/async").json() == ["alice's"]


# The session


@pytest.mark.exhaustive
def test_who_does_not_commit_has_written_nothing(
    client: TestClient, app: FastAPI, admin: Engine, session_dep: Any, issuer: Issuer
) -> None:
    before = all_todos(admin)

    @app.post("/{how}")
    def write(how: str, session: Annotated[Session, session_dep]) -> None:
        session.add(Todo(task=how))
        session.flush()
        if how == "forbidden":
            raise HTTPException(403)
        if how == "broken":
            raise ZeroDivisionError
        if how == "committed":
            session.commit()

    headers = sent_by(issuer, "alice")
    assert client.post("/forbidden", headers=headers).status_code == 403
    with pytest.raises(ZeroDivisionError):
        client.post("/broken", headers=headers)
    assert client.post("/forgotten", headers=headers).status_code == 200
    assert all_todos(admin) == before
    assert client.post("/committed", headers=headers).status_code == 200
    assert all_todos(admin) == [*before, ("alice", "committed")]


@pytest.mark.exhaustive
def test_all_who_ask_within_a_request_get_the_same_session(
    client: TestClient, app: FastAPI, session_dep: Any, issuer: Issuer
) -> None:
    def count(session: Annotated[Session, session_dep]) -> Session:
        return session

    @app.get("/same")
    def same(session: Annotated[Session, session_dep], other: Annotated[Session, Depends(count)]) -> bool:
        return session is other

    assert client.get("/same", headers=sent_by(issuer, "alice")).json() is True


@pytest.mark.exhaustive
def test_a_caller_that_expires_during_the_request_is_401(
    client: TestClient, app: FastAPI, admin: Engine, session_dep: Any, issuer: Issuer, clocks: Clocks
) -> None:
    before = all_todos(admin)

    @app.post("/slow")
    def slow(session: Annotated[Session, session_dep]) -> None:
        session.execute(ANYTHING)
        session.rollback()
        clocks.ahead = 60
        session.add(Todo(task="late"))
        session.commit()

    answer = client.post("/slow", headers=sent_by(issuer, "alice", expires_in=60))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, INVALID)
    assert "expired" in answer.json()["detail"]
    assert all_todos(admin) == before


def test_an_endpoint_that_forgets_to_identify_is_401(
    client: TestClient, app: FastAPI, factory: sessionmaker[Session]
) -> None:
    @app.get("/unidentified")
    def read() -> list[str]:
        with factory() as session:
            return list(session.scalars(TASKS))

    answer = client.get("/unidentified")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, MISSING)


def test_what_is_the_servers_fault_is_left_to_its_log(
    app: FastAPI, client: TestClient, issuer: Issuer, factory: sessionmaker[Session], caller: bearer_caller
) -> None:
    def unheard_of() -> Caller:
        return Caller(role="no_such_role")

    @app.get("/unbound")
    def read(session: Annotated[Session, Depends(session_of(factory, unheard_of))]) -> None:
        session.execute(ANYTHING)

    with pytest.raises(BindingError, match="no_such_role"):
        client.get("/unbound")
    answer = TestClient(app, raise_server_exceptions=False).get("/unbound")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_only_a_factory_makes_a_session_for_each_request(
    factory: sessionmaker[Session], async_factory: async_sessionmaker[AsyncSession], caller: bearer_caller
) -> None:
    wrong: Any
    for wrong in (scoped_session(factory), async_factory, factory()):
        with pytest.raises(DeclarationError, match="takes a sessionmaker"):
            session_of(wrong, caller)
    for wrong in (factory, async_factory()):
        with pytest.raises(DeclarationError, match="takes an async_sessionmaker"):
            async_session_of(wrong, caller)


# After the endpoint has returned


@pytest.mark.exhaustive
def test_a_response_may_be_streamed_from_the_session(
    client: TestClient,
    app: FastAPI,
    async_factory: Any,
    caller: bearer_caller,
    session_dep: Any,
    issuer: Issuer,
) -> None:
    @app.get("/stream")
    def stream(session: Annotated[Session, session_dep]) -> StreamingResponse:
        return StreamingResponse(iter(session.scalars(TASKS).yield_per(1)))

    @app.get("/stream/async")
    async def stream_async(
        session: Annotated[AsyncSession, Depends(async_session_of(async_factory, caller))],
    ) -> StreamingResponse:
        async def tasks() -> AsyncIterator[str]:
            async for task in await session.stream_scalars(TASKS):
                yield task

        return StreamingResponse(tasks())

    for path in ("/stream", "/stream/async"):
        for subject in ("alice", "bob"):
            assert client.get(path, headers=sent_by(issuer, subject)).text == f"{subject}'s"


def test_a_background_task_still_runs_as_the_caller(
    client: TestClient, app: FastAPI, session_dep: Any, issuer: Issuer
) -> None:
    seen: list[str] = []

    @app.get("/background")
    def read(session: Annotated[Session, session_dep], tasks: BackgroundTasks) -> None:
        session.commit()
        tasks.add_task(lambda: seen.extend(session.scalars(TASKS)))

    client.get("/background", headers=sent_by(issuer, "alice"))
    assert seen == ["alice's"]


@pytest.mark.exhaustive
def test_nobody_goes_on_in_a_session_that_was_closed_before_the_response(
    client: TestClient, app: FastAPI, factory: sessionmaker[Session], caller: bearer_caller, issuer: Issuer
) -> None:
    refused: list[str] = []

    @app.get("/early")
    def read(
        session: Annotated[Session, Depends(session_of(factory, caller), scope="function")],
        tasks: BackgroundTasks,
    ) -> list[str]:
        def go_on() -> None:
            with pytest.raises(CallerRequired):
                session.scalars(TASKS)
            session.close()
            refused.append("refused")

        tasks.add_task(go_on)
        return list(session.scalars(TASKS))

    assert client.get("/early", headers=sent_by(issuer, "alice")).json() == ["alice's"]
    assert refused == ["refused"]


# Many at once


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_everybody_sees_their_own_rows_while_many_share_two_connections(
    url: URL,
    admin: Engine,
    issuer: Issuer,
    caller: bearer_caller,
    factory: sessionmaker[Session],
    kind: str,
) -> None:
    people = [f"person {number}" for number in range(10)]
    with Session(admin) as session:
        session.add_all(Todo(user_id=name, task=f"{name}'s") for name in people)
        session.commit()
    async_engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"), pool_size=2, max_overflow=0, pool_timeout=20
    )
    async_factory = async_sessionmaker(async_engine)
    enforce_row_security(async_factory)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await async_engine.dispose()

    app = FastAPI(lifespan=lifespan)
    # Long enough for another request to come in between.
    slow_tasks = TASKS.add_columns(func.pg_sleep(0.005))

    # A session that is still in its transaction keeps its connection until the response is made, for which
    # FastAPI needs a thread: all 40 may be waiting for a connection.
    @app.get("/sync")
    def read(session: Annotated[Session, Depends(session_of(factory, caller))]) -> list[str]:
        rows: list[str] = []
        for _ in range(2):
            with session.begin():
                rows += session.scalars(slow_tasks)
        return rows

    @app.get("/async")
    async def read_async(
        session: Annotated[AsyncSession, Depends(async_session_of(async_factory, caller))],
    ) -> list[str]:
        rows: list[str] = []
        for _ in range(2):
            async with session.begin():
                rows += await session.scalars(slow_tasks)
        return rows

    async def ask(base_url: str) -> list[list[str]]:
        limits = httpx2.Limits(max_connections=50)
        async with httpx2.AsyncClient(base_url=base_url, limits=limits, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.get(f"/{kind}", headers=sent_by(issuer, name)) for name in people * 5)
            )
        return [answer.json() for answer in answers]

    with served(app) as base_url:
        rows = asyncio.run(ask(base_url))
    assert rows == [[f"{name}'s"] * 2 for name in people * 5]
