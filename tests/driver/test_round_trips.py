"""How often a transaction waits for the network, beside plain SQLAlchemy on the same driver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import pytest
from sqlalchemy import URL, create_engine, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security
from sqla_rls.driver.base import Transport
from sqla_rls.testing.pgbouncer import CONNECT_ARGS, PgBouncer
from sqla_rls.testing.postgres import Server
from sqla_rls.testing.proxy import Proxy
from tests.support.sessions import TASKS, Todo
from tests.support.signing import Signed
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy

Work: TypeAlias = Callable[[Session], object]
#: ``count(driver, transport, work)``: the round trips of *work*; *transport* None is plain SQLAlchemy.
Count: TypeAlias = Callable[..., int]

PSYCOPG = ["psycopg", "psycopg_async"]
UNTIL_PREPARED = 7  # psycopg prepares a statement, in a round trip of its own, when it comes the fifth time
AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.host, server.port) as proxy:
        yield proxy


@pytest.fixture
def measure(runner: asyncio.Runner, alice: Caller) -> Iterator[Count]:
    """``measure(proxy, url, work, enforced, **options)``: the last two are arguments of
    ``enforce_row_security()``, which isn't called without any, and of the engine.
    """
    ends: list[Callable[[], None]] = []

    def measure(
        proxy: Proxy, url: URL, work: Work, enforced: Mapping[str, Any] | None = None, **options: Any
    ) -> int:
        url = url.set(host=proxy.host, port=proxy.port)
        maker: sessionmaker[Session] | async_sessionmaker[AsyncSession]
        if url.drivername == "postgresql+psycopg":
            engine = create_engine(url, **options)
            maker = sync_maker = sessionmaker(engine)
            ends.append(engine.dispose)

            def transaction() -> None:
                with sync_maker() as session:
                    work(session)
        else:
            async_engine = create_async_engine(url, **options)
            maker = async_maker = async_sessionmaker(async_engine)
            ends.append(lambda: runner.run(async_engine.dispose()))

            def transaction() -> None:
                runner.run(in_async_session(async_maker, work))

        if enforced is not None:
            enforce_row_security(maker, token=lambda: alice, **enforced)
        for _ in range(UNTIL_PREPARED):
            transaction()
        before = proxy.round_trips
        transaction()
        return proxy.round_trips - before

    yield measure
    for end in ends:
        end()


@pytest.fixture
def count(proxy: Proxy, measure: Count, url: URL, todos: None, alice: Caller) -> Count:
    # Logged in as the role, with the claims that Alice's sessions bind.
    plain = url.set(username="authenticated_login", password="authenticated_login")

    def count(driver: str, transport: Transport | None, work: Work, **options: Any) -> int:
        name = f"postgresql+{driver}"
        if transport is None:
            arguments = fixed_claims(driver, alice)
            return measure(proxy, plain.set(drivername=name), work, connect_args=arguments, **options)
        enforced = {"options": BindingOptions(transport=transport)}
        return measure(proxy, url.set(drivername=name), work, enforced, **options)

    return count


def fixed_claims(driver: str, caller: Caller) -> dict[str, Any]:
    if driver == "asyncpg":
        return {"server_settings": {"request.jwt.claims": caller.claims_json}}
    return {"options": f"-c request.jwt.claims={caller.claims_json}"}


async def in_async_session(maker: async_sessionmaker[AsyncSession], work: Work) -> None:
    async with maker() as session:
        await session.run_sync(work)


def one_select(session: Session) -> None:
    assert session.scalars(TASKS).all() == ["alice's"]
    session.commit()


def two_selects(session: Session) -> None:
    assert session.scalars(TASKS).all() == ["alice's"]
    assert session.scalars(TASKS).all() == ["alice's"]
    session.commit()


def a_flush(session: Session) -> None:
    session.add(Todo(task="another"))
    session.flush()
    session.rollback()


def a_bulk_insert(session: Session) -> None:
    session.execute(insert(Todo), [{"task": f"{number}"} for number in range(10)])
    session.rollback()


def nothing(session: Session) -> None:
    session.connection()
    session.commit()


@table("driver", [*PSYCOPG, "asyncpg"])
@table("work", [one_select, two_selects, a_flush, a_bulk_insert])
@pytest.mark.exhaustive
def test_with_begin_a_binding_takes_no_round_trip_and_as_a_statement_one(
    count: Count, driver: str, work: Work
) -> None:
    plain = count(driver, None, work)
    assert count(driver, "with_begin", work) == plain
    assert count(driver, "statement", work) == plain + 1


@pytest.mark.exhaustive
@table("driver", [*PSYCOPG, "asyncpg"])
@table("work", [one_select, two_selects, a_flush])
def test_in_a_pipeline_a_transaction_takes_one_round_trip_less_than_unbound(
    count: Count, driver: str, work: Work
) -> None:
    assert count(driver, "pipeline", work) == count(driver, None, work) - 1


@pytest.mark.exhaustive
@pytest.mark.parametrize("driver", [*PSYCOPG, "asyncpg"])
def test_executemany_in_a_pipeline_takes_what_it_takes_unbound(count: Count, driver: str) -> None:
    assert count(driver, "pipeline", a_bulk_insert) == count(driver, None, a_bulk_insert)


@pytest.mark.exhaustive
@pytest.mark.parametrize("driver", [*PSYCOPG, "asyncpg"])
@pytest.mark.parametrize("transport", ["with_begin", "pipeline"])
def test_in_autocommit_a_statement_takes_one_round_trip_bound_or_not(
    count: Count, driver: str, transport: Transport
) -> None:
    assert (
        count(driver, transport, one_select, **AUTOCOMMIT)
        == count(driver, None, one_select, **AUTOCOMMIT)
        == 1
    )
    assert count(driver, transport, two_selects, **AUTOCOMMIT) == 2


@table("driver", [*PSYCOPG, "asyncpg"])
def test_the_round_trips_that_the_documentation_states(count: Count, driver: str) -> None:
    stated: dict[Transport | None, int] = {None: 3, "with_begin": 3, "pipeline": 2, "statement": 4}
    assert {transport: count(driver, transport, one_select) for transport in stated} == stated


@table("driver", ["asyncpg", *PSYCOPG])
def test_the_round_trips_of_a_signed_binding(
    proxy: Proxy, measure: Count, signed: Signed, driver: str
) -> None:
    url = signed.app.url.set(drivername=f"postgresql+{driver}")
    stated: dict[Transport, int] = {"auto": 2, "with_begin": 3, "pipeline": 2, "statement": 4}
    for transport, expected in stated.items():
        options = BindingOptions(transport=transport, signing="required")
        assert measure(proxy, url, one_select, {"signing_key": signed.key, "options": options}) == expected


@pytest.mark.exhaustive
@table("transport, expected", [("auto", 2), ("with_begin", 4)])
def test_through_pgbouncer_no_message_of_asyncpg_holds_a_token(
    pgbouncer: None, measure: Count, signed: Signed, transport: Transport, expected: int
) -> None:
    # The token is valid on other connections there.
    options = BindingOptions(transport=transport, signing="required")
    with (
        PgBouncer(signed.app.url, pool_size=1) as bouncer,
        Proxy(str(bouncer.url.host), bouncer.url.port or 0) as proxy,
    ):
        url = bouncer.url.set(drivername="postgresql+asyncpg")
        enforced = {"signing_key": signed.key, "options": options}
        assert measure(proxy, url, one_select, enforced, connect_args=CONNECT_ARGS["asyncpg"]) == expected


@pytest.mark.exhaustive
@pytest.mark.parametrize("driver", [*PSYCOPG, "asyncpg"])
def test_the_pipeline_is_chosen(count: Count, driver: str) -> None:
    assert count(driver, "auto", one_select) == 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("driver", [*PSYCOPG, "asyncpg"])
def test_a_transaction_that_does_nothing_takes_none(count: Count, driver: str) -> None:
    assert count(driver, "with_begin", nothing) == 0


@pytest.mark.exhaustive
def test_a_delay_is_that_of_each_way(proxy: Proxy, url: URL) -> None:
    engine = create_engine(url.set(host=proxy.host, port=proxy.port))
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        proxy.set_delay(0.05)
        try:
            before = time.perf_counter()
            raw.execute("SELECT 1")  # after BEGIN
            assert time.perf_counter() - before >= 4 * 0.05
        finally:
            proxy.set_delay(0)
    engine.dispose()
