"""When something breaks: an error, never another's rows; and whoever comes next is bound as ever."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import TransactionRefused
from sqla_rls.testing.postgres import Server
from sqla_rls.testing.proxy import Proxy
from tests.support.line import How, Line, hows
from tests.support.sessions import (
    BACKEND,
    CALLER,
    NOBODY,
    TASKS,
    UNTOUCHED,
    Base,
    Step,
    Todo,
    all_todos,
    kill,
)
from tests.support.suite import table

T = TypeVar("T")


class ListenerFailed(Exception):
    """The application's own listener has."""


class Client(Line):
    """An application with a pool of one connection, through *proxy*."""

    def __init__(self, proxy: Proxy, url: URL, how: How, runner: asyncio.Runner) -> None:
        self.proxy = proxy
        # asyncpg complains, on stderr, when it is cancelled while it asks for TLS.
        query = {"ssl": "disable"} if how.driver == "asyncpg" else {}
        url = url.set(port=proxy.port).update_query_dict(query)
        super().__init__(url, how, runner, engine_options={"pool_timeout": 0.2}, on_bind=on_bind)


CLIENTS = [
    "psycopg, with_begin",
    "psycopg, pipeline",
    "psycopg, statement",
    "psycopg, asyncio, pipeline",
    "asyncpg, with_begin",
    "asyncpg, pipeline",
    "asyncpg, statement",
]


@pytest.fixture(params=hows(CLIENTS))
def client(request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner, todos: None) -> Iterator[Client]:
    with Proxy(str(url.host), url.port or 5432) as proxy:
        client = Client(proxy, url, request.param, runner)
        yield client
        client.hang_up()


#: What fails once, when it is called.
failing: set[str] = set()


def fail(name: str) -> None:
    if name in failing:
        failing.remove(name)
        raise ListenerFailed(name)


def on_bind(*_: object) -> None:
    fail("on_bind")


def assert_all_is_well(client: Client, alice: Caller, bob: Caller) -> None:
    """On the connection that the fault left, or the one that takes its place."""
    for caller in (bob, alice):
        assert client.visit(caller, lambda session: session.scalars(TASKS).all()) == [f"{caller.subject}'s"]
        assert client.raw(lambda connection: connection.execute(CALLER).one()) == NOBODY
        assert client.raw(lambda connection: connection.scalar(text("SHOW role"))) == "none"


def assert_alice_goes_on(
    client: Client, alice: Caller, bob: Caller, *, after: Callable[[Session], None]
) -> None:
    """She rolls back what *after* has broken, and reads her own rows in the same session."""

    def work(session: Session) -> None:
        after(session)
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]

    client.visit(alice, work)
    assert_all_is_well(client, alice, bob)


# Connections that break

Fault = Callable[[Client, Engine, "int | None"], None]


def kill_backend(client: Client, admin: Engine, backend: int | None) -> None:
    kill(admin, backend)


def drop_connection(client: Client, admin: Engine, backend: int | None) -> None:
    client.proxy.drop()


@pytest.fixture(
    params=[kill_backend, pytest.param(drop_connection, marks=pytest.mark.exhaustive)],
    ids=["killed", "dropped"],
)
def fault(request: pytest.FixtureRequest) -> Fault:
    fault: Fault = request.param
    return fault


def test_before_a_transaction(
    client: Client, fault: Fault, admin: Engine, alice: Caller, bob: Caller
) -> None:
    fault(client, admin, client.visit(alice, lambda session: session.scalar(BACKEND)))

    def work(session: Session) -> None:
        with pytest.raises(DBAPIError) as lost:
            session.scalars(TASKS)
        assert lost.value.connection_invalidated
        with pytest.raises(SQLAlchemyError):
            session.scalars(TASKS)
        session.rollback()
        assert session.scalars(TASKS).all() == ["bob's"]

    client.visit(bob, work)
    assert_all_is_well(client, alice, bob)


def close(connection: Connection) -> None:
    """By its driver, whatever SQLAlchemy thinks of it."""
    driver_connection: Any = connection.connection.driver_connection
    if hasattr(driver_connection, "pgconn"):
        driver_connection.pgconn.finish()
    else:
        driver_connection.terminate()


@pytest.mark.exhaustive
def test_one_that_was_closed_in_the_pool(client: Client, alice: Caller, bob: Caller) -> None:
    client.raw(close)
    with suppress(DBAPIError):  # unless the pool has noticed by itself
        client.visit(alice, lambda session: session.scalars(TASKS).all())
    assert_all_is_well(client, alice, bob)


@pytest.mark.exhaustive
def test_one_that_is_closed_once_it_is_bound(client: Client, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        close(session.connection())
        with pytest.raises(DBAPIError):
            session.scalars(TASKS)

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.exhaustive
def test_between_the_binding_and_the_first_statement(
    client: Client, fault: Fault, admin: Engine, alice: Caller, bob: Caller
) -> None:
    pid = client.raw(lambda connection: connection.scalar(BACKEND))

    def work(session: Session) -> None:
        session.connection()  # bound, or about to be
        fault(client, admin, pid)
        for _ in range(2):
            with pytest.raises(SQLAlchemyError):
                session.scalars(TASKS)

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.exhaustive
def test_in_a_transaction(client: Client, fault: Fault, admin: Engine, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        session.execute(insert(Todo).values(task="lost"))
        with session.begin_nested():
            fault(client, admin, session.scalar(BACKEND))
            with pytest.raises(DBAPIError):
                session.scalars(TASKS)

    with pytest.raises(SQLAlchemyError):  # the savepoint is gone, too
        client.visit(alice, work)
    assert_all_is_well(client, alice, bob)
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
def test_before_a_commit(client: Client, fault: Fault, admin: Engine, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        session.execute(insert(Todo).values(task="lost"))
        fault(client, admin, session.scalar(BACKEND))
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
        assert session.execute(CALLER).one() == ("authenticated", "alice")

    client.visit(alice, work)
    assert_all_is_well(client, alice, bob)
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
def test_an_idle_transaction_that_the_server_ends(client: Client, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 20"))
        time.sleep(0.3)
        with pytest.raises(DBAPIError):
            session.scalars(TASKS)

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.exhaustive
def test_a_connection_that_stalls(client: Client, alice: Caller, bob: Caller) -> None:
    """Nothing comes back, and nothing says so, until the application or the network gives up."""

    def work(session: Session) -> None:
        session.execute(CALLER)
        client.proxy.stall()
        breaks = threading.Timer(0.3, client.proxy.drop)
        breaks.start()
        with pytest.raises(SQLAlchemyError):
            session.scalars(TASKS)
        breaks.join()
        client.proxy.recover()

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.exhaustive
def test_who_gives_up_waiting_for_a_connection_that_stalls(
    client: Client, alice: Caller, bob: Caller
) -> None:
    if not client.how.is_async:
        pytest.skip("a thread can't be interrupted")

    async def give_up() -> None:
        async with client.maker() as session:
            identify(session, alice)
            await session.execute(CALLER)
            client.proxy.stall()
            # Also what a driver sends to cancel the statement doesn't arrive.
            asyncio.get_running_loop().call_later(0.5, client.proxy.drop)
            async with asyncio.timeout(0.2):
                await session.execute(TASKS)

    with pytest.raises((TimeoutError, SQLAlchemyError)):
        client.runner.run(give_up())
    client.proxy.recover()
    assert_all_is_well(client, alice, bob)


# Too few connections


@pytest.mark.exhaustive
def test_who_gets_no_connection_waits_and_is_told(client: Client, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        held = client.engine.connect()
        with pytest.raises(PoolTimeout):
            session.scalars(TASKS)
        held.close()

    assert_alice_goes_on(client, alice, bob, after=work)


# Listeners of the application's own


@table("name", ["after_begin", "on_bind", "begin", "checkout", "reset"])
@pytest.mark.exhaustive
def test_a_listener_that_fails(client: Client, admin: Engine, alice: Caller, bob: Caller, name: str) -> None:
    listened: Any = client.engine
    if name == "after_begin":
        listened = client.maker.kw["sync_session_class"] if client.how.is_async else client.maker.class_
    if name != "on_bind":
        event.listen(listened, name, lambda *_: fail(name))

    def work(session: Session) -> None:
        failing.add(name)
        session.execute(insert(Todo).values(task="lost"))
        assert session.execute(CALLER).one() == ("authenticated", "alice")
        session.rollback()

    try:
        client.visit(alice, work)
    except ListenerFailed:
        assert name != "reset"  # SQLAlchemy logs that one, and gives up the connection
    assert not failing
    assert_all_is_well(client, alice, bob)
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.sqlalchemy
@pytest.mark.exhaustive
def test_a_listener_that_fails_ahead_of_the_hook_refuses_the_transaction(
    client: Client, alice: Caller, bob: Caller
) -> None:
    listened = client.maker.kw["sync_session_class"] if client.how.is_async else client.maker.class_
    event.listen(listened, "after_begin", lambda *_: fail("after_begin"), insert=True)

    def work(session: Session) -> None:
        failing.add("after_begin")
        with pytest.raises(ListenerFailed):
            session.scalars(TASKS)
        with pytest.raises(TransactionRefused):
            session.execute(CALLER)
        with pytest.raises(TransactionRefused):
            session.connection()
        with pytest.raises(TransactionRefused), session.begin_nested():
            session.execute(CALLER)

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.sqlalchemy
@pytest.mark.exhaustive
def test_a_listener_that_fails_ahead_of_the_hook_refuses_each_connection(url: URL, alice: Caller) -> None:
    engines = [create_engine(url), create_engine(url)]
    maker = sessionmaker(binds={Todo: engines[0], Step: engines[1]})
    enforce_row_security(maker, token=lambda: alice)
    of_second: list[object] = []

    def listener(session: Session, transaction: object, connection: Connection) -> None:
        if connection.engine is engines[1]:
            of_second.append(connection)
            raise ListenerFailed

    event.listen(maker.class_, "after_begin", listener, insert=True)
    with maker() as session:
        session.scalars(select(Todo.task)).all()
        with pytest.raises(ListenerFailed):
            session.scalars(select(Step.what))
        with pytest.raises(TransactionRefused):
            session.scalars(select(Step.what))
        with pytest.raises(TransactionRefused):
            session.scalars(select(Todo.task))
    assert len(of_second) == 1
    for engine in engines:
        engine.dispose()


@pytest.mark.exhaustive
def test_a_hook_that_fails_refuses_the_transaction(client: Client, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        failing.add("on_bind")
        with pytest.raises(ListenerFailed):
            session.scalars(TASKS)
        for _ in range(2):
            with pytest.raises(TransactionRefused):
                session.scalars(TASKS)

    assert_alice_goes_on(client, alice, bob, after=work)


# What Postgres ends


@pytest.mark.exhaustive
def test_a_statement_that_takes_too_long(client: Client, alice: Caller, bob: Caller) -> None:
    def work(session: Session) -> None:
        session.execute(text("SET LOCAL statement_timeout = 20"))
        with pytest.raises(DBAPIError, match="statement timeout"):
            session.execute(text("SELECT pg_sleep(60)"))
        with pytest.raises(SQLAlchemyError):
            session.scalars(TASKS)

    assert_alice_goes_on(client, alice, bob, after=work)


@pytest.mark.exhaustive
def test_a_serialization_failure_may_be_retried(
    client: Client, admin: Engine, alice: Caller, bob: Caller
) -> None:
    def work(session: Session) -> None:
        for attempt in range(2):
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            assert session.scalars(TASKS).all() == ["alice's"]
            if attempt == 0:
                with admin.begin() as connection:
                    connection.execute(update(Todo).where(Todo.user_id == "alice").values(task="alice's"))
                with pytest.raises(DBAPIError, match="could not serialize"):
                    session.execute(update(Todo).values(task="changed"))
                session.rollback()
        changed = session.scalars(update(Todo).values(task="changed").returning(Todo.user_id)).all()
        assert changed == ["alice"]
        session.rollback()

    client.visit(alice, work)
    assert_all_is_well(client, alice, bob)


@pytest.mark.exhaustive
def test_of_two_in_a_deadlock_one_goes_on_and_one_tries_again(
    url: URL, admin: Engine, transport: Transport, alice: Caller
) -> None:
    with Session(admin) as session:
        session.add_all([Todo(user_id="alice", task=task) for task in ("first", "second")])
        session.commit()
    engine = create_engine(url, pool_size=2)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    both_have_one, one_is_done = threading.Barrier(2), threading.Event()
    deadlocks: list[DBAPIError] = []

    def work(*order: str) -> None:
        with maker() as session:
            identify(session, alice)
            try:
                for task in order:
                    session.execute(update(Todo).where(Todo.task == task).values(task=task))
                    if task == order[0]:
                        both_have_one.wait(10)
            except DBAPIError as error:
                deadlocks.append(error)
                session.rollback()
                # Else it may take what the other waits for, and both wait again.
                one_is_done.wait(10)
                assert session.execute(CALLER).one() == ("authenticated", "alice")
                session.execute(update(Todo).where(Todo.task.in_(order)).values(task=Todo.task))
            session.commit()
            one_is_done.set()

    threads = [
        threading.Thread(target=work, args=order) for order in (("first", "second"), ("second", "first"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(deadlocks) == 1
    assert "deadlock detected" in str(deadlocks[0])
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY
    engine.dispose()


# A server that crashes


@pytest.mark.exhaustive
def test_a_server_that_crashes_and_comes_back(server: Server, alice: Caller, bob: Caller) -> None:
    if server.installation is None:
        pytest.skip("needs a server of its own to crash")
    # What was committed must outlast the crash, as it doesn't on servers that only tests see.
    with Server.start(server.installation, settings={"synchronous_commit": "on"}) as own:
        superuser = create_engine(own.url(), poolclass=NullPool)
        Base.metadata.create_all(superuser)
        with superuser.begin() as connection:
            connection.execute(text("CREATE ROLE app LOGIN NOINHERIT"))
            connection.execute(text("GRANT authenticated, anonymous TO app"))
            connection.execute(
                insert(Todo).values([{"user_id": one, "task": f"{one}'s"} for one in ("alice", "bob")])
            )
        engine = create_engine(own.url(user="app"), pool_size=1, max_overflow=0)
        maker = sessionmaker(engine)
        enforce_row_security(maker)

        def tasks_of(caller: Caller, then: Callable[[], None] = lambda: None) -> list[str]:
            with maker() as session:
                identify(session, caller)
                session.scalars(TASKS)
                then()
                return list(session.scalars(TASKS))

        with engine.connect() as connection:
            backend = connection.scalar(BACKEND)
        assert backend is not None
        with pytest.raises(DBAPIError):
            # As the kernel does when memory runs out: Postgres ends all connections, and recovers.
            tasks_of(alice, lambda: os.kill(backend, signal.SIGKILL))
        deadline = time.monotonic() + 60
        while True:
            try:
                assert tasks_of(bob) == ["bob's"]
            except DBAPIError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                break
        with engine.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY
        assert tasks_of(alice) == ["alice's"]
        engine.dispose()
        superuser.dispose()
