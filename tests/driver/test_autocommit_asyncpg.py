"""In AUTOCOMMIT asyncpg binds its prepared statements, and refuses its other methods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from sqla_rls import Caller, enforce_row_security, identify
from sqla_rls.exc import BindingError, UnsupportedTransaction
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from tests.support.asyncpg_sessions import NUMBER, SLEEP
from tests.support.autocommit import ONE_SHOT, backend, is_nobodys, opened, tasks
from tests.support.line import Line
from tests.support.psycopg_statements import WHO, raw
from tests.support.sessions import ALICE, ANYTHING, CALLER, TASKS, all_todos
from tests.support.suite import transports

pytestmark = [pytest.mark.every_postgres, pytest.mark.sqlalchemy]

BY_ASYNCPG = {name: how for name, how in ONE_SHOT.items() if how.driver == "asyncpg"}


@pytest.fixture(params=transports(BY_ASYNCPG, ["asyncpg"]))
def line(request: pytest.FixtureRequest, url: URL, runner: asyncio.Runner) -> Iterator[Line]:
    with opened(url, request.param, runner) as line:
        yield line


@pytest.mark.exhaustive
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
