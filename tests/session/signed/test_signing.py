"""Whether callers are signed, and with which key."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.exc import DeclarationError
from sqla_rls.session.options import Signing
from sqla_rls.session.row_security_session import RowSecuritySession
from tests.support.sessions import TASKS
from tests.support.verified import TOKEN, USER, make_key, signed_sessions


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
