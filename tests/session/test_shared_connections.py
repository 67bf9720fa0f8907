"""Sessions that share a connection: no session runs as the caller of another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import psycopg
import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction, sessionmaker
from sqlalchemy.pool import AssertionPool, NullPool, Pool, QueuePool, SingletonThreadPool, StaticPool

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify, service_session
from sqla_rls.driver.base import Reset, Transport
from sqla_rls.exc import CallerRequired, DeclarationError, TransactionInProgress, TransactionRefused
from sqla_rls.session.enforce import is_enforced
from sqla_rls.testing.postgres import Server
from tests.support.sessions import ANYTHING, CALLER, NOBODY, TASKS, UNTOUCHED, Todo, all_todos
from tests.support.signing import Signed
from tests.support.suite import table, transports

pytestmark = pytest.mark.sqlalchemy

Maker: TypeAlias = Callable[..., sessionmaker[Session]]
#: What runs with a connection, and what makes factories of sessions for its engine.
Work: TypeAlias = Callable[[Connection, Maker], None]
Run: TypeAlias = Callable[[Work], None]

#: A message differs from a pipeline by how it is sent; what may be sent is decided before.
_DRIVERS = {
    "psycopg, sync-pipeline": ("psycopg, sync", "pipeline"),
    "psycopg, sync-statement": ("psycopg, sync", "statement"),
    "psycopg-pipeline": ("psycopg", "pipeline"),
    "asyncpg-with_begin": ("asyncpg", "with_begin"),
    "asyncpg-pipeline": ("asyncpg", "pipeline"),
    "asyncpg-statement": ("asyncpg", "statement"),
}


@pytest.fixture(params=transports(_DRIVERS, ["psycopg, sync-pipeline", "asyncpg-pipeline"]))
def run(request: pytest.FixtureRequest, url: URL, todos: None) -> Iterator[Run]:
    """Runs work with a connection of each driver, sync or in the greenlet of an AsyncConnection."""
    driver, transport = request.param

    def maker_of(engine: Engine) -> Maker:
        def make(mode: str = "create_savepoint", **kw: Any) -> sessionmaker[Session]:
            maker = sessionmaker(engine, join_transaction_mode=mode, **kw)
            enforce_row_security(maker, options=BindingOptions(transport=transport))
            return maker

        return make

    if driver == "psycopg, sync":
        engine = create_engine(url)

        def run_sync(work: Work) -> None:
            make = maker_of(engine)
            make()  # so that the engine's connections can send bindings
            with engine.connect() as connection:
                work(connection, make)

        yield run_sync
        engine.dispose()
        return

    query = {"ssl": "disable"} if driver == "asyncpg" else {}
    async_engine = create_async_engine(url.set(drivername=f"postgresql+{driver}").update_query_dict(query))

    async def run_async(work: Work) -> None:
        make = maker_of(async_engine.sync_engine)
        make()
        async with async_engine.connect() as connection:
            await connection.run_sync(work, make)
        await async_engine.dispose()

    yield lambda work: asyncio.run(run_async(work))


def as_whom(session: Session | Connection) -> tuple[str, str | None]:
    role, subject = session.execute(CALLER).one()
    return role, subject


def open_session(maker: sessionmaker[Session], connection: Connection, caller: Caller) -> Session:
    session = maker(bind=connection)
    identify(session, caller)
    return session


# Two callers


@table(
    ("mode", "nested"),
    [
        ("create_savepoint", False),
        ("rollback_only", False),
        ("conditional_savepoint", True),
        ("rollback_only", True),
    ],
)
def test_a_second_caller_is_refused_while_another_session_is_in_progress(
    run: Run, alice: Caller, bob: Caller, mode: str, nested: bool
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make(mode)
        transaction = connection.begin()
        if nested:
            connection.begin_nested()
        hers, his = open_session(maker, connection, alice), open_session(maker, connection, bob)
        assert hers.scalars(TASKS).all() == ["alice's"]
        with pytest.raises(TransactionInProgress, match="give each session a connection of its own"):
            his.scalars(TASKS).all()
        with pytest.raises(TransactionRefused):
            his.execute(ANYTHING)
        hers.add(Todo(task="hers"))
        hers.flush()
        assert hers.scalars(TASKS).all() == ["alice's", "hers"]
        assert hers.scalars(select(Todo.user_id)).all() == ["alice", "alice"]
        his.close()
        assert as_whom(hers) == ("authenticated", "alice")
        hers.close()
        transaction.rollback()

    run(work)


@pytest.mark.exhaustive
def test_a_caller_whose_binding_still_waits_is_not_replaced(run: Run, alice: Caller, bob: Caller) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make()
        connection.begin()
        hers, his = open_session(maker, connection, alice), open_session(maker, connection, bob)
        hers.connection()
        with pytest.raises(TransactionInProgress):
            his.connection()
        assert hers.scalars(TASKS).all() == ["alice's"]
        hers.close()

    run(work)


@pytest.mark.exhaustive
def test_a_session_bound_to_the_connection_of_another_is_of_the_same_caller(
    run: Run, alice: Caller, bob: Caller
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make()
        with maker() as hers:
            identify(hers, alice)
            shared = hers.connection()
            with open_session(maker, shared, bob) as his, pytest.raises(TransactionInProgress):
                his.execute(ANYTHING)
            with open_session(maker, shared, alice) as also_hers:
                assert also_hers.scalars(TASKS).all() == ["alice's"]
                also_hers.commit()
            assert hers.scalars(TASKS).all() == ["alice's"]
            late = open_session(maker, shared, alice)
            assert late.scalars(TASKS).all() == ["alice's"]
            hers.commit()
            # The transaction of both has ended: the other session may not go on as the connection.
            with pytest.raises((TransactionRefused, Exception)) as refusal:
                late.scalars(TASKS).all()
            assert isinstance(refusal.value, TransactionRefused) or "closed" in str(refusal.value)
            late.close()

    run(work)


@pytest.mark.exhaustive
def test_jobs_do_not_run_in_the_transaction_of_a_caller(run: Run, alice: Caller) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make()
        connection.begin()
        hers = open_session(maker, connection, alice)
        assert hers.scalars(TASKS).all() == ["alice's"]
        maker.configure(bind=connection)
        job = service_session(maker, reason="count")
        with pytest.raises(TransactionInProgress):
            job.execute(ANYTHING)
        assert hers.scalars(TASKS).all() == ["alice's"]

    run(work)


@table("mode", ["create_savepoint", "rollback_only"])
def test_callers_take_turns_by_whole_transactions(run: Run, alice: Caller, bob: Caller, mode: str) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make(mode)
        connection.begin()
        hers, his = open_session(maker, connection, alice), open_session(maker, connection, bob)
        for _ in range(2):
            assert hers.scalars(TASKS).all() == ["alice's"]
            hers.commit()
            assert his.scalars(TASKS).all() == ["bob's"]
            his.commit()

    run(work)


# Pools


@table("pool", [StaticPool, SingletonThreadPool])
def test_a_pool_that_lends_one_connection_twice_is_refused(url: URL, alice: Caller, pool: type[Pool]) -> None:
    engine = create_engine(url, poolclass=pool)
    bound, unbound = sessionmaker(engine), sessionmaker()
    with pytest.raises(DeclarationError, match=rf"{pool.__name__}.*Use QueuePool or NullPool"):
        enforce_row_security(bound)
    assert not is_enforced(bound)
    enforce_row_security(unbound)
    with engine.connect() as connection:
        for bind in (engine, connection):
            with unbound(bind=bind) as session:
                identify(session, alice)
                with pytest.raises(DeclarationError, match=pool.__name__):
                    session.execute(ANYTHING)
                with pytest.raises(TransactionRefused):
                    session.execute(ANYTHING)
    engine.dispose()


@pytest.mark.exhaustive
async def test_a_pool_that_lends_one_connection_twice_is_refused_under_asyncio(
    runner: asyncio.Runner, async_url: URL, alice: Caller
) -> None:
    engine = create_async_engine(async_url, poolclass=StaticPool)
    with pytest.raises(DeclarationError, match="Use AsyncAdaptedQueuePool or NullPool"):
        enforce_row_security(async_sessionmaker(engine))
    maker = async_sessionmaker()
    enforce_row_security(maker)
    async with maker(bind=engine) as session:
        identify(session, alice)
        with pytest.raises(DeclarationError, match="StaticPool"):
            await session.execute(ANYTHING)
    await engine.dispose()


@pytest.mark.exhaustive
@pytest.mark.parametrize("pool", [QueuePool, NullPool, AssertionPool])
def test_a_pool_that_lends_each_connection_once_keeps_a_binding_from_other_connections(
    url: URL, transport: Transport, todos: None, alice: Caller, pool: type[Pool]
) -> None:
    engine = create_engine(url, poolclass=pool)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    for _ in range(2):
        with maker() as session:
            identify(session, alice)
            assert session.scalars(TASKS).all() == ["alice's"]
            if pool is AssertionPool:
                with pytest.raises(AssertionError, match="already checked out"):
                    engine.connect()
            else:
                with engine.connect() as connection:
                    assert as_whom(connection) == NOBODY
            assert session.scalars(TASKS).all() == ["alice's"]
    engine.dispose()


@table("reset", ["settings", "none"])
@pytest.mark.exhaustive
def test_a_creator_that_returns_one_connection_twice_serves_one_caller(
    url: URL, todos: None, alice: Caller, bob: Caller, reset: Reset
) -> None:
    opened = psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, dbname=url.database
    )
    engine = create_engine("postgresql+psycopg://", creator=lambda: opened)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(reset=reset))
    with maker() as hers, maker() as his:
        identify(hers, alice)
        identify(his, bob)
        assert hers.scalars(TASKS).all() == ["alice's"]
        with pytest.raises(DeclarationError, match="Open a new connection each time"):
            his.scalars(TASKS).all()
        with pytest.raises(TransactionRefused):
            hers.scalars(TASKS).all()
    engine.dispose()


# Savepoints of the connection's own


@table(
    ("mode", "depth"),
    [("create_savepoint", 1), ("create_savepoint", 2), ("rollback_only", 1), ("rollback_only", 2)],
)
@pytest.mark.filterwarnings("ignore:nested transaction already deassociated")
def test_a_binding_that_an_outer_savepoint_takes_back_is_over(
    run: Run, alice: Caller, mode: str, depth: int
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make(mode)
        transaction = connection.begin()
        outer = connection.begin_nested()
        for _ in range(depth - 1):
            connection.begin_nested()
        session = open_session(maker, connection, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
        outer.rollback()
        for transport in (lambda: session.scalars(TASKS).all(), lambda: session.connection()):
            with pytest.raises(TransactionRefused, match="rollback"):
                transport()
        transaction.rollback()
        session.close()

    run(work)


@pytest.mark.exhaustive
def test_a_savepoint_made_after_the_binding_takes_nothing_back(run: Run, alice: Caller) -> None:
    def work(connection: Connection, make: Maker) -> None:
        connection.begin()
        session = open_session(make(), connection, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
        with connection.begin_nested() as savepoint:
            savepoint.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]

    run(work)


# What a session leaves behind


@table(
    ("mode", "end"),
    [
        ("create_savepoint", "commit"),
        ("create_savepoint", "rollback"),
        ("conditional_savepoint", "close"),
        ("rollback_only", "commit"),
        ("rollback_only", "close"),
    ],
)
@pytest.mark.exhaustive
def test_a_joined_connection_is_what_it_was_before(
    run: Run, alice: Caller, bob: Caller, mode: str, end: str
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        transaction = connection.begin()
        before = connection.exec_driver_sql("SHOW search_path").scalar()
        for caller in (alice, bob):
            session = open_session(make(mode), connection, caller)
            assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]
            getattr(session, end)()
            session.close()
            assert as_whom(connection) == NOBODY
            assert connection.exec_driver_sql("SHOW search_path").scalar() == before
        connection.exec_driver_sql("SET LOCAL ROLE authenticated")
        connection.exec_driver_sql("""SET LOCAL request.jwt.claims = '{"sub": "carol"}'""")
        session = open_session(make(mode), connection, alice)
        assert session.scalars(TASKS).all() == ["alice's"]
        getattr(session, end)()
        session.close()
        assert as_whom(connection) == ("authenticated", "carol")
        transaction.rollback()

    run(work)


@pytest.mark.exhaustive
def test_of_two_sessions_that_share_the_last_puts_back_what_was_there(run: Run, alice: Caller) -> None:
    def work(connection: Connection, make: Maker) -> None:
        maker = make("rollback_only")
        connection.begin()
        first, second = (open_session(maker, connection, alice) for _ in range(2))
        for session in (first, second):
            assert session.scalars(TASKS).all() == ["alice's"]
        first.commit()
        assert second.scalars(TASKS).all() == ["alice's"]
        second.commit()
        assert as_whom(connection) == NOBODY

    run(work)


@pytest.mark.exhaustive
def test_a_lost_connection_is_an_error_of_sqlalchemy_and_given_up(
    run: Run, alice: Caller, server: Server
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        connection.begin()
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with create_engine(server.url(), poolclass=NullPool).begin() as superuser:
            superuser.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(DBAPIError) as lost:
            open_session(make("rollback_only"), connection, alice).scalars(TASKS).all()
        assert lost.value.connection_invalidated
        assert connection.invalidated

    run(work)


@pytest.mark.exhaustive
def test_a_session_that_ends_in_a_failed_transaction_raises_nothing_of_its_own(
    run: Run, alice: Caller
) -> None:
    def work(connection: Connection, make: Maker) -> None:
        transaction = connection.begin()
        session = open_session(make("rollback_only"), connection, alice)
        with pytest.raises(Exception, match="division by zero"):
            session.execute(text("SELECT 1 / 0"))
        session.close()
        transaction.rollback()
        assert as_whom(connection) == NOBODY

    run(work)


def test_a_signed_caller_is_taken_back(signed: Signed, alice: Caller, bob: Caller) -> None:
    maker = sessionmaker(signed.app, join_transaction_mode="create_savepoint")
    enforce_row_security(maker, signing_key=signed.key)
    with signed.app.connect() as connection, connection.begin():
        for caller in (alice, bob):
            with open_session(maker, connection, caller) as session:
                assert session.scalars(TASKS).all() == [f"{caller.subject}'s"]
                session.commit()
            assert connection.execute(text("SELECT current_user")).scalar() == "app"
            assert not connection.scalar(text("SELECT current_setting('pg_session_jwt.jwt', true)"))


# The fixture of SQLAlchemy's documentation, "Joining a Session into an External Transaction"


@pytest.mark.exhaustive
def test_tests_may_seed_and_look_as_the_owner(admin: Engine, todos: None, alice: Caller, bob: Caller) -> None:
    maker = sessionmaker(join_transaction_mode="create_savepoint")
    enforce_row_security(maker, check_login_role=False)
    connection = admin.connect()
    transaction = connection.begin()
    for caller in (alice, bob):
        connection.execute(insert(Todo).values(user_id=caller.subject, task="seeded"))
        with maker(bind=connection) as session:
            identify(session, caller)
            assert session.scalars(TASKS).all() == [f"{caller.subject}'s", "seeded"]
            session.add(Todo(task="tested"))
            session.commit()
        with maker(bind=connection) as session, pytest.raises(CallerRequired):
            session.execute(ANYTHING)
    seen = connection.scalars(select(Todo.user_id).order_by(Todo.id)).all()
    assert seen == ["alice", "bob", "alice", "alice", "bob", "bob"]
    transaction.rollback()
    connection.close()
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
async def test_tests_of_asyncio_may_seed_and_look_as_the_owner(
    runner: asyncio.Runner,
    async_pool: AsyncEngine,
    async_url: URL,
    admin: Engine,
    todos: None,
    alice: Caller,
    bob: Caller,
) -> None:
    owner = create_async_engine(async_url.set(username=admin.url.username, password=admin.url.password))
    maker = async_sessionmaker(join_transaction_mode="create_savepoint")
    enforce_row_security(maker, check_login_role=False)
    async with owner.connect() as connection:
        transaction = await connection.begin()
        for caller in (alice, bob):
            await connection.execute(insert(Todo).values(user_id=caller.subject, task="seeded"))
            session: AsyncSession
            async with maker(bind=connection) as session:
                identify(session, caller)
                assert (await session.scalars(TASKS)).all() == [f"{caller.subject}'s", "seeded"]
                session.add(Todo(task="tested"))
                await session.commit()
        seen = (await connection.scalars(select(Todo.user_id).order_by(Todo.id))).all()
        assert seen == ["alice", "bob", "alice", "alice", "bob", "bob"]
        await transaction.rollback()
    await owner.dispose()
    assert all_todos(admin) == UNTOUCHED


@pytest.mark.exhaustive
def test_a_connection_serves_the_next_caller_before_the_last_session_has_noticed_its_end(
    pool: Engine, maker: sessionmaker[Session], todos: None, alice: Caller, bob: Caller
) -> None:
    first, second = maker(), maker()
    identify(first, alice)
    identify(second, bob)

    def be_quick(session: Session, transaction: SessionTransaction) -> None:
        if session is first and not second.in_transaction():
            assert second.scalars(TASKS).all() == ["bob's"]

    event.listen(type(first), "after_transaction_end", be_quick, insert=True)
    for end in (Session.commit, Session.rollback, Session.close):
        identify(first, alice)
        assert first.scalars(TASKS).all() == ["alice's"]
        end(first)
        for _ in range(2):
            assert second.scalars(TASKS).all() == ["bob's"]
        second.execute(text("COMMIT AND CHAIN"))
        with pytest.raises(TransactionRefused):
            second.execute(TASKS)
        second.rollback()
