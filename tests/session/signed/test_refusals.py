"""Where callers can't be signed, and what to do there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import CreateSchema

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import SignedBindingUnavailable, SigningKeyRejected
from sqla_rls.session.options import Signing
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from sqla_rls.tokens.signing import Ed25519Signer
from tests.support.sessions import TASKS, Sessions, assert_refused, database_with_tables
from tests.support.suite import table
from tests.support.verified import USER, make_key, signed_sessions


def refusal(
    maker: sessionmaker[Session], match: str, error: type[Exception] = SignedBindingUnavailable
) -> None:
    with maker() as session:
        identify(session, Caller(role="authenticated", subject="alice"))
        assert_refused(session, error, match)


def test_without_the_key_it_says_so(by_functions: None, pool: Engine, key: str, alice: Caller) -> None:
    refusal(signed_sessions(pool), "SQLA_RLS_SIGNING_KEY")
    auto = sessionmaker(pool)
    enforce_row_security(auto)
    refusal(auto, "signed callers only.*SQLA_RLS_SIGNING_KEY", SigningKeyRejected)


@pytest.mark.exhaustive
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


def test_the_first_key_is_noticed_while_sessions_run_without_it(
    by_functions: None, pool: Engine, admin: Engine, alice: Caller
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert session.scalar(USER) == "alice"
    make_key(admin)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(SigningKeyRejected, match="signed callers only"):
            session.execute(TASKS)
    with maker() as session:
        identify(session, Caller.anonymous())
        assert session.scalar(USER) is None


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


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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
