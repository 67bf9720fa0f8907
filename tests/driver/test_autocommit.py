"""In AUTOCOMMIT each statement is bound by itself, with each driver that sends its binding ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, Integer, bindparam, insert, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused, UnsupportedTransaction
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from tests.support.clocks import Clocks
from tests.support.line import HOWS, How, Line
from tests.support.psycopg_statements import (
    ALICE,
    WHO,
    by_copy,
    by_cursor,
    by_executemany_of_psycopg,
    by_server_cursor,
    by_stream,
    by_yield_per,
    raw,
)
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS, Todo, all_todos
from tests.support.suite import transports

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

BACKEND = text("SELECT pg_backend_pid()")
NUMBER = text("SELECT :number + pg_backend_pid() * 0").bindparams(bindparam("number", type_=Integer))
SLEEP = text("SELECT pg_sleep(CAST(:seconds AS float))")

ONE_SHOT = {
    "psycopg": HOWS["psycopg, one-shot"],
    "psycopg, with_begin": How("psycopg", "with_begin", autocommit=True),
    "psycopg, asyncio": HOWS["psycopg, asyncio, one-shot"],
    "asyncpg": HOWS["asyncpg, one-shot"],
    "asyncpg, with_begin": How("asyncpg", "with_begin", is_async=True, autocommit=True),
}
BY_ASYNCPG = {name: how for name, how in ONE_SHOT.items() if how.driver == "asyncpg"}


@pytest.fixture(params=transports(ONE_SHOT, ["psycopg", "asyncpg"]))
def line(request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner) -> Iterator[Line]:
    line = Line(url, request.param, runner)
    yield line
    line.hang_up()


by_asyncpg = pytest.mark.parametrize("line", transports(BY_ASYNCPG, ["asyncpg"]), indirect=True)


def backend(session: Session) -> object:
    return session.scalar(BACKEND)


def tasks(session: Session) -> object:
    return session.scalars(TASKS).all()


def is_nobodys(line: Line) -> bool:
    return line.raw(lambda connection: connection.execute(CALLER).one() == NOBODY)


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


# asyncpg


@pytest.mark.exhaustive
@by_asyncpg
def test_the_methods_of_asyncpg_are_refused_but_for_prepared_statements(
    line: Line, admin: Engine, todos: None, alice: Caller
) -> None:
    def work(session: Session) -> None:
        session.execute(ANYTHING)
        connection = raw(session)
        methods: list[tuple[str, list[Any]]] = [
            ("fetch", [WHO]),
            ("fetchrow", [WHO]),
            ("fetchval", [WHO]),
            ("fetchmany", [WHO, [[]]]),
            ("execute", ["SELECT 1"]),
            ("execute", ["SELECT $1::int", 1]),
            ("execute", ["BEGIN; INSERT INTO todos (task) VALUES ('x')"]),
            ("executemany", ["SELECT 1", [[]]]),
            ("copy_from_query", [WHO]),
            ("copy_from_table", ["todos"]),
            ("copy_to_table", ["todos"]),
            ("copy_records_to_table", ["todos"]),
        ]
        for method, arguments in methods:
            with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
                await_only(getattr(connection, method)(*arguments))
        with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
            connection.cursor(WHO)
        for name in (None, "", "mine"):
            who = await_only(connection.prepare(WHO, name=name))
            for _ in range(2):
                assert [tuple(row) for row in await_only(who.fetch())] == [ALICE]
                assert tuple(await_only(who.fetchrow())) == ALICE
                assert await_only(who.fetchval(column=1)) == "alice"
                with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
                    who.cursor()
                for execution in (who.executemany([[]]), who.explain()):
                    with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
                        await_only(execution)
        assert session.execute(CALLER).one() == ALICE

    for _ in range(2):
        line.visit(alice, work)
        assert is_nobodys(line)
    assert len(all_todos(admin)) == 2


@pytest.mark.exhaustive
@by_asyncpg
def test_a_transaction_of_asyncpgs_own_is_bound(line: Line, todos: None, alice: Caller, bob: Caller) -> None:
    async def who(connection: Any) -> object:
        async with connection.transaction():
            found = tuple(await connection.fetchrow(WHO))
            assert tuple(await connection.fetchrow(WHO)) == found
        with pytest.raises(UnsupportedTransaction, match="AUTOCOMMIT"):
            await connection.fetchrow(WHO)
        return found

    for caller in (alice, bob):
        for _ in range(2):
            found = line.visit(caller, lambda session: (await_only(who(raw(session))), tasks(session)))
            assert found == (("authenticated", caller.subject), [f"{caller.subject}'s"])
    assert is_nobodys(line)


@pytest.mark.exhaustive
@by_asyncpg
def test_a_statement_that_is_only_prepared_leaves_nothing_open(
    line: Line, admin: Engine, todos: None, alice: Caller
) -> None:
    def work(session: Session) -> None:
        pid = backend(session)
        await_only(raw(session).prepare("SELECT task FROM todos"))
        deadline = time.monotonic() + 10
        locks = text("SELECT count(*) FROM pg_locks WHERE pid = :pid")
        with admin.connect() as connection:
            while connection.scalar(locks, {"pid": pid}):
                assert time.monotonic() < deadline
                connection.rollback()

    line.visit(alice, work)
    assert is_nobodys(line)


@pytest.mark.exhaustive
@by_asyncpg
def test_a_statement_that_asyncpg_refuses_leaves_the_connection_bound(
    line: Line, todos: None, alice: Caller, bob: Caller
) -> None:
    before = line.visit(bob, backend)

    def work(session: Session) -> None:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="out of int32 range"):
                session.scalar(NUMBER, {"number": 2**40})
            assert session.execute(CALLER).one() == ALICE
            assert session.scalar(NUMBER, {"number": 2}) == 2
            with pytest.raises(DBAPIError, match="division by zero"):
                session.scalar(text("SELECT 1 / (:number - 1)"), {"number": 1})
            with pytest.raises(DBAPIError, match="syntax error"):
                session.scalar(text("SELEC 1"))
        with pytest.raises(DBAPIError, match="out of int32 range"):
            session.scalar(NUMBER, {"number": 2**40})

    line.visit(alice, work)
    assert line.visit(bob, tasks) == ["bob's"]
    assert line.visit(bob, backend) == before


@pytest.mark.exhaustive
@by_asyncpg
def test_the_types_that_asyncpg_asks_for_are_asked_for_by_the_caller(
    line: Line, todos: None, alice: Caller, bob: Caller
) -> None:
    row = text("SELECT todos, current_user::text, auth.user_id() FROM todos")
    asked: list[str] = []

    def work(session: Session) -> object:
        session.execute(ANYTHING)
        raw(session).add_query_logger(lambda record: asked.append(record.query))
        todo, *who = session.execute(row).one()
        assert tasks(session) == [f"{who[1]}'s"]
        return f"{who[1]}'s" in tuple(todo)

    before = line.visit(alice, backend)
    assert line.visit(alice, work)
    assert any("typeinfo_tree" in query for query in asked)
    assert "COMMIT;" in asked
    assert line.visit(bob, work)
    assert line.visit(bob, backend) == before
    assert is_nobodys(line)


@pytest.mark.exhaustive
@by_asyncpg
def test_statements_without_a_name_are_bound(
    url: URL, line: Line, runner: asyncio.Runner, todos: None, alice: Caller, bob: Caller
) -> None:
    sizes = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    for arguments in ({"statement_cache_size": 0}, {"prepared_statement_cache_size": 0}, sizes):
        unnamed = Line(url, line.how, runner, arguments)
        for caller in (alice, bob, alice):
            for _ in range(2):
                assert (
                    unnamed.visit(caller, lambda session: [tasks(session) for _ in range(3)])
                    == [[f"{caller.subject}'s"]] * 3
                )
        assert is_nobodys(unnamed)
        unnamed.hang_up()


@pytest.mark.exhaustive
@by_asyncpg
def test_another_encoding_from_the_start_is_refused(
    url: URL, line: Line, runner: asyncio.Runner, alice: Caller
) -> None:
    other = Line(url, line.how, runner, {"server_settings": {"client_encoding": "LATIN1"}})
    with pytest.raises(UnsupportedTransaction, match="client_encoding"):
        other.visit(alice, tasks)
    other.hang_up()


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("way", ["cancelled", "timed out"])
async def test_nobody_gets_the_answer_to_a_statement_that_was_given_up(
    runner: asyncio.Runner, url: URL, todos: None, alice: Caller, bob: Caller, is_prepared: bool, way: str
) -> None:
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        connect_args={"command_timeout": 0.3} if way == "timed out" else {},
        isolation_level="AUTOCOMMIT",
        pool_size=1,
        max_overflow=0,
    )
    maker: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
    enforce_row_security(maker)
    if is_prepared:
        async with maker() as session:
            identify(session, alice)
            await session.execute(SLEEP, {"seconds": 0})
    for _ in range(2):
        async with maker() as session:
            identify(session, alice)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3 if way == "cancelled" else None):
                    await session.execute(SLEEP, {"seconds": 30})
            if way == "timed out":
                await session.rollback()
                assert (await session.execute(CALLER)).one() == ALICE
                assert (await session.scalars(TASKS)).all() == ["alice's"]
        async with maker() as session:
            identify(session, bob)
            assert (await session.scalars(TASKS)).all() == ["bob's"]
    await engine.dispose()


@pytest.mark.exhaustive
async def test_statements_of_two_tasks_are_bound_one_after_the_other_or_not_at_all(
    runner: asyncio.Runner, url: URL, todos: None, alice: Caller, bob: Caller
) -> None:
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0
    )
    maker: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)
    enforce_row_security(maker)
    for caller in (alice, bob):
        async with maker() as session:
            identify(session, caller)
            connection = await session.connection()
            found = await asyncio.gather(*(connection.execute(CALLER) for _ in range(5)))
            assert {result.one() for result in found} == {("authenticated", caller.subject)}
            # Below SQLAlchemy, asyncpg refuses the second one.
            own: Any = (await connection.get_raw_connection()).driver_connection
            statements = [await own.prepare(WHO), await own.prepare(f"{WHO} AS id")]
            answers = await asyncio.gather(*(each.fetchrow() for each in statements), return_exceptions=True)
            assert all(
                isinstance(answer, BaseException) or tuple(answer) == ("authenticated", caller.subject)
                for answer in answers
            )
            with suppress(DBAPIError):
                await session.rollback()
    await engine.dispose()


@pytest.mark.exhaustive
@by_asyncpg
def test_through_pgbouncer_each_statement_is_bound(
    pgbouncer: None, url: URL, line: Line, runner: asyncio.Runner, todos: None, alice: Caller, bob: Caller
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        lines = [Line(bouncer.url, line.how, runner, CONNECT_ARGS["asyncpg"]) for _ in range(2)]
        for caller, pooled in zip((alice, bob, alice, bob), [*lines, *lines], strict=True):

            def work(session: Session, subject: str | None = caller.subject) -> None:
                for _ in range(3):
                    assert tasks(session) == [f"{subject}'s"]
                    assert session.execute(CALLER).one() == ("authenticated", subject)
                with pytest.raises(DBAPIError, match="out of int32 range"):
                    session.scalar(NUMBER, {"number": 2**40})
                session.execute(text("SELECT set_config('statement_timeout', '4321', false)"))
                assert session.scalar(text("SHOW statement_timeout")) == "0"

            pooled.visit(caller, work)
        for pooled in lines:
            with pytest.raises(BindingError):
                pooled.visit(Caller(role="nobody_has_it"), tasks)
            assert is_nobodys(pooled)
            pooled.hang_up()


@pytest.mark.exhaustive
@by_asyncpg
def test_without_a_reset_each_statement_is_bound(
    url: URL, line: Line, runner: asyncio.Runner, todos: None, alice: Caller, bob: Caller
) -> None:
    kept = Line(url, line.how, runner, reset="none")
    for caller in (alice, bob, alice):
        assert (
            kept.visit(caller, lambda session: [tasks(session) for _ in range(2)])
            == [[f"{caller.subject}'s"]] * 2
        )
        assert is_nobodys(kept)

    def leave(session: Session) -> None:
        session.execute(text("SET client_encoding = 'LATIN1'"))
        with pytest.raises(UnsupportedTransaction, match="client_encoding"):
            session.execute(CALLER)

    kept.visit(alice, leave)
    assert kept.visit(bob, tasks) == ["bob's"]
    kept.hang_up()
