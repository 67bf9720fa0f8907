"""With reset="all" nothing at all of the last person is there for the next, and nothing stays prepared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify, service_session
from sqla_rls.exc import BindingError, UnsupportedTransaction
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from sqla_rls.testing.proxy import Proxy
from tests.support.line import HOWS, How, Line, hows
from tests.support.sessions import ANYTHING, TASKS

WITH_BEGIN = [name for name, how in HOWS.items() if how.transport != "statement"]
#: Only DISCARD ALL ends it.
LOCK = text("SELECT pg_advisory_lock(20261124) IS NULL")
LOCKS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")


@pytest.fixture(params=hows(WITH_BEGIN))
def how(request: pytest.FixtureRequest) -> How:
    how: How = request.param
    return how


@pytest.fixture
def line(url: URL, how: How, runner: asyncio.Runner) -> Iterator[Line]:
    line = Line(url, how, runner, reset="all")
    yield line
    line.hang_up()


def lock(session: Session) -> None:
    session.execute(LOCK)
    session.commit()


def locks(session: Session) -> object:
    return session.scalar(LOCKS)


def use(session: Session) -> None:
    session.execute(ANYTHING)
    session.commit()


def tasks(session: Session) -> object:
    found = session.scalars(TASKS).all()
    session.commit()
    return found


def do_nothing(session: Session) -> None:
    session.connection()


def lock_and_fail(session: Session) -> None:
    never = text("SELECT pg_advisory_lock(20261124)::text, 1 / (pg_backend_pid() - pg_backend_pid())")
    with pytest.raises(DBAPIError, match="division by zero"):
        session.execute(never)


def test_what_one_leaves_is_there_for_oneself_only(
    line: Line, todos: None, alice: Caller, bob: Caller
) -> None:
    line.visit(alice, lock)
    assert line.visit(alice, locks) == 1
    assert line.visit(bob, locks) == 0
    assert line.visit(bob, tasks) == ["bob's"]


@pytest.mark.exhaustive
def test_two_that_are_anonymous_are_two(line: Line) -> None:
    line.visit(Caller.anonymous(), lock)
    assert line.visit(Caller.anonymous(), locks) == 0


@pytest.mark.exhaustive
def test_who_sends_nothing_lets_nobody_forget_to_discard(line: Line, alice: Caller, bob: Caller) -> None:
    line.visit(alice, lock)
    line.visit(bob, do_nothing)
    line.visit(bob, do_nothing)
    assert line.visit(bob, locks) == 0


@pytest.mark.exhaustive
def test_what_is_left_by_who_fails_at_once_is_discarded(line: Line, alice: Caller, bob: Caller) -> None:
    line.visit(alice, use)
    line.visit(bob, lock_and_fail)
    assert line.visit(alice, locks) == 0


@pytest.mark.exhaustive
def test_where_discarding_fails_the_connection_ends(
    line: Line, admin: Engine, alice: Caller, bob: Caller
) -> None:
    def leave(session: Session) -> None:
        lock(session)
        session.execute(text("CREATE TEMP TABLE waited_for (id text)"))
        session.commit()
        session.execute(text("SET statement_timeout = '1s'"))
        session.commit()

    line.visit(alice, leave)
    before = line.visit(bob, lambda session: session.connection().connection.driver_connection)
    with admin.begin() as connection:
        schema = connection.scalar(
            text("SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'waited_for'")
        )
        # DISCARD ALL waits to drop the table, longer than Alice's timeout.
        connection.exec_driver_sql(f"LOCK TABLE {schema}.waited_for IN ACCESS SHARE MODE")
        with pytest.raises(BindingError, match="discarded"):
            line.visit(bob, locks)
    assert line.visit(bob, locks) == 0
    assert line.visit(bob, lambda session: session.connection().connection.driver_connection) is not before


@pytest.mark.exhaustive
def test_nothing_stays_prepared(line: Line, todos: None, alice: Caller) -> None:
    for _ in range(7):
        line.visit(alice, tasks)
    statements = text("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%todos%'")
    assert line.visit(alice, lambda session: session.scalars(statements).all()) == []


def test_a_service_is_another_person(url: URL, alice: Caller) -> None:
    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(reset="all"))
    with maker() as session:
        identify(session, alice)
        lock(session)
    with service_session(maker, reason="test") as session:
        assert locks(session) == 0
    engine.dispose()


# What can't discard is refused


@pytest.mark.exhaustive
def test_a_pooler_is_refused(
    pgbouncer: None, url: URL, how: How, runner: asyncio.Runner, alice: Caller
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        line = Line(bouncer.url, how, runner, CONNECT_ARGS[how.driver], reset="all")
        with pytest.raises(UnsupportedTransaction, match="directly"):
            line.visit(alice, tasks)
        line.hang_up()


def test_a_connection_that_the_application_opens_itself_is_refused(url: URL, alice: Caller) -> None:
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(url, creator=lambda: psycopg.connect(conninfo), poolclass=NullPool)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(reset="all"))
    with maker() as session:
        identify(session, alice)
        with pytest.raises(UnsupportedTransaction, match="creator"):
            session.execute(ANYTHING)


# What it takes


@pytest.mark.exhaustive
def test_people_who_take_turns_take_these_round_trips(
    server: Server, url: URL, how: How, runner: asyncio.Runner, todos: None, alice: Caller, bob: Caller
) -> None:
    with Proxy(server.host, server.port) as proxy:
        line = Line(url.set(host=proxy.host, port=proxy.port), how, runner, reset="all")
        for who in (alice, bob) * 4:
            line.visit(who, tasks)
        # What is sent before anything can be answered is one round trip.
        proxy.set_delay(0.002)
        taken = []
        for who in (alice, alice, bob, bob):
            before = proxy.round_trips
            line.visit(who, tasks)
            taken.append(proxy.round_trips - before)
        line.hang_up()
    if how.autocommit:
        # A statement that isn't kept is prepared and executed apart.
        assert taken == ([3, 2, 3, 2] if how.driver == "asyncpg" else [2, 1, 2, 1])
    elif how.transport == "pipeline":
        assert taken == ([4, 3, 4, 3] if how.driver == "asyncpg" else [3, 2, 3, 2])
    else:
        assert taken == ([5, 4, 5, 4] if how.driver == "asyncpg" else [4, 3, 4, 3])
