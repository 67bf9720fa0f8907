"""What a bound transaction costs the client, in counts: they don't depend on the machine or its load."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from benchmarks.client import calls
from benchmarks.contenders import create_database
from sqla_rls.session import plan
from sqla_rls.testing.postgres import Server
from tests.support.suite import table

pytestmark = pytest.mark.one_postgres

#: The calls of Python functions that a bound transaction may have beyond plain SQLAlchemy's.
CEILINGS = {"psycopg": 27, "psycopg_async": -50, "asyncpg": -9}
#: The waits of psycopg: the exchange of the first statement, and COMMIT.
WAITS = {"psycopg": 2, "psycopg_async": 4, "asyncpg": 0}


@pytest.fixture(scope="module")
def notes(server: Server) -> Iterator[URL]:
    name = create_database(server)
    yield server.url(name)
    server.drop_database(name)


@pytest.mark.exhaustive
@table("driver", list(CEILINGS))
def test_a_bound_transaction_takes_few_calls_more_than_plain_sqlalchemy(notes: URL, driver: str) -> None:
    counted = calls(driver, notes)
    assert counted["bound"]["all"] <= counted["plain"]["all"] + CEILINGS[driver]
    assert counted["bound"]["waits"] <= WAITS[driver] + 0.5


@pytest.mark.exhaustive
def test_the_seeds_of_a_connection_differ_and_take_few_calls_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls_of_the_system: list[int] = []

    def counted(size: int) -> bytes:
        calls_of_the_system.append(size)
        return os.urandom(size)

    monkeypatch.setattr(plan, "urandom", counted)
    seeds = [plan.seeds(), plan.seeds()]
    assert len({one() for one in seeds for _ in range(100)}) == 200
    assert len(calls_of_the_system) <= 8
