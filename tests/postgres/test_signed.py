"""Sessions whose callers the database verifies: by pg_session_jwt, by its stand-in, by the portable functions."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from sqla_rls import ANONYMOUS, Identity, enforce_row_security, identify, service_session
from sqla_rls.ddl import CreateAuthFunctions
from sqla_rls.driver import Way
from sqla_rls.exc import BindingError, ExpiredToken, SignedBindingUnavailable, SigningKeyRejected
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.signing import Ed25519Signer, HS256Signer
from sqla_rls.testing.installation import Installation
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server, installations

from .conftest import (
    ANYTHING,
    CALLER,
    NOBODY,
    SIGNING,
    TASKS,
    Notice,
    Sessions,
    Todo,
    assert_refused,
    database_with_tables,
    kill,
    start_signing_server,
)

FUNCTIONS = "functions"
TOKEN = text("SELECT current_setting('pg_session_jwt.jwt', true)")
CLAIMS = text("SELECT auth.session()")
USER = text("SELECT auth.user_id()")


@pytest.fixture(
    scope="session",
    params=[*SIGNING, *[(FUNCTIONS, found) for found in installations()]],
    ids=lambda param: f"{param[0]}-postgres{param[1].version}",
)
def verified_by(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    name, installation = request.param
    with start_signing_server(name, installation) as server:
        yield name, server


@pytest.fixture(scope="session")
def server(verified_by: tuple[str, Server]) -> Server:
    return verified_by[1]


@pytest.fixture(scope="session")
def template(verified_by: tuple[str, Server]) -> Iterator[str]:
    name, server = verified_by
    # A schema that is there already keeps the extension out.
    before = [CreateSchema("auth"), CreateAuthFunctions(signed=True)] if name == FUNCTIONS else []
    with database_with_tables(server, *before) as database:
        yield database


@pytest.fixture
def key(verified_by: tuple[str, Server], admin: Engine) -> str | None:
    """The key of the database, where one is shared."""
    return make_key(admin) if verified_by[0] == FUNCTIONS else None


def make_key(admin: Engine, grace: float = 3600) -> str:
    with admin.begin() as connection:
        return rotate_signing_key(connection, grace=timedelta(seconds=grace))


@pytest.fixture
def by_functions(verified_by: tuple[str, Server]) -> None:
    if verified_by[0] != FUNCTIONS:
        pytest.skip("about the shared key")


@pytest.fixture
def by_extension(verified_by: tuple[str, Server]) -> None:
    if verified_by[0] == FUNCTIONS:
        pytest.skip("about the key of each connection")


@pytest.fixture
def maker(pool: Engine, way: Way, key: str | None) -> sessionmaker[Session]:
    maker = sessionmaker(pool)
    enforce_row_security(maker, way=way, binding="signed", signing_key=key)
    return maker


MESSAGE: Way = "message"
one_way = pytest.mark.parametrize("way", [MESSAGE], indirect=True)


# What a person may do


def test_each_reads_and_writes_what_is_their_own(
    sessions: Sessions, todos: None, alice: Identity, bob: Identity
) -> None:
    for person, name in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
        with sessions(person) as session:
            assert session.scalar(USER) == name
            assert session.execute(CALLER).one() == ("authenticated", name)
            assert session.scalars(TASKS).all() == [f"{name}'s"]
            session.add(Todo(task="another"))
            session.flush()
            assert session.scalars(select(Todo.user_id)).all() == [name, name]
            session.rollback()


def test_nobody_in_particular_is_signed_for_too(
    sessions: Sessions, admin: Engine, alice: Identity, todos: None
) -> None:
    with Session(admin) as owner:
        owner.add(Notice(message="hello"))
        owner.commit()
    with sessions(alice) as session:
        session.execute(
            text("SELECT set_config('pg_session_jwt.jwt', current_setting('pg_session_jwt.jwt'), false)")
        )
        session.commit()
    with sessions(ANONYMOUS) as session:
        assert session.scalars(select(Notice.message)).all() == ["hello"]
        assert session.scalar(USER) is None
        assert session.scalar(TOKEN)
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.scalars(TASKS)


def test_a_service_session_is_nobody(
    maker: sessionmaker[Session], sessions: Sessions, alice: Identity
) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
    with service_session(maker, reason="nightly report", role="authenticated") as session:
        assert session.scalar(USER) is None
        assert session.scalars(TASKS).all() == []


def test_the_claims_are_those_that_were_verified(sessions: Sessions) -> None:
    claims = {
        "org": {"id": "o1", "roles": ["admin"]},
        "iat": 5,
        "nbf": 5.5,
        "exp": 7,
        "pid": 1,
        "email": "ü@x",
    }
    with sessions(Identity(role="authenticated", subject="alice", claims=claims)) as session:
        seen = session.scalar(CLAIMS)
    for of_the_token in ("exp", "nbf", "pid", "jti"):
        claims.pop(of_the_token, None)
        seen.pop(of_the_token, None)
    assert seen == {"sub": "alice", **claims}


@one_way
def test_nothing_stays_after_the_transaction(sessions: Sessions, pool: Engine, alice: Identity) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY
        assert connection.scalar(TOKEN) in ("", None)


def test_the_token_is_used_again_while_the_same_person_stays(
    sessions: Sessions, alice: Identity, bob: Identity
) -> None:
    def token(person: Identity) -> Any:
        with sessions(person) as session:
            return session.scalar(TOKEN)

    first = token(alice)
    assert token(alice) == first
    assert token(bob) != first
    more = Identity(role="authenticated", subject="alice", claims={"admin": True})
    assert token(more) != token(alice)


def test_an_identity_ends_when_it_does_whatever_the_database_remembers(sessions: Sessions) -> None:
    expires_at = time.time() + 3
    with sessions(Identity(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
        time.sleep(max(0.0, expires_at - time.time()))
        assert_refused(session, ExpiredToken)


# Connections


@one_way
def test_each_connection_has_a_key_of_its_own(
    by_extension: None, url: URL, alice: Identity, bob: Identity, admin: Engine
) -> None:
    jwk = text("SELECT current_setting('pg_session_jwt.jwk')")
    engine = create_engine(url, pool_size=2)
    maker = sessionmaker(engine)
    enforce_row_security(maker, binding="signed")
    with maker() as first, maker() as second:
        identify(first, alice)
        identify(second, bob)
        keys = {first.scalar(jwk), second.scalar(jwk)}
        assert (first.scalar(USER), second.scalar(USER)) == ("alice", "bob")
        kill(admin, first.scalar(select(func.pg_backend_pid())))
        with pytest.raises(DBAPIError):
            first.execute(ANYTHING)
        first.rollback()
        keys.add(first.scalar(jwk))
        assert first.scalar(USER) == "alice"
        first.connection().invalidate()
        first.rollback()
        keys.add(first.scalar(jwk))
        assert first.scalar(USER) == "alice"
    engine.dispose()
    assert len(keys) == 4


@pytest.mark.parametrize("options", [{"poolclass": NullPool}, {"pool_recycle": 0}, {"pool_pre_ping": True}])
def test_any_pool_will_do(
    url: URL, key: str | None, alice: Identity, bob: Identity, options: dict[str, Any]
) -> None:
    engine = create_engine(url, **options)
    maker = sessionmaker(engine)
    enforce_row_security(maker, binding="signed", signing_key=key)
    for person in (alice, bob, alice):
        with maker() as session:
            identify(session, person)
            assert session.scalar(USER) == person.subject
    engine.dispose()


def test_threads_and_engines_do_not_meet(url: URL, key: str | None, admin: Engine) -> None:
    people = [f"user {number}" for number in range(20)]
    with Session(admin) as owner:
        owner.add_all([Todo(task=f"{name}'s", user_id=name) for name in people])
        owner.commit()
    engines = [create_engine(url, pool_size=2, max_overflow=0) for _ in range(2)]
    makers = []
    for engine in engines:
        makers.append(sessionmaker(engine))
        enforce_row_security(makers[-1], binding="signed", signing_key=key)

    def work(number: int) -> list[str]:
        name = people[number * 7 % len(people)]
        with makers[number % 2]() as session:
            identify(session, Identity(role="authenticated", subject=name))
            found = list(session.scalars(TASKS))
            session.commit()
        return [task for task in found if task != f"{name}'s"] or ([] if len(found) == 1 else [name])

    with ThreadPoolExecutor(8) as threads:
        assert not [wrong for wrongs in threads.map(work, range(200)) for wrong in wrongs]
    for engine in engines:
        engine.dispose()


def _in_child(maker: sessionmaker[Session], engine: Engine, answers: Any) -> None:
    engine.dispose(close=False)
    with maker() as session:
        identify(session, Identity(role="authenticated", subject="bob"))
        answers.put([session.scalar(USER), session.scalar(USER)])
    engine.dispose()


@one_way
def test_a_fork_signs_by_keys_of_its_own(
    maker: sessionmaker[Session], pool: Engine, sessions: Sessions, alice: Identity
) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(maker, pool, answers))
    child.start()
    assert answers.get(timeout=20) == ["bob", "bob"]
    child.join(20)
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
async def test_asyncio(
    url: URL,
    key: str | None,
    todos: None,
    alice: Identity,
    bob: Identity,
    runner: asyncio.Runner,
    driver: str,
) -> None:
    query = {"ssl": "disable"} if driver == "asyncpg" else {}
    url = url.set(drivername=f"postgresql+{driver}").update_query_dict(query)
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, binding="signed", signing_key=key)
    for person, name in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
        async with maker() as session:
            identify(session, person)
            assert await session.scalar(USER) == name
            assert (await session.scalars(TASKS)).all() == [f"{name}'s"]
            await session.commit()
    await engine.dispose()
