"""Sessions whose callers the database verifies: by pg_session_jwt, a stand-in, or the portable functions."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import (
    BindingOptions,
    Caller,
    Verifier,
    enforce_row_security,
    identify,
    jwt_claim,
    service_session,
)
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.driver.base import Transport
from sqla_rls.exc import DeclarationError, ExpiredToken
from sqla_rls.session.options import Signing
from sqla_rls.session.row_security_session import RowSecuritySession
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.tokens.signing import RENEWAL
from tests.support.clocks import Clocks
from tests.support.line import HOWS, How, Line
from tests.support.sessions import (
    ALICE_OF_MANY_GROUPS,
    ANYTHING,
    CALLER,
    GROUPS,
    NOBODY,
    TASKS,
    Document,
    Notice,
    Sessions,
    Todo,
    assert_refused,
    kill,
)
from tests.support.suite import table
from tests.support.verified import CLAIMS, TOKEN, UNSIGNED, USER, by_one_transport, make_key, signed_sessions

# What a person may do


def test_each_reads_and_writes_what_is_their_own(
    sessions: Sessions, todos: None, alice: Caller, bob: Caller
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


@pytest.mark.exhaustive
@by_one_transport
def test_the_database_sees_the_subject_of_the_claim_that_the_provider_names(
    pool: Engine, issuer: Issuer, key: str | None, transport: Transport
) -> None:
    maker = sessionmaker(pool)
    verifier = Verifier(replace(issuer.provider, subject_claim="external_id"))
    enforce_row_security(
        maker,
        verifier=verifier,
        signing_key=key,
        options=BindingOptions(transport=transport, signing="required"),
    )
    ids = [str(UUID(int=number)) for number in (1, 2)]
    for id_ in ids:
        with maker(token=issuer.token("user_2x", claims={"external_id": id_})) as session:
            assert session.scalar(USER) == id_
            assert session.scalar(select(jwt_claim("provider_sub"))) == "user_2x"
            session.add(Document(title=id_))
            session.commit()
            assert session.scalars(select(Document.title)).all() == [id_]
            assert session.scalars(select(Document.user_id)).all() == [UUID(id_)]


@pytest.mark.exhaustive
def test_nobody_in_particular_is_signed_for_too(
    sessions: Sessions, admin: Engine, alice: Caller, todos: None
) -> None:
    with Session(admin) as owner:
        owner.add(Notice(message="hello"))
        owner.commit()
    with sessions(alice) as session:
        session.execute(
            text("SELECT set_config('pg_session_jwt.jwt', current_setting('pg_session_jwt.jwt'), false)")
        )
        session.commit()
    with sessions(Caller.anonymous()) as session:
        assert session.scalars(select(Notice.message)).all() == ["hello"]
        assert session.scalar(USER) is None
        assert session.scalar(TOKEN)
        with pytest.raises(ProgrammingError, match="permission denied"):
            session.scalars(TASKS)


@pytest.mark.exhaustive
def test_a_service_session_is_nobody(maker: sessionmaker[Session], sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
    with service_session(maker, reason="nightly report", role="authenticated") as session:
        assert session.scalar(USER) is None
        assert session.scalars(TASKS).all() == []


@pytest.mark.exhaustive
def test_the_claims_are_those_that_were_verified(sessions: Sessions) -> None:
    claims = {
        "org": {"id": "o1", "roles": ["admin"]},
        "iat": 5,
        "nbf": 5.5,
        "exp": 7,
        "pid": 1,
        "email": "ü@x",
    }
    with sessions(Caller(role="authenticated", subject="alice", claims=claims)) as session:
        seen = session.scalar(CLAIMS)
    for of_the_token in ("exp", "nbf", "pid", "jti"):
        claims.pop(of_the_token, None)
        seen.pop(of_the_token, None)
    assert seen == {"sub": "alice", **claims}


@pytest.mark.exhaustive
def test_a_caller_may_have_many_claims(sessions: Sessions, todos: None, bob: Caller) -> None:
    for _ in range(2):
        with sessions(ALICE_OF_MANY_GROUPS) as session:
            assert session.scalars(TASKS).all() == ["alice's"]
            assert session.scalar(CLAIMS)["groups"] == GROUPS
        with sessions(bob) as session:
            assert session.scalars(TASKS).all() == ["bob's"]


@by_one_transport
def test_nothing_stays_after_the_transaction(sessions: Sessions, pool: Engine, alice: Caller) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY
        assert connection.scalar(TOKEN) in ("", None)


@pytest.mark.exhaustive
def test_the_token_is_used_again_while_the_same_person_stays(
    sessions: Sessions, alice: Caller, bob: Caller
) -> None:
    def token(person: Caller) -> Any:
        with sessions(person) as session:
            return session.scalar(TOKEN)

    first = token(alice)
    assert token(alice) == first
    assert token(bob) != first
    more = Caller(role="authenticated", subject="alice", claims={"admin": True})
    assert token(more) != token(alice)


@pytest.mark.exhaustive
def test_a_caller_ends_when_it_does_whatever_the_database_remembers(
    sessions: Sessions, clocks: Clocks
) -> None:
    expires_at = time.time() + 60
    with sessions(Caller(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        assert session.scalar(USER) == "alice"
        session.commit()
        clocks.ahead = 60
        assert_refused(session, ExpiredToken)


@pytest.mark.exhaustive
@by_one_transport
def test_a_direct_connection_has_no_claims_to_empty(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        driver_connection: Any = session.connection().connection.driver_connection
        assert "pg_session_jwt.jwt" in driver_connection.binding.names
        assert "request.jwt.claims" not in driver_connection.binding.names
        assert session.scalar(UNSIGNED) == ""


# Connections


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


# Which it is


@pytest.mark.exhaustive
def test_auto_takes_the_strongest_and_says_which_once(
    pool: Engine, key: str | None, alice: Caller, bob: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, signing_key=key)
    with caplog.at_level(logging.INFO, "sqla_rls"):
        for person in (alice, bob):
            with maker() as session:
                identify(session, person)
                assert session.scalar(TOKEN)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("callers are bound signed: " + ("HS256" if key else "Ed25519"))


@pytest.mark.exhaustive
def test_the_key_comes_from_the_environment(
    by_functions: None, pool: Engine, key: str, alice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLA_RLS_SIGNING_KEY", key)
    with signed_sessions(pool)() as session:
        identify(session, alice)
        assert session.scalar(USER) == "alice"


@pytest.mark.exhaustive
def test_an_empty_variable_is_no_key(pool: Engine, alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLA_RLS_SIGNING_KEY", "")
    maker = sessionmaker(pool)
    enforce_row_security(maker)
    with maker() as session:
        assert isinstance(session, RowSecuritySession)
        assert session._options.signing_key is None
        identify(session, alice)
        assert session.scalar(text("SELECT 1")) == 1


def test_the_key_may_be_read_from_the_file_that_the_command_writes(
    by_functions: None, pool: Engine, key: str, alice: Caller
) -> None:
    with signed_sessions(pool, lambda: f"{key}\n")() as session:
        identify(session, alice)
        assert session.scalar(USER) == "alice"


def test_claims_are_bound_where_that_is_said(by_extension: None, pool: Engine, alice: Caller) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(signing="off"))
    with maker() as session:
        identify(session, alice)
        assert session.scalar(USER) == "alice"
        assert not session.scalar(TOKEN)


@pytest.mark.parametrize("signing", ["off", "required"])
@pytest.mark.exhaustive
def test_a_function_that_is_the_first_to_ask_knows_the_caller(
    by_extension: None, url: URL, admin: Engine, alice: Caller, signing: Signing
) -> None:
    with admin.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION public.who() RETURNS text LANGUAGE sql STABLE SECURITY DEFINER "
                "SET search_path = pg_catalog, pg_temp AS 'SELECT auth.user_id()'"
            )
        )
    engine = create_engine(url, poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(signing=signing))
    for _ in range(2):
        with maker() as session:
            identify(session, alice)
            assert session.scalar(text("SELECT public.who()")) == "alice"


def test_the_sessions_of_an_engine_agree(pool: Engine, maker: sessionmaker[Session]) -> None:
    with pytest.raises(DeclarationError, match="engines of their own"):
        enforce_row_security(sessionmaker(pool), options=BindingOptions(signing="off"))


# The shared key


@pytest.mark.exhaustive
def test_a_key_is_rotated_without_a_transaction_refused(
    by_functions: None, url: URL, key: str, admin: Engine, todos: None
) -> None:
    keys = [key]
    engine = create_engine(url, pool_size=4)
    maker = signed_sessions(engine, lambda: keys[-1])
    done = threading.Event()

    def work(name: str) -> int:
        count = 0
        while not done.is_set():
            with maker() as session:
                identify(session, Caller(role="authenticated", subject=name))
                assert session.scalars(TASKS).all() == [f"{name}'s"]
                session.commit()
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        working = [threads.submit(work, name) for name in ("alice", "bob") * 2]
        for _ in range(5):
            time.sleep(0.1)
            new = make_key(admin)
            time.sleep(0.1)
            keys.append(new)
        done.set()
        assert all(one.result() for one in working)
    engine.dispose()


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
