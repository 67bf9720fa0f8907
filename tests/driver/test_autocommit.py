"""In AUTOCOMMIT each statement is bound by itself, with each driver that sends its binding ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from sqla_rls import Caller
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused, UnsupportedTransaction
from tests.support.autocommit import ONE_SHOT, backend, is_nobodys, opened, tasks
from tests.support.clocks import Clocks
from tests.support.line import Line
from tests.support.psycopg_statements import (
    WHO,
    by_copy,
    by_cursor,
    by_executemany_of_psycopg,
    by_server_cursor,
    by_stream,
    by_yield_per,
    raw,
)
from tests.support.sessions import ALICE, ANYTHING, BACKEND, CALLER, TASKS, Todo, all_todos
from tests.support.suite import transports

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]


@pytest.fixture(params=transports(ONE_SHOT, ["psycopg", "asyncpg"]))
def line(request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner) -> Iterator[Line]:
    with opened(url, request.param, runner) as line:
        yield line


def test_each_statement_is_bound_by_itself(
    line: Line, admin: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    for caller in (alice, bob):

        def work(session: Session, subject: str | None = caller.subject) -> None:
            for _ in range(2):
                assert tasks(session) == [f"{subject}'s"]
                assert session.execute(CALLER).one() == ("authenticated", subject)
                session.execute(insert(Todo).values(task="more"))
                assert len(session.scalars(TASKS).all()) == 2
                with pytest.raises(DBAPIError, match="row-level security"):
                    session.execute(insert(Todo).values(task="x", user_id="carol"))
                session.execute(text("DELETE FROM todos WHERE task = :task"), {"task": "more"})
                session.commit()

        line.visit(caller, work)
    assert is_nobodys(line)
    assert len(all_todos(admin)) == 2


def test_a_deferred_constraint_fails_with_its_statement(
    line: Line, admin: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    with admin.begin() as connection:
        connection.execute(text("ALTER TABLE todos ADD UNIQUE (task) DEFERRABLE INITIALLY DEFERRED"))

    def work(session: Session) -> object:
        with pytest.raises(IntegrityError, match="duplicate key"):
            session.execute(insert(Todo).values(task="alice's"))
        assert tasks(session) == ["alice's"]
        return backend(session)

    assert line.visit(alice, work) == line.visit(bob, backend)
    assert is_nobodys(line)


@pytest.mark.exhaustive
def test_a_connection_of_the_session_may_be_in_autocommit(
    url: URL, runner: asyncio.Runner, todos: None, alice: Caller, bob: Caller
) -> None:
    for how in ONE_SHOT.values():
        line = Line(url, how._replace(autocommit=False), runner)

        def work(session: Session) -> object:
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.add(Todo(task="another"))
            session.flush()
            found = tasks(session)
            session.rollback()
            session.execute(text("DELETE FROM todos WHERE task = 'another'"))
            session.rollback()
            assert session.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
            assert tasks(session) == found
            session.connection().execute(text("DELETE FROM todos WHERE task = 'another'"))
            session.commit()
            return found

        assert line.visit(alice, work) == ["alice's", "another"]
        assert line.visit(bob, work) == ["bob's", "another"]
        assert line.visit(bob, tasks) == ["bob's"]
        line.hang_up()


def by_a_transaction_of_psycopgs(session: Session) -> object:
    with raw(session).transaction(force_rollback=True):
        return raw(session).execute(WHO).fetchone()


def by_a_pipeline_of_psycopgs(session: Session) -> object:
    with raw(session).pipeline():
        return raw(session).execute(WHO).fetchone()


def by_executemany(session: Session) -> object:
    return session.execute(text("INSERT INTO todos (task) VALUES (:task)"), [{"task": "a"}, {"task": "b"}])


def by_several_statements(session: Session) -> object:
    return session.execute(text("SELECT 1; SELECT 2"))


def by_savepoint(session: Session) -> object:
    session.begin_nested()
    return session.execute(ANYTHING)


REFUSED_BY_PSYCOPG: list[Callable[[Session], object]] = [
    by_cursor,
    by_server_cursor,
    by_stream,
    by_copy,
    by_executemany_of_psycopg,
    by_a_transaction_of_psycopgs,
    by_a_pipeline_of_psycopgs,
]

REFUSED_BY_ALL = [by_yield_per, by_executemany, by_several_statements, by_savepoint]

#: The refusals are those of the driver, or of Postgres.
OTHERS = (
    "psycopg by_yield_per",
    "asyncpg by_several_statements",
    "psycopg by_savepoint",
    "asyncpg by_savepoint",
)


@pytest.mark.exhaustive
def test_what_cannot_be_bound_is_refused(line: Line, admin: Engine, todos: None, alice: Caller) -> None:
    ways = REFUSED_BY_ALL + (REFUSED_BY_PSYCOPG if not line.how.is_async else [])
    for way in ways:
        with pytest.raises((UnsupportedTransaction, DBAPIError)) as refused:
            line.visit(alice, way)
        assert "AUTOCOMMIT" in str(refused.value) or f"{line.how.driver} {way.__name__}" in OTHERS
        assert is_nobodys(line)
    assert len(all_todos(admin)) == 2


@pytest.mark.exhaustive
def test_what_postgres_runs_in_no_transaction_is_refused(line: Line, todos: None, alice: Caller) -> None:
    def work(session: Session) -> object:
        for statement in (
            "VACUUM",
            "CREATE DATABASE nothing",
            "DISCARD ALL",
            "REINDEX TABLE CONCURRENTLY todos",
        ):
            with pytest.raises(DBAPIError, match=r"transaction block|pipeline"):
                session.execute(text(statement))
            assert session.execute(CALLER).one() == ALICE
        return tasks(session)

    assert line.visit(alice, work) == ["alice's"]
    assert is_nobodys(line)


def test_a_binding_that_fails_runs_nothing(line: Line, admin: Engine, todos: None, bob: Caller) -> None:
    add = text("INSERT INTO todos (task, user_id) VALUES (:x, :x)")
    before = line.visit(bob, backend)

    def work(session: Session) -> None:
        for _ in range(2):
            with pytest.raises(BindingError, match="no such role"):
                session.execute(add, {"x": "x"})
            with pytest.raises(SQLAlchemyError):
                session.execute(ANYTHING)
            session.rollback()

    line.visit(Caller(role="nobody_has_it"), work)
    assert line.visit(bob, tasks) == ["bob's"]
    assert line.visit(bob, backend) == before
    assert len(all_todos(admin)) == 2


@pytest.mark.exhaustive
def test_a_role_that_is_dropped_is_refused_for_each_statement(
    line: Line, admin: Engine, todos: None, bob: Caller
) -> None:
    role = f"dropped_{uuid4().hex}"
    new = text("SELECT 'new'")
    with admin.begin() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role}")
        connection.exec_driver_sql(f"GRANT {role} TO app")
    before = line.visit(bob, backend)

    def work(session: Session) -> None:
        assert session.scalar(text("SELECT current_user::text")) == role
        with admin.begin() as connection:
            connection.exec_driver_sql(f"DROP ROLE {role}")
        for statement in (BACKEND, new, new, BACKEND):
            with pytest.raises(BindingError, match="no such role"):
                session.execute(statement)

    line.visit(Caller(role=role), work)
    assert line.visit(bob, tasks) == ["bob's"]
    assert line.visit(bob, backend) == before


@pytest.mark.exhaustive
def test_a_caller_expires_between_two_statements(line: Line, clocks: Clocks, alice: Caller) -> None:
    def work(session: Session) -> None:
        assert session.execute(CALLER).one() == ALICE
        clocks.ahead = 60
        for statement in (CALLER, CALLER, TASKS):
            with pytest.raises(ExpiredToken):
                session.execute(statement)

    line.visit(Caller(role="authenticated", subject="alice", expires_at=time.time() + 60), work)
    assert line.visit(alice, lambda session: session.execute(CALLER).one()) == ALICE


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:transaction already deassociated")
def test_nothing_runs_after_the_connection_was_committed(
    line: Line, todos: None, alice: Caller, bob: Caller
) -> None:
    def work(session: Session) -> None:
        for end in ("commit", "rollback"):
            assert tasks(session) == ["alice's"]
            connection = session.connection()
            getattr(connection, end)()
            for go_on in (session.execute, connection.execute):
                for statement in (TASKS, CALLER):
                    with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                        go_on(statement)
            session.rollback()
            assert tasks(session) == ["alice's"]

    line.visit(alice, work)
    assert line.visit(bob, tasks) == ["bob's"]


@pytest.mark.exhaustive
def test_a_transaction_that_text_begins_is_the_callers_until_the_session_ends_it(
    line: Line, admin: Engine, todos: None, alice: Caller, bob: Caller
) -> None:
    before = line.visit(bob, backend)

    def work(session: Session) -> None:
        for end in (Session.rollback, Session.commit):
            session.execute(text("BEGIN"))
            session.execute(insert(Todo).values(task="another"))
            assert tasks(session) == ["alice's", "another"]
            assert session.execute(CALLER).one() == ALICE
            end(session)

    line.visit(alice, work)
    assert line.visit(bob, tasks) == ["bob's"]
    assert line.visit(bob, backend) == before
    assert [task for _, task in all_todos(admin)] == ["alice's", "bob's", "another"]

    def chain(session: Session) -> None:
        session.execute(text("BEGIN"))
        session.execute(text("COMMIT AND CHAIN"))
        with pytest.raises(TransactionRefused):
            session.execute(CALLER)

    def end(session: Session) -> None:
        for command in ("COMMIT", "ROLLBACK"):
            session.execute(text(command))
            assert session.execute(CALLER).one() == ALICE

    line.visit(alice, end)
    line.visit(alice, chain)
    assert is_nobodys(line)
    assert line.visit(bob, tasks) == ["bob's"]


@pytest.mark.exhaustive
def test_the_reset_of_what_a_caller_sets_precedes_each_statement(
    line: Line, todos: None, alice: Caller, bob: Caller
) -> None:
    leave = "SELECT set_config(:name, :value, false)"
    left = {"statement_timeout": "4321", "search_path": "nowhere", "TimeZone": "Asia/Tokyo"}

    def work(session: Session) -> None:
        for name, value in left.items():
            session.execute(text(leave), {"name": name, "value": value})
            assert session.scalar(text("SELECT current_setting(:name)"), {"name": name}) != value
        for name, value in left.items():
            session.execute(text(leave), {"name": name, "value": value})
        session.execute(text("SET ROLE authenticated"))

    for _ in range(2):
        line.visit(alice, work)
        assert is_nobodys(line)
        assert line.raw(lambda connection: connection.scalar(text("SHOW statement_timeout"))) == "0"
        line.visit(alice, work)
        assert line.visit(bob, tasks) == ["bob's"]
        assert line.visit(bob, lambda session: session.scalar(text("SHOW statement_timeout"))) == "0"


@pytest.mark.exhaustive
def test_text_arrives_as_it_is_after_another_encoding(line: Line, todos: None, alice: Caller) -> None:
    letters = "äÄß"

    def work(session: Session) -> None:
        for _ in range(2):
            session.execute(text("SET client_encoding = 'LATIN1'"))
            for _ in range(2):
                assert session.scalar(text("SELECT CAST(:letters AS text)"), {"letters": letters}) == letters
                assert session.scalar(text("SELECT octet_length(:letters)"), {"letters": letters}) == 6
                assert session.scalar(text(f"SELECT '{letters}'")) == letters

    line.visit(alice, work)
    line.visit(alice, work)
