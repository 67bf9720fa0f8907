"""RESET ALL goes with the end of a transaction, and with the next BEGIN wherever something came between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import generators
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from sqla_rls import Caller
from sqla_rls.driver import asyncpg_base, psycopg_base
from tests.support.line import HOWS, Line, hows
from tests.support.sessions import ANYTHING, TASKS, Todo

LEAVE = text("SELECT set_config('statement_timeout', '4321', false)")
TIMEOUT = text("SHOW statement_timeout")

#: The transports that reset at the end.
AT_END = [
    name
    for name, how in HOWS.items()
    if (not how.autocommit and how.transport == "pipeline") or name == "psycopg, with_begin"
]


@pytest.fixture(params=hows(AT_END, always=["psycopg, asyncio, pipeline"]))
def line(request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner, alice: Caller) -> Iterator[Line]:
    line = Line(url, request.param, runner)
    # The first transaction of a connection resets in any case.
    line.visit(alice, lambda session: session.execute(ANYTHING))
    yield line
    line.hang_up()


def leave(end: Callable[[Session], None]) -> Callable[[Session], None]:
    def work(session: Session) -> None:
        session.execute(LEAVE)
        end(session)

    return work


def begins(line: Line) -> list[str]:
    """What has gone ahead of the last transaction's first statement, but its binding."""
    return line.raw(lambda connection: _ahead(connection.connection.driver_connection))


def _ahead(driver_connection: Any) -> list[str]:
    if hasattr(driver_connection, "_flush"):
        return [statement.decode() for statement, _ in driver_connection._flush.ahead[:-1]]
    sent = driver_connection._ahead._statements
    return [word for word in ("RESET ALL", "ISOLATION LEVEL") if word.encode() in sent]


def timeout(line: Line, caller: Caller) -> object:
    return line.visit(caller, lambda session: session.scalar(TIMEOUT))


@pytest.mark.parametrize(
    "end", [Session.commit, pytest.param(Session.rollback, marks=pytest.mark.exhaustive)]
)
def test_the_next_transaction_needs_no_reset(
    line: Line, todos: None, alice: Caller, bob: Caller, end: Callable[[Session], None]
) -> None:
    line.visit(alice, leave(end))
    assert timeout(line, bob) == "0"
    if line.how.transport == "pipeline":
        assert begins(line) in ([], ["BEGIN"])


@pytest.mark.exhaustive
def test_the_server_has_nothing_of_the_last_caller_while_the_connection_waits(
    line: Line, admin: Engine, alice: Caller
) -> None:
    pid = line.visit(alice, lambda session: session.scalar(text("SELECT pg_backend_pid()")))
    line.visit(alice, leave(Session.commit))
    with admin.connect() as connection:
        last = connection.scalar(text("SELECT query FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid})
    assert last in ("COMMIT; RESET ALL", "ROLLBACK; RESET ALL")


@pytest.mark.exhaustive
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_what_is_set_between_two_sessions_is_reset(
    line: Line, alice: Caller, bob: Caller, level: str
) -> None:
    def between(connection: Connection) -> None:
        connection.execution_options(isolation_level=level).execute(LEAVE)
        connection.commit()

    for _ in range(2):
        line.visit(alice, lambda session: session.execute(ANYTHING))
        line.raw(between)
        assert timeout(line, bob) == "0"


@pytest.mark.exhaustive
def test_what_a_ping_of_the_pool_comes_before_is_reset(
    url: URL, runner: asyncio.Runner, alice: Caller, bob: Caller
) -> None:
    for name in AT_END:
        line = Line(url, HOWS[name], runner, engine_options={"pool_pre_ping": True})
        line.visit(alice, leave(Session.commit))
        assert timeout(line, bob) == "0"
        line.hang_up()


@pytest.mark.exhaustive
def test_a_transaction_that_can_not_commit_is_an_error_and_the_next_one_resets(
    line: Line, admin: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    with admin.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE todos ADD CONSTRAINT once UNIQUE (user_id, task) DEFERRABLE INITIALLY DEFERRED"
        )

    def twice(session: Session) -> None:
        session.execute(LEAVE)
        session.add_all([Todo(task="alice's")])
        with pytest.raises(IntegrityError, match="once"):
            session.commit()

    line.visit(alice, twice)
    assert timeout(line, bob) == "0"
    assert line.visit(alice, lambda session: session.scalars(TASKS).all()) == ["alice's"]


@pytest.mark.exhaustive
def test_a_reset_that_fails_does_not_undo_the_commit_and_goes_with_the_next_begin(
    line: Line, monkeypatch: pytest.MonkeyPatch, todos: None, alice: Caller, bob: Caller
) -> None:
    def add(session: Session) -> None:
        session.execute(LEAVE)
        session.add(Todo(task="another"))
        session.commit()

    with monkeypatch.context() as failing:
        failing.setattr(psycopg_base, "_ENDS", {b"COMMIT": b"COMMIT; SELECT 1/0"})
        failing.setattr(asyncpg_base, "RESET", "SELECT 1/0")
        line.visit(alice, add)

    assert timeout(line, bob) == "0"
    if line.how.transport == "pipeline":
        assert "RESET ALL" in begins(line)
    assert line.visit(alice, lambda session: session.scalars(TASKS).all()) == ["alice's", "another"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("text_that_ends", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
def test_a_transaction_that_sql_text_has_ended_is_reset_by_the_next_begin(
    line: Line, alice: Caller, bob: Caller, text_that_ends: str
) -> None:
    def work(session: Session) -> None:
        session.execute(text("SET default_transaction_isolation = 'serializable'"))
        session.execute(text(text_that_ends))
        session.rollback()

    line.visit(alice, work)
    isolation = text("SHOW transaction_isolation")
    assert line.visit(bob, lambda session: session.scalar(isolation)) == "read committed"


@pytest.mark.exhaustive
def test_a_server_that_does_not_answer_the_commit_is_an_error_of_the_driver(
    url: URL, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch, alice: Caller, bob: Caller
) -> None:
    def unanswered(pgconn: object) -> Iterator[None]:
        return iter(())

    line = Line(url, HOWS["psycopg, pipeline"], runner)

    def work(session: Session) -> None:
        session.execute(LEAVE)
        with monkeypatch.context() as patched:
            patched.setattr(generators, "execute", unanswered)
            with pytest.raises(DBAPIError, match="hasn't answered"):
                session.commit()
        session.invalidate()

    line.visit(alice, work)
    assert timeout(line, bob) == "0"
    line.hang_up()
