"""Through PgBouncer in transaction mode, where the next transaction is anybody's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import URL, Engine, create_engine, insert, select, text, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from sqla_rls.exc import BindingError, CallerRequired, ExpiredToken
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from tests.support.sessions import BACKEND, CALLER, NOBODY, Todo, assert_refused

PEOPLE = [Caller(role="authenticated", subject=f"user {number}") for number in range(20)]
CLIENTS = 8
SETTINGS = text("SELECT current_setting('role'), coalesce(current_setting('request.jwt.claims', true), '')")


@pytest.fixture
def servers() -> int:
    """How many server connections there are, for all clients together."""
    return 3


@pytest.fixture
def bounced(pgbouncer: None, url: URL, servers: int) -> Iterator[URL]:
    """Goes through PgBouncer."""
    with PgBouncer(url, pool_size=servers) as bouncer:
        yield bouncer.url


@pytest.fixture
def clients(bounced: URL) -> Iterator[Engine]:
    """Connections to PgBouncer, more than it has itself."""
    engine = create_engine(bounced, pool_size=CLIENTS, connect_args=CONNECT_ARGS["psycopg"])
    yield engine
    engine.dispose()


@pytest.fixture
def maker(clients: Engine, transport: Transport) -> sessionmaker[Session]:
    maker = sessionmaker(clients)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    return maker


@pytest.fixture
def everybodys(admin: Engine) -> None:
    """Three todos of each person."""
    with Session(admin) as session:
        session.add_all([Todo(user_id=one.subject, task="x") for one in PEOPLE for _ in range(3)])
        session.commit()


def assert_own_rows_only(session: Session, who: Caller, chance: random.Random) -> None:
    """Some transactions of *who*, whose end is left to chance."""
    identify(session, who)
    for _ in range(3):
        assert session.scalars(select(Todo.user_id)).all() == [who.subject] * 3
        assert session.execute(CALLER).one() == (who.role, who.subject)
        changed = session.scalars(update(Todo).values(task=who.subject).returning(Todo.user_id)).all()
        assert changed == [who.subject] * 3
        chance.choice([session.commit, session.rollback])()


def assert_nothing_left(clients: Engine, servers: int) -> None:
    """On any of the server connections, each held by a raw client at the same time."""
    connections = [clients.connect() for _ in range(servers)]
    assert len({connection.scalar(BACKEND) for connection in connections}) == servers
    for connection in connections:
        assert connection.execute(CALLER).one() == NOBODY
        assert connection.execute(SETTINGS).one() == ("none", "")
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(select(Todo))
        connection.close()


@pytest.mark.exhaustive
def test_threads_see_their_own_rows_and_leave_nothing(
    clients: Engine, maker: sessionmaker[Session], everybodys: None, servers: int
) -> None:
    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(3):
            with maker() as session:
                assert_own_rows_only(session, chance.choice(PEOPLE), chance)

    with ThreadPoolExecutor(CLIENTS) as threads:
        for done in [threads.submit(work, seed) for seed in range(CLIENTS)]:
            done.result()
    assert_nothing_left(clients, servers)


@pytest.mark.exhaustive
async def test_tasks_see_their_own_rows_and_leave_nothing(
    clients: Engine,
    bounced: URL,
    driver_and_transport: tuple[str, Transport],
    runner: object,
    everybodys: None,
    servers: int,
) -> None:
    driver, transport = driver_and_transport
    engine = create_async_engine(
        bounced.set(drivername=f"postgresql+{driver}"), pool_size=CLIENTS, connect_args=CONNECT_ARGS[driver]
    )
    maker = async_sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(3):
            async with maker() as session:
                await session.run_sync(assert_own_rows_only, chance.choice(PEOPLE), chance)
                stream = await session.stream_scalars(select(Todo.user_id))
                assert len({user_id async for user_id in stream}) == 1
                with pytest.raises(ProgrammingError, match="row-level security"):
                    await session.execute(insert(Todo).values(user_id="somebody else", task="forged"))

    await asyncio.gather(*(work(seed) for seed in range(CLIENTS)))
    assert_nothing_left(clients, servers)
    await engine.dispose()


@pytest.mark.parametrize("servers", [1])
def test_who_comes_next_on_the_server_connection_is_not_the_last(
    clients: Engine, maker: sessionmaker[Session], everybodys: None
) -> None:
    first, second = maker(), maker()
    backends = set()
    for session, who in [
        (first, PEOPLE[0]),
        (second, PEOPLE[1]),
        (first, PEOPLE[0]),
        (second, Caller.anonymous()),
    ]:
        identify(session, who)
        assert session.execute(CALLER).one() == (who.role, who.subject)
        backends.add(session.scalar(BACKEND))
        session.commit()
        with clients.connect() as raw:
            backends.add(raw.scalar(BACKEND))
            assert raw.execute(CALLER).one() == NOBODY
    assert len(backends) == 1
    first.close()
    second.close()


@pytest.mark.exhaustive
@pytest.mark.parametrize("servers", [1])
def test_who_is_refused_holds_nobody_up(
    clients: Engine, maker: sessionmaker[Session], everybodys: None
) -> None:
    refusals = [
        (replace(PEOPLE[0], expires_at=time.time() - 1), ExpiredToken),
        (replace(PEOPLE[0], role="nobody_has_it"), BindingError),
        (replace(PEOPLE[0], role="pg_monitor"), BindingError),
    ]
    with maker() as session:
        assert_refused(session, CallerRequired)
        session.rollback()
        for who, refusal in refusals:
            identify(session, who)
            assert_refused(session, refusal)
            session.rollback()
            with maker() as others:
                assert_own_rows_only(others, PEOPLE[1], random.Random(0))
    assert_nothing_left(clients, 1)
