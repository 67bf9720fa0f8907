"""Sessions whose callers the database verifies: by pg_session_jwt, a stand-in, or the portable functions."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import jwt
import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

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
from sqla_rls.exc import (
    DeclarationError,
    ExpiredToken,
    SignedBindingUnavailable,
    SigningKeyRejected,
    TransactionRefused,
)
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.session.options import Signing
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from sqla_rls.tokens.signing import RENEWAL, Ed25519Signer, HS256Signer
from tests.support.base64url import decoded, part
from tests.support.clocks import Clocks
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
    by_transports,
    database_with_tables,
    kill,
    on_signing_servers,
    start_signing_server,
)
from tests.support.suite import table

FUNCTIONS = "functions"
TOKEN = text("SELECT current_setting('pg_session_jwt.jwt', true)")
CLAIMS = text("SELECT auth.session()")
USER = text("SELECT auth.user_id()")
VERIFIERS: list[Any] = on_signing_servers(FUNCTIONS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try each test with all that verify a signature, or with those that it is about."""
    for about in ("by_functions", "by_extension"):
        if about in metafunc.fixturenames:
            servers = [
                one for one in VERIFIERS if (one.values[0][0] == FUNCTIONS) == (about == "by_functions")
            ]
            break
    else:
        servers = VERIFIERS
    if "verified_by" in metafunc.fixturenames:
        metafunc.parametrize("verified_by", servers, indirect=True, scope="session")


@pytest.fixture(scope="session")
def verified_by(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    name, version = request.param
    with start_signing_server(name, version) as server:
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
def by_functions() -> None:
    """For a test about the shared key."""


@pytest.fixture
def by_extension() -> None:
    """For a test about the key of each connection."""


@pytest.fixture
def maker(pool: Engine, transport: Transport, key: str | None) -> sessionmaker[Session]:
    maker = sessionmaker(pool)
    enforce_row_security(
        maker, signing_key=key, options=BindingOptions(transport=transport, signing="required")
    )
    return maker


MESSAGE: Transport = "with_begin"
by_one_transport = by_transports(MESSAGE)


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


def test_a_session_in_autocommit_signs_as_long_as_it_lasts(
    by_functions: None, pool: Engine, key: str, alice: Caller, clocks: Clocks
) -> None:
    maker = sessionmaker(pool.execution_options(isolation_level="AUTOCOMMIT"))
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    with maker() as session:
        identify(session, alice)
        first = session.scalar(TOKEN)
        clocks.ahead = RENEWAL
        assert session.scalar(TOKEN) != first
        assert session.scalar(USER) == "alice"


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


# What an attacker tries, who injects SQL as Alice


def of_whom(session: Session) -> str | None:
    """Who the database takes the caller for; "refused" if it raises."""
    try:
        with session.begin_nested():
            user: str | None = session.scalar(USER)
            return user
    except (DBAPIError, SigningKeyRejected, TransactionRefused):
        return "refused"


def forged(subject: str, kind: str, session: Session) -> str:
    """A token of *subject* as good as an attacker can make it."""
    claims = {"sub": subject, "jti": 10**9, "exp": int(time.time()) + 600}
    if kind == "by a key of one's own, Ed25519":
        return Ed25519Signer().token(claims, "", time.time() + 600)
    if kind == "by a key of one's own, HS256":
        return HS256Signer("A" * 43, None).token(claims, "", None)
    if kind == "unsigned":
        return jwt.encode(claims, "", "none")
    header, payload, signature = session.scalar(TOKEN).split(".")
    own = json.loads(decoded(payload))
    another = part(json.dumps({**own, "sub": subject}).encode())
    if kind == "with one's own signature":
        return f"{header}.{another}.{signature}"
    return f"{header}.{another}."


FORGERIES = [
    *("by a key of one's own, Ed25519", "by a key of one's own, HS256", "unsigned"),
    *("with one's own signature", "without a signature"),
]


@pytest.mark.exhaustive
@by_one_transport
def test_no_forged_token_is_believed(sessions: Sessions, alice: Caller, bob: Caller) -> None:
    for kind in FORGERIES:
        for local in (True, False):
            with sessions(alice) as session:
                token = forged("bob", kind, session)
                session.execute(
                    text("SELECT set_config('pg_session_jwt.jwt', :token, :local)"),
                    {"token": token, "local": local},
                )
                assert of_whom(session) == "refused", kind
                session.commit()
            with sessions(bob) as session:
                assert session.scalar(USER) == "bob", kind


INJECTED = [
    """SELECT set_config('request.jwt.claims', '{"sub":"bob"}', true)""",
    """SELECT set_config('request.jwt.claims', '{"sub":"bob"}', false)""",
    """SET LOCAL request.jwt.claims = '{"sub":"bob"}'""",
    "RESET request.jwt.claims",
    "SET pg_session_jwt.jwt = ''",
    "SET LOCAL pg_session_jwt.jwt = ''",
    "RESET pg_session_jwt.jwt",
    "RESET ALL",
    "RESET ROLE",
    "SET ROLE anonymous",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SET search_path = pg_temp",
    "CREATE TEMPORARY TABLE signing_key (slot int)",
    "CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (false)",
    "CREATE DOMAIN pg_temp.jsonb AS pg_catalog.jsonb CHECK (false)",
    "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS 'SELECT $1'",
    "SET debug_print_plan = on",
    "SET plan_cache_mode = force_generic_plan",
]


@pytest.mark.exhaustive
@by_one_transport
def test_no_setting_makes_another_person(sessions: Sessions, todos: None, alice: Caller, bob: Caller) -> None:
    for statement in INJECTED:
        for after in ([], INJECTED[:1]):
            with sessions(alice) as session:
                for injected in [statement, *after]:
                    with suppress(DBAPIError, TransactionRefused), session.begin_nested():
                        session.execute(text(injected.replace(":", r"\:")))
                assert of_whom(session) in ("alice", None, "refused"), statement
                with suppress(DBAPIError, TransactionRefused):
                    assert "bob's" not in session.scalars(TASKS).all(), statement
                    session.commit()
            with sessions(bob) as session:
                assert session.scalar(USER) == "bob", statement
                assert session.scalars(TASKS).all() == ["bob's"], statement


@pytest.mark.exhaustive
@pytest.mark.parametrize("fresh", [True, False])
def test_nobody_changes_the_key_of_a_connection(
    by_extension: None, sessions: Sessions, alice: Caller, fresh: bool
) -> None:
    # Until a function of the extension is called, the setting isn't the extension's yet.
    mallory = Ed25519Signer()
    with sessions(alice) as session:
        if not fresh:
            assert session.scalar(USER) == "alice"
        for statement in (
            "SELECT set_config('pg_session_jwt.jwk', :jwk, false)",
            "SELECT set_config('pg_session_jwt.jwk', :jwk, true)",
        ):
            with suppress(DBAPIError), session.begin_nested():
                session.execute(text(statement), {"jwk": mallory.jwk})
        token = mallory.token({"sub": "bob", "jti": 5}, "", None)
        session.execute(text("SELECT set_config('pg_session_jwt.jwt', :token, true)"), {"token": token})
        assert of_whom(session) == "refused"


@pytest.mark.exhaustive
@by_one_transport
def test_an_earlier_token_is_refused_once_a_later_one_was_read(
    by_extension: None, sessions: Sessions, alice: Caller, bob: Caller
) -> None:
    with sessions(bob) as session:
        stolen = session.scalar(TOKEN)
        assert session.scalar(USER) == "bob"
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
        session.execute(text("SELECT set_config('pg_session_jwt.jwt', :token, true)"), {"token": stolen})
        assert of_whom(session) == "refused"


@pytest.mark.exhaustive
def test_a_token_of_another_connection_is_refused(
    url: URL, key: str | None, alice: Caller, bob: Caller
) -> None:
    engine = create_engine(url, pool_size=2)
    maker = sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    with maker() as session, maker() as another:
        identify(session, alice)
        identify(another, bob)
        stolen = another.scalar(TOKEN)
        assert another.scalar(USER) == "bob"
        for read_first in (False, True):
            if read_first:
                assert session.scalar(USER) == "alice"
            with session.begin_nested():
                session.execute(
                    text("SELECT set_config('pg_session_jwt.jwt', :token, true)"), {"token": stolen}
                )
                assert of_whom(session) == "refused"
                session.execute(text("SELECT set_config('pg_session_jwt.jwt', '', true)"))
            session.rollback()
    engine.dispose()


@pytest.mark.exhaustive
@table("driver", ["psycopg", "asyncpg"])
async def test_no_statement_shows_a_token(
    url: URL, key: str | None, admin: Engine, runner: asyncio.Runner, driver: str
) -> None:
    query = {"ssl": "disable"} if driver == "asyncpg" else {}
    engine = create_async_engine(
        url.set(drivername=f"postgresql+{driver}").update_query_dict(query), pool_size=1, max_overflow=0
    )
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    seen: set[str] = set()
    done = threading.Event()

    def poll() -> None:
        query = text(
            "SELECT query FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()"
        )
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not done.is_set():
                seen.update(connection.scalars(query))

    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(poll)
        for number in range(300):
            async with maker() as session:
                identify(session, Caller(role="authenticated", subject=f"user {number}"))
                await session.scalar(USER)
                await session.commit()
        done.set()
        polling.result()
    await engine.dispose()
    assert any("set_config" in statement for statement in seen)
    assert not [statement for statement in seen if "eyJ" in statement]


# Where it can't be


def refusal(
    maker: sessionmaker[Session], match: str, error: type[Exception] = SignedBindingUnavailable
) -> None:
    with maker() as session:
        identify(session, Caller(role="authenticated", subject="alice"))
        assert_refused(session, error, match)


def signed_sessions(engine: Engine, key: Any = None) -> sessionmaker[Session]:
    maker = sessionmaker(engine)
    enforce_row_security(maker, signing_key=key, options=BindingOptions(signing="required"))
    return maker


def test_without_the_key_it_says_so(by_functions: None, pool: Engine, key: str, alice: Caller) -> None:
    refusal(signed_sessions(pool), "SQLA_RLS_SIGNING_KEY")
    auto = sessionmaker(pool)
    enforce_row_security(auto)
    refusal(auto, "signed callers only.*SQLA_RLS_SIGNING_KEY", SigningKeyRejected)


@table("wrong", ["A" * 43, "not base64!", "c2hvcnQ"])
def test_with_another_key_it_says_so(by_functions: None, pool: Engine, key: str, wrong: str) -> None:
    refusal(signed_sessions(pool, wrong), "rotate-key", SigningKeyRejected)


def test_a_database_that_lost_its_key_is_noticed(
    by_functions: None, pool: Engine, key: str, admin: Engine
) -> None:
    with admin.begin() as connection:
        connection.execute(text("TRUNCATE sqla_rls_secret.signing_key"))
    refusal(signed_sessions(pool, key), "no signing key, as after a restore", SigningKeyRejected)
    auto = sessionmaker(pool)
    enforce_row_security(auto)
    refusal(auto, "no signing key, as after a restore", SigningKeyRejected)


@pytest.mark.exhaustive
def test_a_key_lost_while_sessions_run_is_noticed(
    by_functions: None, sessions: Sessions, admin: Engine, alice: Caller
) -> None:
    with sessions(alice) as session:
        assert session.scalar(USER) == "alice"
    make_key(admin, grace=0)
    with sessions(alice) as session, pytest.raises(SigningKeyRejected, match="the application's signature"):
        session.execute(TASKS)


@pytest.fixture
def another_database(server: Server) -> Iterator[URL]:
    """One of that server, where nothing verifies."""
    with database_with_tables(server, CreateSchema("auth")) as name:
        yield server.url(name, user="app", password="app")


@pytest.mark.exhaustive
def test_where_nothing_verifies_it_says_what_to_install(another_database: URL) -> None:
    engine = create_engine(another_database)
    refusal(signed_sessions(engine), "op.create_auth_functions")
    # Who has a key wants it to count.
    auto = sessionmaker(engine)
    enforce_row_security(auto, signing_key="A" * 43)
    refusal(auto, "op.create_auth_functions")
    engine.dispose()


def test_a_key_of_somebody_elses_is_no_key(by_extension: None, url: URL) -> None:
    jwk = Ed25519Signer().jwk
    signings: list[Signing] = ["required", "auto", "off"]
    for signing in signings:
        engine = create_engine(url, connect_args={"options": f"-c pg_session_jwt.jwk={jwk}"})
        maker = sessionmaker(engine)
        enforce_row_security(maker, options=BindingOptions(signing=signing))
        refusal(maker, "isn't this connection's")
        engine.dispose()


def test_a_connection_of_the_applications_making_has_no_key(by_extension: None, url: URL) -> None:
    engine = create_engine(
        url, creator=lambda: psycopg.connect(host=url.host, port=url.port, user="app", dbname=url.database)
    )
    refusal(signed_sessions(engine), "creator")
    engine.dispose()


@pytest.mark.exhaustive
def test_a_role_that_may_not_use_the_schema_is_refused_if_it_must_be_signed(
    pool: Engine, key: str | None, admin: Engine
) -> None:
    with admin.begin() as connection:
        connection.execute(text("REVOKE USAGE ON SCHEMA auth FROM authenticated"))
    refusal(signed_sessions(pool, key), "may not use schema auth.*a superuser must")


@pytest.mark.exhaustive
def test_a_pooler_that_drops_the_key_is_told_apart(
    by_extension: None, pgbouncer: None, url: URL, todos: None, alice: Caller
) -> None:
    with PgBouncer(url, pool_size=2) as bouncer:
        engine = create_engine(bouncer.url, connect_args=CONNECT_ARGS["psycopg"])
        refusal(signed_sessions(engine), "pooler.*Connect to the server directly")
        auto = sessionmaker(engine)
        enforce_row_security(auto)
        with auto() as session:
            identify(session, alice)
            assert session.scalars(TASKS).all() == ["alice's"]
        engine.dispose()


def test_nobody_is_bound_by_less_where_startup_parameters_fail(by_extension: None, url: URL) -> None:
    engine = create_engine(url)
    maker = sessionmaker(engine)
    enforce_row_security(maker)

    @event.listens_for(engine, "do_connect")
    def refuse(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
        if "options" in cparams:
            cparams["user"] = "nobody_such"

    for _ in range(2):
        with maker() as session:
            identify(session, Caller(role="authenticated", subject="alice"))
            with pytest.raises(DBAPIError, match="nobody_such"):
                session.execute(TASKS)
    engine.dispose()


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


def test_claims_are_bound_where_that_is_said(by_extension: None, pool: Engine, alice: Caller) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker, options=BindingOptions(signing="off"))
    with maker() as session:
        identify(session, alice)
        assert session.scalar(USER) == "alice"
        assert not session.scalar(TOKEN)


@pytest.mark.parametrize("signing", ["off", "required"])
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
    key: str,
    todos: None,
    runner: asyncio.Runner,
    driver: str,
) -> None:
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
                    await session.commit()

        await asyncio.gather(*[work(name) for name in ("alice", "bob") * 3])
        await engine.dispose()
