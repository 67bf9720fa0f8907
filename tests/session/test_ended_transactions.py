"""SQL text that ends the session's transaction, and begins one to which nothing is bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify, service_session
from sqla_rls.driver.base import Transport
from sqla_rls.exc import TransactionRefused, UnsupportedTransaction
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from tests.support.sessions import ALICE, ANYTHING, CALLER, NOBODY, TASKS, Sessions, all_todos
from tests.support.suite import table

CHAINED = ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"]
ENDS = [*CHAINED, "COMMIT; BEGIN", "ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE"]


def with_the_session(session: Session) -> object:
    return session.execute(CALLER).all()


def with_its_connection(session: Session) -> object:
    return session.info["connection"].execute(CALLER).all()


def with_a_savepoint(session: Session) -> object:
    return session.info["connection"].begin_nested()


def with_a_cursor(session: Session) -> object:
    driver_connection: Any = session.info["connection"].connection.driver_connection
    return driver_connection.execute("SELECT 1").fetchall()


def with_a_cursor_of_another_class(session: Session) -> object:
    driver_connection: Any = session.info["connection"].connection.driver_connection
    return psycopg.ClientCursor(driver_connection).execute("SELECT 1").fetchall()


GO_ON = [
    with_the_session,
    with_its_connection,
    with_a_savepoint,
    with_a_cursor,
    with_a_cursor_of_another_class,
]


@table("end", ENDS)
def test_nothing_runs_in_a_transaction_that_sql_has_begun(
    sessions: Sessions, todos: None, alice: Caller, end: str
) -> None:
    with sessions(alice) as session:
        for go_on in GO_ON:
            session.info["connection"] = session.connection()
            session.execute(ANYTHING)
            session.execute(text(end))
            for _ in range(2):
                with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                    go_on(session)
            session.rollback()
            assert session.execute(CALLER).one() == ALICE
            session.rollback()


def commit_of_the_driver(connection: Connection) -> None:
    raw_of(connection).commit()


def rollback_of_the_driver(connection: Connection) -> None:
    raw_of(connection).rollback()


def raw_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


def with_a_server_cursor(connection: Connection) -> None:
    with raw_of(connection).cursor("named") as cursor:
        cursor.execute("SELECT 1")


BELOW = [commit_of_the_driver, rollback_of_the_driver, Connection.commit, Connection.rollback]
AFTER: list[Callable[[Connection], object]] = [
    lambda connection: connection.execute(CALLER),
    lambda connection: raw_of(connection).execute("SELECT 1"),
    lambda connection: raw_of(connection).execute("SELECT %s", [1]),
    lambda connection: raw_of(connection).cursor().executemany("SELECT %s", [[1]]),
    lambda connection: list(raw_of(connection).cursor().stream("SELECT 1")),
    with_a_server_cursor,
    lambda connection: psycopg.ClientCursor(raw_of(connection)).execute("SELECT 1"),
    lambda connection: raw_of(connection).cursor().copy("COPY (SELECT 1) TO STDOUT").__enter__(),
    lambda connection: raw_of(connection).transaction().__enter__(),
    lambda connection: raw_of(connection).tpc_begin("a name"),
]


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
@table("end", BELOW, kind=lambda end: end.__name__ == "commit")
@pytest.mark.parametrize("runs_first", [True, False])
def test_nothing_runs_after_the_transaction_was_ended_below_the_session(
    pool: Engine,
    sessions: Sessions,
    alice: Caller,
    bob: Caller,
    end: Callable[[Connection], None],
    runs_first: bool,
) -> None:
    for _ in range(2):
        with sessions(alice) as session:
            for statement in ("SET ROLE authenticated", """SET request.jwt.claims = '{"sub": "alice"}'"""):
                session.execute(text(statement))
            session.commit()
        with sessions(bob) as session:
            connection = session.connection()
            if runs_first:
                session.execute(ANYTHING)
            end(connection)
            for go_on in AFTER:
                with pytest.raises(
                    (TransactionRefused, UnsupportedTransaction), match=r"rollback\(\)|PREPARE"
                ):
                    go_on(connection)
            with raw_of(connection).pipeline(), pytest.raises(TransactionRefused):
                raw_of(connection).execute("SELECT 1")
            session.rollback()
            assert session.execute(CALLER).one() == ("authenticated", "bob")
        with pool.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
@table("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
@pytest.mark.parametrize("runs_first", [True, False])
def test_nothing_runs_in_a_pipeline_after_sql_that_ends_the_transaction(
    sessions: Sessions, admin: Engine, todos: None, alice: Caller, bob: Caller, end: str, runs_first: bool
) -> None:
    with sessions(alice) as session:
        session.execute(text("SET ROLE authenticated"))
        session.commit()
    before = all_todos(admin)
    with sessions(bob) as session:
        if runs_first:
            session.execute(ANYTHING)
        raw = raw_of(session.connection())
        first = raw.cursor()

        def run() -> None:
            with raw.pipeline():
                first.execute("SELECT current_user::text")
                for statement in (end, *["INSERT INTO todos (task, user_id) VALUES ('x', 'x')"] * 2):
                    raw.execute(statement)

        with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
            run()
        assert first.fetchall() == [("authenticated",)]
        session.rollback()
        assert session.execute(CALLER).one() == ("authenticated", "bob")
    assert all_todos(admin) == before


def test_a_pipeline_in_which_nothing_marks_the_transaction_is_bound_again(
    pool: Engine, transport: Transport, alice: Caller
) -> None:
    maker = sessionmaker(pool)
    settings = {"default_transaction_read_only": "off"}
    enforce_row_security(maker, settings=settings, options=BindingOptions(transport=transport))
    with maker() as session:
        identify(session, alice)
        raw = raw_of(session.connection())
        with raw.pipeline():
            raw.execute("SELECT 1")
            raw.execute("COMMIT")
            found = raw.execute("SELECT current_user::text")
        expected = "app" if transport == "statement" else "authenticated"
        assert found.fetchall() == [(expected,)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ COMMITTED"])
def test_two_phases_are_refused_below_the_session(
    pool: Engine, sessions: Sessions, alice: Caller, transport: Transport, level: str
) -> None:
    if level == "AUTOCOMMIT" and transport == "statement":
        pytest.skip("AUTOCOMMIT is refused")
    with sessions(alice) as session:
        connection = session.connection(execution_options={"isolation_level": level})
        with pytest.raises(UnsupportedTransaction, match="PREPARE TRANSACTION"):
            raw_of(connection).tpc_begin("a name")
        assert session.execute(CALLER).one() == ALICE


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:transaction already deassociated")
@pytest.mark.parametrize("hook", ["on_bind", "after_begin"])
def test_a_hook_that_commits_leaves_no_statement_unbound(
    pool: Engine, transport: Transport, todos: None, alice: Caller, bob: Caller, hook: str
) -> None:
    ends: list[bool] = []

    def end(*arguments: object) -> None:
        for connection in arguments:
            if ends and isinstance(connection, Connection):
                connection.commit()

    maker = sessionmaker(pool)
    options = BindingOptions(transport=transport)
    enforce_row_security(maker, on_bind=end if hook == "on_bind" else None, options=options)
    if hook == "after_begin":
        event.listen(maker, "after_begin", end)
    with maker() as session:
        identify(session, alice)
        for sql in ("SET ROLE authenticated", 'SET request.jwt.claims = \'{"sub":"alice"}\''):
            session.execute(text(sql))
        session.commit()
    with maker() as session:
        identify(session, bob)
        ends.append(True)
        for _ in range(2):
            with pytest.raises(TransactionRefused):
                session.execute(CALLER)
        session.rollback()
        ends.clear()
        assert session.execute(CALLER).one() == ("authenticated", "bob")


@pytest.mark.exhaustive
@pytest.mark.parametrize("transport", ["statement"], indirect=True)
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_nothing_follows_the_end_of_a_transaction_that_a_statement_has_bound(
    sessions: Sessions, alice: Caller, end: str
) -> None:
    with sessions(alice) as session:
        session.execute(text(end))
        for _ in range(2):
            with pytest.raises(TransactionRefused):
                session.execute(CALLER)
        session.rollback()
        assert session.execute(CALLER).one() == ALICE


@pytest.mark.exhaustive
def test_the_connection_of_a_refused_transaction_serves_others(
    pool: Engine, sessions: Sessions, alice: Caller
) -> None:
    with sessions(alice) as session:
        session.execute(text("COMMIT AND CHAIN"))
    with pool.connect() as connection:
        assert connection.execute(ANYTHING).one() == (1,)
    with sessions(Caller(role="authenticated", subject="bob")) as session:
        assert session.execute(CALLER).one() == ("authenticated", "bob")


def test_what_ends_no_transaction_is_not_refused(sessions: Sessions, todos: None, alice: Caller) -> None:
    with sessions(alice) as session:
        for _ in range(2):
            session.execute(text("SAVEPOINT own"))
            session.execute(text("ROLLBACK TO own"))
            with pytest.raises(DBAPIError), session.begin_nested():
                session.execute(text("SELECT 1/0"))
            with session.begin_nested() as savepoint:
                session.execute(ANYTHING)
                savepoint.rollback()
            driver_connection: Any = session.connection().connection.driver_connection
            with driver_connection.pipeline():
                driver_connection.execute("SELECT 1")
                driver_connection.execute("SELECT 1")
            assert session.scalars(TASKS).all() == ["alice's"]
            session.commit()


def test_a_failed_transaction_has_postgres_s_own_error(sessions: Sessions, alice: Caller) -> None:
    with sessions(alice) as session:
        with pytest.raises(DBAPIError, match="division by zero"):
            session.execute(text("SELECT 1/0"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            session.execute(ANYTHING)


@pytest.mark.exhaustive
@pytest.mark.parametrize("value", ["on", "off", "true"])
def test_the_application_may_set_what_a_transaction_is_known_by(
    pool: Engine, transport: Transport, alice: Caller, value: str
) -> None:
    maker = sessionmaker(pool)
    enforce_row_security(
        maker, settings={"default_transaction_read_only": value}, options=BindingOptions(transport=transport)
    )
    with maker() as session:
        identify(session, alice)
        for _ in range(3):
            assert session.execute(CALLER).one() == ALICE
        session.commit()


@pytest.mark.exhaustive
def test_transactions_stay_as_writable_as_they_were(pool: Engine, sessions: Sessions, alice: Caller) -> None:
    shown = select(text("current_setting('transaction_read_only')"))
    with sessions(alice) as session:
        for read_only in (False, True, False):
            session.connection(execution_options={"postgresql_readonly": read_only})
            for _ in range(2):
                assert session.scalar(shown) == ("on" if read_only else "off")
            session.rollback()
    with pool.connect() as connection:
        assert connection.scalar(shown) == "off"


@pytest.mark.exhaustive
def test_a_service_session_s_transaction_is_known_too(maker: sessionmaker[Session]) -> None:
    with service_session(maker, reason="test") as session:
        session.execute(text("COMMIT AND CHAIN"))
        with pytest.raises(TransactionRefused):
            session.execute(ANYTHING)


@pytest.mark.exhaustive
def test_through_pgbouncer_another_client_s_setting_refuses_no_transaction(
    pgbouncer: None, url: URL, transport: Transport, alice: Caller
) -> None:
    with PgBouncer(url, pool_size=1) as bouncer:
        engine = create_engine(bouncer.url, connect_args=CONNECT_ARGS["psycopg"])
        maker = sessionmaker(engine)
        enforce_row_security(maker, options=BindingOptions(transport=transport))
        for value in ("on", "off", "on"):
            with psycopg.connect(bouncer.url.set(drivername="postgresql").render_as_string()) as other:
                other.execute(f"SET default_transaction_read_only = {value}")
            with maker() as session:
                identify(session, alice)
                for _ in range(2):
                    assert session.execute(CALLER).one() == ALICE
        engine.dispose()


@pytest.mark.exhaustive
@pytest.mark.parametrize("value", ["on", "off"])
def test_what_the_last_caller_has_set_refuses_no_transaction(
    sessions: Sessions, alice: Caller, value: str
) -> None:
    for _ in range(2):
        with sessions(alice) as session:
            assert session.execute(CALLER).one() == ALICE
            session.execute(text(f"SET default_transaction_read_only = {value}"))
            session.connection().connection.driver_connection.commit()  # type: ignore[union-attr]


@pytest.fixture
def async_maker(async_pool: AsyncEngine, async_transport: Transport) -> async_sessionmaker[AsyncSession]:
    maker = async_sessionmaker(async_pool)
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    return maker


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_nothing_runs_after_the_transaction_was_ended_below_the_session_under_asyncio(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    driver_and_transport: tuple[str, Transport],
    alice: Caller,
    end: str,
) -> None:
    if driver_and_transport[0] != "psycopg":
        pytest.skip("asyncpg's connections have no commit()")
    async with async_maker() as session:
        identify(session, alice)
        for _ in range(2):
            connection = await session.connection()
            driver_connection: Any = (await connection.get_raw_connection()).driver_connection
            await getattr(driver_connection, end)()
            for go_on in (session.execute, connection.execute):
                with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                    await go_on(CALLER)
            with pytest.raises(TransactionRefused):
                await driver_connection.execute("SELECT 1")
            with pytest.raises(UnsupportedTransaction, match="PREPARE TRANSACTION"):
                await driver_connection.tpc_begin("a name")
            await session.rollback()
            assert (await session.execute(CALLER)).one() == ALICE
            await session.rollback()


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
@table("end", ["commit", "rollback"])
@table("runs_first", [True, False])
async def test_nothing_runs_after_the_connection_has_ended_the_transaction_under_asyncio(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    driver_and_transport: tuple[str, Transport],
    todos: None,
    alice: Caller,
    bob: Caller,
    end: str,
    runs_first: bool,
) -> None:
    for caller in (alice, bob):
        async with async_maker() as session:
            identify(session, caller)
            for _ in range(2):
                connection = await session.connection()
                raw: Any = (await connection.get_raw_connection()).driver_connection
                if runs_first:
                    assert (await session.scalars(TASKS)).all() == [f"{caller.subject}'s"]
                await getattr(connection, end)()
                for go_on in (connection.execute, session.execute, connection.execute):
                    with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                        await go_on(CALLER)
                with pytest.raises(TransactionRefused):
                    await connection.begin_nested()
                with pytest.raises(TransactionRefused):
                    async with raw.transaction():
                        pytest.fail("the transaction has begun")
                with pytest.raises(TransactionRefused):
                    await raw.execute("SELECT 1")
                if driver_and_transport[0] == "asyncpg":
                    for method in (raw.fetch, raw.prepare):
                        with pytest.raises(TransactionRefused):
                            await method("SELECT 1")
                await session.rollback()
                assert (await session.execute(CALLER)).one() == ("authenticated", caller.subject)
                await session.commit()


@pytest.mark.exhaustive
async def test_a_stream_in_a_failed_transaction_has_postgres_s_own_error(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    driver_and_transport: tuple[str, Transport],
    todos: None,
    alice: Caller,
) -> None:
    async with async_maker() as session:
        identify(session, alice)
        connection = await session.connection()
        for _ in range(2):
            assert (await (await session.stream(TASKS)).scalars().all()) == ["alice's"]
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.execute(text("SELECT 1/0"))
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                await session.stream(TASKS)
            if driver_and_transport[0] == "asyncpg":
                raw: Any = (await connection.get_raw_connection()).driver_connection
                with pytest.raises(asyncpg.InFailedSQLTransactionError):
                    await raw.cursor("SELECT 1")
                with pytest.raises(asyncpg.InFailedSQLTransactionError):
                    await anext(aiter(raw.cursor("SELECT 1")))
            await session.rollback()
            connection = await session.connection()


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", CHAINED)
async def test_no_stream_runs_in_a_transaction_that_sql_has_begun(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    driver_and_transport: tuple[str, Transport],
    todos: None,
    alice: Caller,
    end: str,
) -> None:
    async with async_maker() as session:
        identify(session, alice)
        assert (await (await session.stream(TASKS)).scalars().all()) == ["alice's"]
        connection = await session.connection()
        raw: Any = (await connection.get_raw_connection()).driver_connection
        await session.execute(text(end))
        with pytest.raises(TransactionRefused):
            await session.stream(TASKS)
        if driver_and_transport[0] == "asyncpg":
            with pytest.raises(TransactionRefused):
                await raw.cursor("SELECT 1")
            with pytest.raises(TransactionRefused):
                await anext(aiter(raw.cursor("SELECT 1")))


@table("end", CHAINED)
async def test_nothing_runs_in_a_transaction_that_sql_has_begun_under_asyncio(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    todos: None,
    alice: Caller,
    end: str,
) -> None:
    async with async_maker() as session:
        identify(session, alice)
        for _ in range(3):
            # Each text is one that SQLAlchemy has prepared, in the rounds that follow.
            assert (await session.execute(CALLER)).one() == ALICE
            assert (await session.scalars(TASKS)).all() == ["alice's"]
            connection = await session.connection()
            driver_connection: Any = (await connection.get_raw_connection()).driver_connection
            await session.execute(text(end))
            for go_on in (session.execute, connection.execute):
                with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                    await go_on(CALLER)
            with pytest.raises(TransactionRefused, match=r"rollback\(\)"):
                await driver_connection.execute("SELECT 1")
            await session.rollback()


@pytest.mark.exhaustive
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_sql_that_ends_a_transaction_is_followed_by_no_other_under_asyncio(
    runner: asyncio.Runner,
    async_maker: async_sessionmaker[AsyncSession],
    driver_and_transport: tuple[str, Transport],
    alice: Caller,
    end: str,
) -> None:
    if driver_and_transport[0] == "psycopg" and driver_and_transport[1] != "statement":
        pytest.skip("what follows is bound")
    async with async_maker() as session:
        identify(session, alice)
        for _ in range(3):
            assert (await session.execute(CALLER)).one() == ALICE
            await session.execute(text(end))
            for _ in range(2):
                with pytest.raises((TransactionRefused, UnsupportedTransaction)):
                    await session.execute(CALLER)
            await session.rollback()


@pytest.mark.exhaustive
async def test_what_ends_no_transaction_is_not_refused_under_asyncio(
    runner: asyncio.Runner, async_maker: async_sessionmaker[AsyncSession], todos: None, alice: Caller
) -> None:
    async with async_maker() as session:
        identify(session, alice)
        for _ in range(2):
            with pytest.raises(DBAPIError):
                async with session.begin_nested():
                    await session.execute(text("SELECT 1/0"))
            assert (await session.scalars(TASKS)).all() == ["alice's"]
            with pytest.raises(DBAPIError, match="division by zero"):
                await session.execute(text("SELECT 1/0"))
            with pytest.raises(DBAPIError, match="current transaction is aborted"):
                await session.execute(ANYTHING)
            await session.rollback()
