"""Reads on a hot standby, writes on the primary: one session, one caller on both."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.dml import UpdateBase

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import BindingError, CallerRequired, TransactionRefused
from sqla_rls.rotation import rotate_signing_key
from sqla_rls.testing.postgres import PostgresUnavailable, Server
from tests.support.sessions import (
    ANYTHING,
    CALLER,
    NOBODY,
    TASKS,
    Todo,
    bindings,
    by_statement,
    kill,
    statements_of,
)
from tests.support.signing import Signed, as_authenticated, bind, refusal, tasks, token

#: Where a statement runs: true on the standby.
ON_STANDBY = select(func.pg_is_in_recovery())


@pytest.fixture(scope="module")
def standby_server(server: Server) -> Iterator[Server]:
    try:
        standby = server.standby()
    except PostgresUnavailable as problem:
        pytest.skip(str(problem))
    with standby:
        yield standby


@pytest.fixture
def standby(standby_server: Server, url: URL, admin: Engine) -> Iterator[Engine]:
    """Logs in to the standby as ``app``, once it has all that the primary has."""
    catch_up(standby_server, admin)
    engine = create_engine(url.set(port=standby_server.port), pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def catch_up(standby: Server, admin: Engine) -> None:
    """Wait until *standby* has replayed what was written by now."""
    replayed = text("SELECT pg_last_wal_replay_lsn() >= CAST(:lsn AS pg_lsn)")
    engine = create_engine(standby.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.begin() as primary:
        # A server for tests commits without waiting for the disk: have it written, not some seconds later.
        primary.execute(text("SET LOCAL synchronous_commit = on"))
        primary.execute(text("SELECT pg_logical_emit_message(true, 'catch up', '')"))
    with admin.connect() as primary, engine.connect() as connection:
        lsn = primary.scalar(text("SELECT pg_current_wal_flush_lsn()::text"))
        deadline = time.monotonic() + 60
        while not connection.scalar(replayed, {"lsn": lsn}):
            assert time.monotonic() < deadline, "the standby doesn't follow"
            time.sleep(0.01)


def routing(writes: Engine, reads: Engine) -> type[Session]:
    """A session class that sends what changes rows to *writes*, and the rest to *reads*."""

    class RoutingSession(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, bind: Any = None, **kw: Any) -> Engine:
            if bind is not None:
                assert isinstance(bind, Engine)
                return bind
            return writes if self._flushing or isinstance(clause, UpdateBase) else reads

    return RoutingSession


@pytest.fixture
def maker(pool: Engine, standby: Engine, transport: Transport) -> sessionmaker[Session]:
    maker = sessionmaker(class_=routing(pool, standby))
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    return maker


@pytest.mark.exhaustive
def test_what_one_writes_on_the_primary_one_reads_on_the_standby(
    maker: sessionmaker[Session], standby_server: Server, admin: Engine, alice: Caller, bob: Caller
) -> None:
    with maker() as session:
        identify(session, alice)
        assert session.scalar(ON_STANDBY) is True
        session.add(Todo(task="buy milk"))
        session.commit()
        catch_up(standby_server, admin)
        assert session.scalars(TASKS).all() == ["buy milk"]
    with maker() as session:
        identify(session, bob)
        assert session.scalar(ON_STANDBY) is True
        assert session.scalars(TASKS).all() == []


@pytest.mark.exhaustive
@by_statement
def test_both_are_bound_to_one_caller_once(
    maker: sessionmaker[Session], pool: Engine, standby: Engine, alice: Caller, bob: Caller
) -> None:
    sent = statements_of(pool), statements_of(standby)
    with maker() as session:
        for who in (alice, bob):
            identify(session, who)
            for bind in (pool, standby, pool, standby):
                caller = session.execute(CALLER, bind_arguments={"bind": bind}).one()
                assert caller == ("authenticated", who.subject)
            session.commit()
    assert [bindings(one) for one in sent] == [2, 2]
    for engine in (pool, standby):
        with engine.connect() as connection:
            assert connection.execute(CALLER).one() == NOBODY


@pytest.mark.exhaustive
def test_a_transaction_has_one_caller_whatever_the_next_token_says(
    pool: Engine, standby: Engine, alice: Caller, bob: Caller
) -> None:
    answers = iter([alice, bob])
    maker = sessionmaker(class_=routing(pool, standby))
    enforce_row_security(maker, token=lambda: next(answers))
    with maker() as session:
        for bind in (standby, pool):
            assert session.execute(CALLER, bind_arguments={"bind": bind}).one() == ("authenticated", "alice")


@pytest.mark.exhaustive
def test_nobody_is_refused_on_both(maker: sessionmaker[Session], pool: Engine, standby: Engine) -> None:
    for first, then in ((pool, standby), (standby, pool)):
        with maker() as session:
            with pytest.raises(CallerRequired):
                session.execute(CALLER, bind_arguments={"bind": first})
            with pytest.raises(TransactionRefused):
                session.execute(CALLER, bind_arguments={"bind": then})


@pytest.mark.exhaustive
def test_who_cannot_be_bound_on_one_is_refused_on_both(
    maker: sessionmaker[Session], pool: Engine, standby: Engine
) -> None:
    with maker() as session:
        identify(session, Caller(role="nobody_has_it", subject="alice"))
        with pytest.raises(BindingError, match="nobody_has_it"):
            session.execute(ANYTHING, bind_arguments={"bind": standby})
        with pytest.raises(TransactionRefused):
            session.execute(ANYTHING, bind_arguments={"bind": pool})


@pytest.mark.exhaustive
def test_nothing_is_written_on_the_standby(
    maker: sessionmaker[Session],
    standby: Engine,
    todos: None,
    standby_server: Server,
    admin: Engine,
    alice: Caller,
) -> None:
    catch_up(standby_server, admin)
    with maker() as session:
        identify(session, alice)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            session.execute(insert(Todo).values(task="x"), bind_arguments={"bind": standby})
        session.rollback()
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
def test_who_loses_the_standby_is_bound_on_it_again(
    maker: sessionmaker[Session], todos: None, standby_server: Server, admin: Engine, alice: Caller
) -> None:
    catch_up(standby_server, admin)
    above = create_engine(standby_server.url(), poolclass=NullPool)
    with maker() as session:
        identify(session, alice)
        kill(above, session.scalar(select(func.pg_backend_pid())))
        with pytest.raises(DBAPIError):
            session.scalars(TASKS)
        session.rollback()
        assert session.scalar(ON_STANDBY) is True
        assert session.scalars(TASKS).all() == ["alice's"]


@pytest.mark.exhaustive
async def test_the_same_under_asyncio(
    runner: object,
    async_url: URL,
    async_transport: Transport,
    standby_server: Server,
    admin: Engine,
    todos: None,
    alice: Caller,
) -> None:
    catch_up(standby_server, admin)
    primary = create_async_engine(async_url, poolclass=NullPool)
    standby = create_async_engine(async_url.set(port=standby_server.port), poolclass=NullPool)
    maker = async_sessionmaker(sync_session_class=routing(primary.sync_engine, standby.sync_engine))
    enforce_row_security(maker, options=BindingOptions(transport=async_transport))
    async with maker() as session:
        identify(session, alice)
        assert await session.scalar(ON_STANDBY) is True
        assert (await session.scalars(TASKS)).all() == ["alice's"]
        session.add(Todo(task="buy milk"))
        await session.flush()
        for bind in (primary, standby):
            caller = (await session.execute(CALLER, bind_arguments={"bind": bind.sync_engine})).one()
            assert caller == ("authenticated", "alice")
        await session.commit()
        catch_up(standby_server, admin)
        assert (await session.scalars(TASKS)).all() == ["alice's", "buy milk"]


@pytest.mark.exhaustive
def test_a_standby_verifies_callers_once_it_knows_the_key(signed: Signed, standby_server: Server) -> None:
    with signed.admin.begin() as connection:
        key = rotate_signing_key(connection)
    catch_up(standby_server, signed.admin)
    reads = create_engine(signed.app.url.set(port=standby_server.port), poolclass=NullPool)
    with as_authenticated(Signed(key, signed.admin, reads)) as connection:
        assert connection.scalar(ON_STANDBY)
        for good in (token(key), signed.token()):
            bind(connection, good)
            assert tasks(connection) == ["alice's"]
        bind(connection, token("A" * 43))
        refusal(connection)
