"""Statements that fail before, or together with, the binding that goes ahead of them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.adapt import Dumper
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import BindingError, ExpiredToken
from tests.support.clocks import Clocks
from tests.support.late_sync import LateSync, kill_before_sync
from tests.support.sessions import BACKEND, TASKS, by_transports

UNTIL_PREPARED = 5
LEVELS = ["READ COMMITTED", "AUTOCOMMIT"]
ANYTHING_ELSE = text("SELECT :value")

_STATE = text("SELECT state FROM pg_stat_activity WHERE pid = :pid")


@pytest.fixture(params=LEVELS)
def engine(request: pytest.FixtureRequest, url: URL) -> Iterator[Engine]:
    engine = create_engine(url, pool_size=1, max_overflow=0, isolation_level=request.param)
    yield engine
    engine.dispose()


def reads(maker: sessionmaker[Session], caller: Caller) -> object:
    with maker() as session:
        identify(session, caller)
        found = session.scalars(TASKS).all()
        session.commit()
    return found


def prepared(engine: Engine, transport: Transport, alice: Caller) -> sessionmaker[Session]:
    """Sessions on a connection that has prepared their statements."""
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    for _ in range(UNTIL_PREPARED):
        assert reads(maker, alice) == ["alice's"]
    return maker


class Adapted:
    """A value with a dumper of the test's own."""


def dumps_adapted(engine: Engine, dumper: type[Dumper]) -> int:
    """Let the connection of *engine* adapt such values with *dumper*; return its process id."""
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.adapters.register_dumper(Adapted, dumper)
        return int(driver_connection.info.backend_pid)


@by_transports("with_begin", "pipeline")
def test_a_caller_who_expires_breaks_no_prepared_statement(
    engine: Engine, todos: None, alice: Caller, clocks: Clocks, transport: Transport
) -> None:
    maker = prepared(engine, transport, alice)
    with maker() as session:
        identify(session, Caller(role="authenticated", subject="alice", expires_at=time.time() + 60))
        session.connection()
        clocks.ahead = 60
        with pytest.raises(ExpiredToken):
            session.execute(TASKS)
    for _ in range(3):
        assert reads(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_a_caller_who_is_refused_breaks_no_prepared_statement(
    engine: Engine, todos: None, alice: Caller, transport: Transport
) -> None:
    maker = prepared(engine, transport, alice)
    with pytest.raises(BindingError):
        reads(maker, Caller(role="nobody_has_it", subject="alice"))
    for _ in range(3):
        assert reads(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_a_statement_that_cannot_be_prepared_may_be_later(
    engine: Engine, admin: Engine, todos: None, alice: Caller, transport: Transport
) -> None:
    maker = prepared(engine, transport, alice)
    for name, other in (("todos", "gone"), ("gone", "todos")):
        with admin.begin() as connection:
            connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}"))
        if other == "gone":
            with pytest.raises(ProgrammingError, match="does not exist"):
                reads(maker, alice)
    for _ in range(3):
        assert reads(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_what_is_prepared_after_an_error_stays_prepared(
    url: URL, todos: None, alice: Caller, transport: Transport
) -> None:
    for level in LEVELS:
        engine = create_engine(
            url,
            pool_size=1,
            max_overflow=0,
            isolation_level=level,
            connect_args={"prepare_threshold": 0},
        )
        maker = prepared(engine, transport, alice)
        with maker() as session:
            identify(session, alice)
            with pytest.raises(DBAPIError, match="division by zero"):
                session.execute(text("SELECT 1 / CAST(:zero AS int)"), {"zero": 0})
            session.rollback()
            for _ in range(3):
                assert session.scalars(TASKS).all() == ["alice's"]
        engine.dispose()


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_a_typo_is_a_syntax_error(engine: Engine, todos: None, alice: Caller, transport: Transport) -> None:
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match='syntax error at or near "SELEC"') as failed:
            session.execute(text("SELEC 1"))
        assert isinstance(failed.value.orig, psycopg.errors.SyntaxError)
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
@pytest.mark.parametrize("error", ["EXECUTE 'SELEC 1'", "RAISE EXCEPTION 'SELEC' USING ERRCODE = '42601'"])
def test_a_syntax_error_of_a_function_is_its_own_and_the_function_runs_once(
    engine: Engine, admin: Engine, todos: None, alice: Caller, transport: Transport, error: str
) -> None:
    with admin.begin() as connection:
        connection.exec_driver_sql("CREATE SEQUENCE runs; GRANT USAGE ON SEQUENCE runs TO authenticated")
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    assert reads(maker, alice) == ["alice's"]
    with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="SELEC") as failed:
            session.execute(text(f"DO $$ BEGIN PERFORM nextval('runs'); {error}; END $$"))
        assert isinstance(failed.value.orig, psycopg.errors.SyntaxError)
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]
    with admin.connect() as connection:
        assert connection.scalar(text("SELECT last_value FROM runs")) == 1


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_after_a_value_that_cannot_be_sent_the_transaction_is_bound(
    engine: Engine, todos: None, alice: Caller, bob: Caller, transport: Transport
) -> None:
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    with maker() as session:
        for caller in (alice, bob):
            identify(session, caller)
            with pytest.raises(ProgrammingError, match="cannot adapt type"):
                session.execute(ANYTHING_ELSE, {"value": object()})
            assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]
            session.commit()
    with maker() as session:
        identify(session, Caller(role="nobody_has_it", subject="alice"))
        with pytest.raises(BindingError):
            session.execute(ANYTHING_ELSE, {"value": object()})
    assert reads(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@by_transports("with_begin", "pipeline")
def test_a_broken_connection_is_an_error_that_says_so(
    engine: Engine, todos: None, alice: Caller, transport: Transport
) -> None:
    maker = prepared(engine, transport, alice)
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
    with socket.socket(fileno=os.dup(driver_connection.pgconn.socket)) as broken:
        broken.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OperationalError, match="server closed the connection unexpectedly"):
        reads(maker, alice)
    assert reads(maker, alice) == ["alice's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("copy", ["COPY (SELECT 1) TO STDOUT", "COPY copied FROM STDIN"])
def test_copy_by_execute_is_refused_and_costs_that_connection(
    engine: Engine, admin: Engine, todos: None, alice: Caller, bob: Caller, copy: str
) -> None:
    with admin.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE copied (x int); GRANT ALL ON copied TO authenticated")
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport="pipeline"))
    assert reads(maker, alice) == ["alice's"]
    with maker() as session:
        identify(session, alice)
        with pytest.raises(ProgrammingError, match="COPY cannot be used with this method"):
            session.execute(text(copy))
    assert reads(maker, bob) == ["bob's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("level", LEVELS)
def test_a_server_that_closes_the_connection_after_its_answers_says_why(
    url: URL, admin: Engine, todos: None, alice: Caller, bob: Caller, level: Any
) -> None:
    with LateSync(str(url.host), url.port or 5432) as server:
        late = url.set(host="127.0.0.1", port=server.port)
        engine = create_engine(late, pool_size=1, max_overflow=0, isolation_level=level)
        maker = prepared(engine, "pipeline", alice)
        with engine.connect() as connection:
            pid = connection.scalar(BACKEND)
        server.meanwhile = partial(kill_before_sync, admin, pid, "FROM todos")
        with pytest.raises(OperationalError, match="terminating connection due to") as ended:
            reads(maker, alice)
        assert isinstance(ended.value.orig, psycopg.errors.AdminShutdown)
        assert ended.value.connection_invalidated
        assert reads(maker, bob) == ["bob's"]
        engine.dispose()


def test_postgres_binds_while_psycopg_adapts_the_statement(
    url: URL, admin: Engine, todos: None, alice: Caller
) -> None:
    states: list[str] = []

    class SlowDumper(Dumper):
        def dump(self, obj: object) -> bytes:
            end = time.monotonic() + 10
            while states[-1:] != ["active"] and time.monotonic() < end:
                with admin.connect() as connection:
                    states.append(connection.execute(_STATE, {"pid": pid}).scalar_one())
            return b"1"

    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport="pipeline"))
    assert reads(maker, alice) == ["alice's"]
    pid = dumps_adapted(engine, SlowDumper)
    with maker() as session:
        identify(session, alice)
        assert session.execute(text("SELECT CAST(:value AS int)"), {"value": Adapted()}).scalar_one() == 1
        assert session.scalars(TASKS).all() == ["alice's"]
    engine.dispose()
    assert states[-1] == "active"


@pytest.mark.exhaustive
def test_an_interrupt_while_psycopg_adapts_the_statement_costs_that_connection(
    url: URL, todos: None, alice: Caller, bob: Caller
) -> None:
    class InterruptedDumper(Dumper):
        def dump(self, obj: object) -> bytes:
            raise KeyboardInterrupt

    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport="pipeline"))
    assert reads(maker, alice) == ["alice's"]
    pid = dumps_adapted(engine, InterruptedDumper)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(KeyboardInterrupt):
            session.execute(ANYTHING_ELSE, {"value": Adapted()})
    assert reads(maker, bob) == ["bob's"]
    assert dumps_adapted(engine, InterruptedDumper) != pid
    engine.dispose()
