"""What an HTTP client gets, by the token that it sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, Text, create_engine, select, text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import (
    ANONYMOUS,
    Verifier,
    anonymous,
    auth,
    auth_uid,
    authenticated,
    crud_policy,
    enforce_row_security,
    provider,
)
from sqla_rls.fastapi import add_exception_handlers, async_session_of, bearer_identity, session_of
from sqla_rls.testing.issuer import Issuer, Key


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    user_id: Mapped[str] = mapped_column(Text, server_default=auth.user_id(), primary_key=True)
    __table_args__ = (
        crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),
        crud_policy(anonymous, read=False, modify=None),
    )


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def client(engine: Engine, issuer: Issuer) -> Iterator[TestClient]:
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES ('alice'), ('bob')"))
    verifier = Verifier(provider.stack_auth(issuer.project_id, base_url=issuer.base_url))
    app_engine = create_engine(engine.url, poolclass=NullPool)
    async_engine = create_async_engine(engine.url.set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    factory, async_factory = sessionmaker(app_engine), async_sessionmaker(async_engine)
    # The login role is the superuser of the test's server.
    enforce_row_security(factory, check_login_role=False)
    enforce_row_security(async_factory, check_login_role=False)
    caller, anybody = bearer_identity(verifier), bearer_identity(verifier, anonymous=ANONYMOUS)
    app = FastAPI()
    add_exception_handlers(app)

    @app.get("/sync")
    def read(session: Any = Depends(session_of(factory, caller))) -> list[str]:
        return list(session.scalars(select(Note.user_id)))

    @app.get("/async")
    async def read_async(session: Any = Depends(async_session_of(async_factory, caller))) -> list[str]:
        return list(await session.scalars(select(Note.user_id)))

    @app.get("/anybody")
    def read_anybody(session: Any = Depends(session_of(factory, anybody))) -> list[str]:
        return list(session.scalars(select(Note.user_id)))

    @app.get("/unidentified")
    def read_unidentified() -> list[str]:
        with factory() as session:
            return list(session.scalars(select(Note.user_id)))

    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/sync", "/async", "/anybody"])
@pytest.mark.parametrize("subject", ["alice", "bob", "carol"])
def test_callers_get_their_own_rows(client: TestClient, issuer: Issuer, path: str, subject: str) -> None:
    answer = client.get(path, headers={"Authorization": f"Bearer {issuer.token(subject)}"})
    assert answer.json() == ([] if subject == "carol" else [subject])


def test_anonymous_is_opt_in(client: TestClient) -> None:
    assert client.get("/anybody").json() == []
    for path in ("/sync", "/async"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/sync", "/async", "/anybody"])
@pytest.mark.parametrize(
    "authorization",
    [
        lambda issuer: f"Bearer {issuer.token('alice', expires_in=-3600)}",
        lambda issuer: f"Bearer {issuer.token('alice', key=Key.generate())}",
        lambda issuer: f"Bearer {issuer.token('alice', algorithm='none')}",
        lambda issuer: "Bearer garbage",
        lambda issuer: "Bearer ",
        lambda issuer: "Basic YWxpY2U6",
        lambda issuer: "",
    ],
    ids=["expired", "forged", "unsigned", "garbage", "empty token", "another scheme", "empty"],
)
def test_what_is_not_believed_is_401(
    client: TestClient, issuer: Issuer, path: str, authorization: Callable[[Issuer], str]
) -> None:
    header = authorization(issuer)
    answer = client.get(path, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "eyJ" not in answer.text


def test_keys_that_can_not_be_had_are_503(client: TestClient, issuer: Issuer) -> None:
    issuer.status = 500
    assert (
        client.get("/sync", headers={"Authorization": f"Bearer {issuer.token('alice')}"}).status_code == 503
    )


def test_an_endpoint_that_forgets_to_identify_is_401(client: TestClient) -> None:
    assert client.get("/unidentified").status_code == 401


def test_the_openapi_document_has_the_scheme(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {
        "HTTPBearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    assert document["paths"]["/sync"]["get"]["security"] == [{"HTTPBearer": []}]
