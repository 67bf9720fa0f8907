"""Connections whose callers the database verifies: of each pool, thread, process and driver."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.tokens.signing import RENEWAL
from tests.support.clocks import Clocks
from tests.support.line import HOWS, How, Line
from tests.support.sessions import ALICE_OF_MANY_GROUPS, ANYTHING, TASKS, Sessions, Todo, kill
from tests.support.suite import table
from tests.support.verified import TOKEN, UNSIGNED, USER, by_one_transport


@pytest.mark.exhaustive
def test_each_connection_has_a_key_of_its_own(
    by_extension: None, url: URL, alice: Caller, bob: Caller, admin: Engine
) -> None:
    jwk = text("SELECT current_setting('pg_session_jwt.jwk')")
    engine = create_engine(url, pool_size=2)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(signing="required"))
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


def test_one_that_opens_after_the_extension_is_created_has_a_key(
    by_extension: None, url: URL, admin: Engine, alice: Caller
) -> None:
    with admin.begin() as connection:
        connection.execute(text("DROP EXTENSION pg_session_jwt CASCADE"))
    engine = create_engine(url, pool_size=2)
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert not session.scalar(TOKEN)
    with admin.begin() as connection:
        connection.execute(CreateAuthFunctions())
        connection.execute(text("GRANT USAGE ON SCHEMA auth TO authenticated"))
    engine.dispose()
    with maker() as first, maker() as second:
        for session in (first, second):
            identify(session, alice)
            assert session.scalar(TOKEN)
            assert session.scalar(USER) == "alice"
    engine.dispose()


@pytest.mark.exhaustive
def test_one_that_was_open_before_is_replaced(pool: Engine, key: str | None, alice: Caller) -> None:
    with pool.connect() as connection:
        before = connection.scalar(select(func.pg_backend_pid()))
    maker = sessionmaker(pool)
    enforce_row_security(maker, signing_key=key)
    backends = []
    for _ in range(3):
        with maker() as session:
            identify(session, alice)
            backends.append(session.scalar(select(func.pg_backend_pid())))
            assert session.scalar(USER) == "alice"
    with maker() as session:
        identify(session, alice)
        assert session.scalar(TOKEN)
    assert backends[0] == before != backends[1] == backends[2]


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [HOWS["psycopg, one-shot"], HOWS["asyncpg, one-shot"]])
def test_in_autocommit_the_database_verifies_each_statement(
    url: URL,
    todos: None,
    key: str | None,
    runner: asyncio.Runner,
    alice: Caller,
    bob: Caller,
    how: How,
) -> None:
    line = Line(url, how, runner, signing_key=key, signing="required")

    def work(session: Session) -> set[tuple[object, ...]]:
        return {(session.scalar(USER), *session.scalars(TASKS)) for _ in range(3)}

    for person in (alice, bob, alice):
        assert line.visit(person, work) == {(person.subject, f"{person.subject}'s")}
    line.hang_up()


@table("how", [HOWS["psycopg, one-shot"], HOWS["asyncpg, one-shot"]])
def test_a_session_in_autocommit_signs_as_long_as_it_lasts(
    by_functions: None,
    url: URL,
    key: str,
    runner: asyncio.Runner,
    alice: Caller,
    clocks: Clocks,
    how: How,
) -> None:
    line = Line(url, how, runner, signing_key=key, signing="required")

    def work(session: Session) -> None:
        first = session.scalar(TOKEN)
        clocks.ahead = RENEWAL
        assert session.scalar(TOKEN) != first
        assert session.scalar(USER) == "alice"

    line.visit(alice, work)
    line.hang_up()


@pytest.mark.exhaustive
@table("options", [{"poolclass": NullPool}, {"pool_recycle": 0}, {"pool_pre_ping": True}])
def test_any_pool_will_do(
    url: URL, key: str | None, alice: Caller, bob: Caller, options: dict[str, Any]
) -> None:
    engine = create_engine(url, **options)
    maker = sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    for person in (alice, bob, alice):
        with maker() as session:
            identify(session, person)
            assert session.scalar(USER) == person.subject
    engine.dispose()


@pytest.mark.exhaustive
def test_threads_and_engines_do_not_meet(url: URL, key: str | None, admin: Engine) -> None:
    people = [f"user {number}" for number in range(20)]
    with Session(admin) as owner:
        owner.add_all([Todo(task=f"{name}'s", user_id=name) for name in people])
        owner.commit()
    engines = [create_engine(url, pool_size=2, max_overflow=0) for _ in range(2)]
    makers = []
    for engine in engines:
        makers.append(sessionmaker(engine))
        enforce_row_security(makers[-1], signing_key=key, options=BindingOptions(signing="required"))

    def work(number: int) -> list[str]:
        name = people[number * 7 % len(people)]
        with makers[number % 2]() as session:
            identify(session, Caller(role="authenticated", subject=name))
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
        identify(session, Caller(role="authenticated", subject="bob"))
        answers.put([session.scalar(USER), session.scalar(USER)])
    engine.dispose()


@pytest.mark.exhaustive
@by_one_transport
def test_a_fork_signs_by_keys_of_its_own(
    maker: sessionmaker[Session], pool: Engine, sessions: Sessions, alice: Caller
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
    alice: Caller,
    bob: Caller,
    runner: asyncio.Runner,
    driver: str,
) -> None:
    query = {"ssl": "disable"} if driver == "asyncpg" else {}
    url = url.set(drivername=f"postgresql+{driver}").update_query_dict(query)
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    for person, name in ((alice, "alice"), (bob, "bob"), (ALICE_OF_MANY_GROUPS, "alice")):
        async with maker() as session:
            identify(session, person)
            assert await session.scalar(USER) == name
            assert (await session.scalars(TASKS)).all() == [f"{name}'s"]
            await session.commit()
    await engine.dispose()


@pytest.mark.exhaustive
@table("driver", ["psycopg", "asyncpg"])
async def test_behind_a_pooler(
    by_functions: None,
    pgbouncer: None,
    url: URL,
    admin: Engine,
    key: str,
    todos: None,
    runner: asyncio.Runner,
    driver: str,
) -> None:
    with admin.begin() as connection:
        # RESET ALL makes these claims there: a pooler drops the startup parameter that empties them.
        connection.exec_driver_sql(
            f"""ALTER DATABASE "{url.database}" SET request.jwt.claims = '{{"sub":"eve"}}'"""
        )
    with PgBouncer(url, pool_size=2) as bouncer:
        query = {"ssl": "disable"} if driver == "asyncpg" else {}
        engine = create_async_engine(
            bouncer.url.set(drivername=f"postgresql+{driver}").update_query_dict(query),
            pool_size=6,
            connect_args=CONNECT_ARGS[driver],
        )
        maker = async_sessionmaker(engine)
        enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))

        async def work(name: str) -> None:
            for _ in range(10):
                async with maker() as session:
                    identify(session, Caller(role="authenticated", subject=name))
                    assert (await session.scalars(TASKS)).all() == [f"{name}'s"]
                    assert await session.scalar(UNSIGNED) == ""
                    await session.commit()

        await asyncio.gather(*[work(name) for name in ("alice", "bob") * 3])
        await engine.dispose()
