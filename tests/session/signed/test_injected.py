"""What an attacker tries who injects SQL as Alice."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import jwt
import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import SigningKeyRejected, TransactionRefused
from sqla_rls.tokens.signing import Ed25519Signer, HS256Signer
from tests.support.base64url import decoded, part
from tests.support.sessions import TASKS, Sessions
from tests.support.suite import table
from tests.support.verified import TOKEN, UNSIGNED, USER, by_one_transport


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
                with suppress(DBAPIError, SigningKeyRejected, TransactionRefused):
                    assert "bob's" not in session.scalars(TASKS).all(), statement
                    session.commit()
            with sessions(bob) as session:
                assert session.scalar(USER) == "bob", statement
                assert session.scalar(UNSIGNED) == "", statement
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
    has_seen_a_binding, done = threading.Event(), threading.Event()

    def poll() -> None:
        query = text(
            "SELECT query FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()"
        )
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not done.is_set():
                seen.update(connection.scalars(query))
                if any("set_config" in statement for statement in seen):
                    has_seen_a_binding.set()

    with ThreadPoolExecutor(1) as threads:
        polling = threads.submit(poll)
        # On a busy machine, the poll may come in time for few of the bindings.
        for number in range(20_000):
            async with maker() as session:
                identify(session, Caller(role="authenticated", subject=f"user {number}"))
                await session.scalar(USER)
                await session.commit()
            if number >= 300 and has_seen_a_binding.is_set():
                break
        done.set()
        polling.result()
    await engine.dispose()
    assert has_seen_a_binding.is_set()
    assert not [statement for statement in seen if "eyJ" in statement]
