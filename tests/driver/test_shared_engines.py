"""An engine with bound sessions stays as the application made it, also for others on it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, func, select, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from tests.support.psycopg_statements import raw
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS, Sessions, by_transports, kill

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

CARRIED = by_transports("with_begin", "pipeline")


@pytest.fixture
def shared(maker: sessionmaker[Session], pool: Engine, sessions: Sessions, alice: Caller) -> Engine:
    """An engine that sessions of people use, too."""
    with sessions(alice) as session:
        session.execute(ANYTHING)
    return pool


@pytest.mark.exhaustive
@CARRIED
def test_others_on_the_engine_find_psycopg_as_ever(shared: Engine) -> None:
    with shared.connect() as connection:
        connection.exec_driver_sql("SET application_name = 'x'; SELECT 1")
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, psycopg.Connection)
        assert driver_connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        with pytest.raises(psycopg.ProgrammingError, match="autocommit"):
            driver_connection.autocommit = True
        connection.rollback()
        assert connection.scalar(text("SHOW application_name")) == ""
        connection.commit()
        with driver_connection.transaction():
            driver_connection.execute("SET LOCAL application_name = 'y'")
        assert connection.execute(CALLER).one() == NOBODY
    with shared.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET application_name = 'stays'"))
        connection.rollback()
        assert connection.scalar(text("SHOW application_name")) == "stays"
        connection.execute(text("RESET application_name"))
    with shared.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"
        assert connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"


def test_an_application_keeps_a_cursor_class_of_its_own(url: URL, todos: None, alice: Caller) -> None:
    engine = create_engine(url, poolclass=NullPool, connect_args={"cursor_factory": psycopg.ClientCursor})
    maker = sessionmaker(engine)
    enforce_row_security(maker)
    with maker() as session:
        identify(session, alice)
        assert isinstance(raw(session).cursor(), psycopg.ClientCursor)
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_application_may_provide_passwords_as_it_connects(
    url: URL, todos: None, alice: Caller, when: str
) -> None:
    engine = create_engine(url.set(password="of yesterday"), poolclass=NullPool)
    maker = sessionmaker(engine)
    if when == "after":
        enforce_row_security(maker, options=BindingOptions(transport="with_begin"))

    @event.listens_for(engine, "do_connect")
    def provide_password(dialect: object, record: object, cargs: object, cparams: dict[str, Any]) -> None:
        cparams["password"] = url.password

    if when == "before":
        enforce_row_security(maker, options=BindingOptions(transport="with_begin"))
    with maker() as session:
        identify(session, alice)
        assert type(raw(session)) is not psycopg.Connection
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_pre_ping_goes_before_the_binding(admin: Engine, url: URL, todos: None, alice: Caller) -> None:
    engine = create_engine(url, pool_pre_ping=True, pool_size=1, max_overflow=0)
    for transport in ("with_begin", "pipeline"):
        maker = sessionmaker(engine)
        enforce_row_security(maker, options=BindingOptions(transport=transport))
        for _ in range(2):
            with maker() as session:
                identify(session, alice)
                backend = session.scalar(select(func.pg_backend_pid()))
                assert session.scalars(TASKS).all() == ["alice's"]
            kill(admin, backend)
    engine.dispose()


def test_an_engine_that_was_not_known_is_used_the_same(url: URL, todos: None, alice: Caller) -> None:
    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker()
    enforce_row_security(maker, options=BindingOptions(transport="with_begin"))
    kinds = []
    for _ in range(2):
        with maker(bind=engine) as session:
            identify(session, alice)
            assert session.scalars(TASKS).all() == ["alice's"]
            kinds.append(type(raw(session)))
        engine.dispose()
    assert kinds[0] is psycopg.Connection
    assert kinds[1] is not psycopg.Connection


def test_a_transaction_in_progress_is_bound_by_a_statement(
    maker: sessionmaker[Session], pool: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY
        for caller in (alice, bob):
            with maker(bind=connection) as session:
                identify(session, caller)
                assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]
