"""What a connection that sends its binding with BEGIN does, whatever comes first on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, event, func, insert, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Binding, BindingTemplate
from sqla_rls.exc import BindingError, ExpiredToken
from tests.support.clocks import Clocks
from tests.support.sessions import (
    ANYTHING,
    CALLER,
    NOBODY,
    TASKS,
    Sessions,
    Todo,
    all_todos,
    by_transports,
    kill,
)
from tests.support.suite import first_and_rest, table

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

CARRIED = by_transports("with_begin", "pipeline")
WHO = "SELECT current_user::text, auth.user_id()"
ALICE = ("authenticated", "alice")


def raw(session: Session) -> Any:
    """psycopg's own connection."""
    return session.connection().connection.driver_connection


# Whatever comes first in a transaction


def by_cursor(session: Session) -> object:
    return raw(session).cursor().execute(WHO).fetchone()


def by_cursor_with_parameters(session: Session) -> object:
    return raw(session).cursor().execute(WHO + " WHERE %s", [True]).fetchone()


def by_several_statements(session: Session) -> object:
    return (
        session.connection().exec_driver_sql(f"SELECT 1; {WHO}").connection and session.execute(CALLER).one()
    )


def by_the_connection(session: Session) -> object:
    return raw(session).execute(WHO).fetchone()


def by_server_cursor(session: Session) -> object:
    with raw(session).cursor("named") as cursor:
        return cursor.execute(WHO).fetchone()


def by_stream(session: Session) -> object:
    return next(iter(list(raw(session).cursor().stream(WHO))))


def by_copy(session: Session) -> object:
    with raw(session).cursor().copy(f"COPY ({WHO}) TO STDOUT") as copy:
        (row,) = copy.rows()
        return row


def by_executemany(session: Session) -> object:
    with raw(session).cursor() as cursor:
        cursor.executemany("SELECT current_user::text, auth.user_id() WHERE %s", [[True]], returning=True)
        return cursor.fetchone()


def by_a_transaction_of_psycopgs(session: Session) -> object:
    connection = raw(session)
    with connection.transaction(force_rollback=True):
        assert connection.execute(WHO).fetchone() == ALICE
    return connection.execute(WHO).fetchone()


def by_a_pipeline_of_psycopgs(session: Session) -> object:
    connection = raw(session)
    with connection.pipeline():
        connection.execute("SELECT 1")
        cursor = connection.execute(WHO)
    return cursor.fetchone()


def by_yield_per(session: Session) -> object:
    return session.execute(CALLER, execution_options={"yield_per": 1}).one()


def by_savepoint(session: Session) -> object:
    session.begin_nested().rollback()
    return session.execute(CALLER).one()


def by_prepared_statement(session: Session) -> object:
    for _ in range(8):
        who = raw(session).execute(WHO + " WHERE %s", [True]).fetchone()
        assert who == ALICE
        session.commit()
    return session.execute(CALLER).one()


FIRST = [
    by_cursor,
    by_cursor_with_parameters,
    by_several_statements,
    by_the_connection,
    by_server_cursor,
    by_stream,
    by_copy,
    by_executemany,
    by_a_transaction_of_psycopgs,
    by_a_pipeline_of_psycopgs,
    by_yield_per,
    by_savepoint,
    by_prepared_statement,
]


@CARRIED
@first_and_rest("ways", FIRST)
def test_whatever_comes_first_is_bound(
    pool: Engine,
    sessions: Sessions,
    alice: Caller,
    ways: list[Callable[[Session], object]],
    subtests: pytest.Subtests,
) -> None:
    for first in ways:
        with subtests.test(first.__name__):
            pool.dispose()
            with sessions(alice) as session:
                session.execute(ANYTHING)
                session.rollback()
                for _ in range(2):
                    assert first(session) == ALICE
                    session.commit()
            with pool.connect() as connection:
                assert connection.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
@CARRIED
def test_nothing_is_sent_for_who_does_nothing(pool: Engine, sessions: Sessions, alice: Caller) -> None:
    for end in (Session.commit, Session.rollback, Session.close):
        with sessions(alice) as session:
            session.connection()
            end(session)
        with pool.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
@CARRIED
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "ABORT", "END"])
def test_a_transaction_that_sql_ends_is_followed_by_one_that_is_bound(
    sessions: Sessions, todos: None, alice: Caller, end: str
) -> None:
    with sessions(alice) as session:
        session.execute(ANYTHING)
        session.execute(text(end))
        assert session.execute(CALLER).one() == ALICE
        assert session.scalars(TASKS).all() == ["alice's"]


@CARRIED
@table(
    "options",
    [
        {"isolation_level": "SERIALIZABLE"},
        {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True, "postgresql_deferrable": True},
    ],
)
def test_the_characteristics_of_a_transaction_stay_its_own(
    sessions: Sessions, alice: Caller, options: dict[str, Any]
) -> None:
    shown = {
        "isolation_level": "transaction_isolation",
        "postgresql_readonly": "transaction_read_only",
        "postgresql_deferrable": "transaction_deferrable",
    }
    with sessions(alice) as session:
        connection = session.connection(execution_options=options)
        for name, wanted in options.items():
            value = connection.scalar(text(f"SHOW {shown[name]}"))
            assert value == ("on" if wanted is True else str(wanted).lower())
        session.commit()
        assert session.scalar(text("SHOW transaction_isolation")) == "read committed"
        assert session.scalar(text("SHOW transaction_read_only")) == "off"


@CARRIED
def test_set_transaction_comes_too_late_and_says_so(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        with pytest.raises(DBAPIError, match="must be called before any query"):
            session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        session.rollback()
        session.execute(text("SET TRANSACTION READ ONLY"))
        assert session.execute(CALLER).one() == ALICE


@CARRIED
def test_errors_of_a_statement_are_its_own(sessions: Sessions, todos: None, alice: Caller) -> None:
    with sessions(alice) as session:
        for statement, match in (
            ("SELECT 1 / 0", "division by zero"),
            ("SELEC 1", "syntax error"),
            ("SELECT nothing", "does not exist"),
            ("SELECT 1 / :zero", "division by zero"),
        ):
            with pytest.raises(DBAPIError, match=match):
                session.execute(text(statement), {"zero": 0} if ":zero" in statement else {})
            with pytest.raises(DBAPIError, match="aborted"):
                session.execute(ANYTHING)
            session.rollback()
            assert session.scalars(TASKS).all() == ["alice's"]
            session.commit()
        with pytest.raises(ProgrammingError, match="row-level security"):
            session.execute(insert(Todo).values(user_id="bob", task="forged"))


@pytest.mark.exhaustive
@CARRIED
def test_values_arrive_as_they_are(sessions: Sessions) -> None:
    subject = "o'hare \\ \\' $$ %s :x ä€😀 \" {} ; --"
    with sessions(Caller(role="authenticated", subject=subject)) as session:
        assert session.scalar(text("SELECT auth.user_id()")) == subject
        session.execute(text("SET standard_conforming_strings = off"))
        session.commit()
        assert session.scalar(text("SELECT auth.user_id()")) == subject
        session.execute(text("SET standard_conforming_strings = on"))
        session.commit()


# A binding that fails


@CARRIED
def test_a_binding_that_fails_runs_nothing_and_leaves_the_connection_clean(
    admin: Engine, pool: Engine, sessions: Sessions, todos: None, alice: Caller
) -> None:
    names: list[Callable[[Session], object]] = [
        lambda session: session.execute(insert(Todo).values(task="x")),
        lambda session: session.connection().exec_driver_sql("INSERT INTO todos (task) VALUES ('x')"),
        lambda session: session.begin_nested() and session.execute(ANYTHING),
    ]
    for first in names:
        with sessions(Caller(role="nobody_has_it", subject="alice")) as session:
            with pytest.raises(BindingError, match="no such role"):
                first(session)
            with pytest.raises(SQLAlchemyError):
                session.execute(ANYTHING)
            with suppress(SQLAlchemyError):
                # Ends the failed transaction; the next one fails as well.
                session.execute(text("ROLLBACK"))
            with pytest.raises((BindingError, SQLAlchemyError)):
                session.execute(ANYTHING)
            session.rollback()
            with pytest.raises(BindingError, match="no such role"):
                first(session)
        with sessions(alice) as session:
            assert session.scalars(TASKS).all() == ["alice's"]
        with pool.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY
    assert len(all_todos(admin)) == 2


@pytest.mark.exhaustive
@CARRIED
def test_a_connection_that_breaks_is_no_failed_binding(
    admin: Engine, sessions: Sessions, alice: Caller
) -> None:
    with sessions(alice) as session:
        backend = session.scalar(select(func.pg_backend_pid()))
        session.commit()
        kill(admin, backend)
        with pytest.raises(DBAPIError) as broken:
            session.execute(ANYTHING)
        assert broken.value.connection_invalidated
        session.rollback()
        assert session.execute(CALLER).one() == ALICE


@CARRIED
def test_a_caller_that_expires_before_the_first_statement_is_refused(
    pool: Engine, sessions: Sessions, clocks: Clocks
) -> None:
    expires_at = time.time() + 60
    with sessions(Caller(role="authenticated", subject="alice", expires_at=expires_at)) as session:
        session.execute(ANYTHING)
        session.commit()
        session.connection()
        clocks.ahead = 60
        for _ in range(2):
            with pytest.raises(ExpiredToken):
                session.execute(CALLER)
    with pool.connect() as connection:
        assert connection.execute(CALLER).one() == NOBODY


# Others on the same engine


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


@CARRIED
@pytest.mark.parametrize("encoding", ["EUC_TW", "MULE_INTERNAL"])
def test_an_encoding_that_python_lacks_is_not_the_next_callers(
    sessions: Sessions, todos: None, alice: Caller, bob: Caller, encoding: str
) -> None:
    with sessions(alice) as session:
        with suppress(Exception):
            # psycopg can't read the answer.
            raw(session).pgconn.exec_(f"SET client_encoding = '{encoding}'".encode())
        with suppress(Exception):
            session.commit()
    with sessions(bob) as session:
        assert session.scalars(TASKS).all() == ["bob's"]


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


# asyncpg


def test_a_binding_shows_no_claims() -> None:
    assert "secret" not in repr(
        Binding(
            role="authenticated",
            values=['{"sub":"secret"}'],
            template=BindingTemplate(names=("request.jwt.claims",)),
        )
    )
