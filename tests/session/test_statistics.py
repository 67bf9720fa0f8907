"""pg_stat_statements keeps what sessions send, and none of the claims."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.orm import Session

from sqla_rls import Caller
from sqla_rls.testing.postgres import Server
from tests.support.line import How, Line, hows
from tests.support.suite import table

pytestmark = [pytest.mark.every_postgres, pytest.mark.exhaustive]

KEPT = text("SELECT query FROM pg_stat_statements WHERE query LIKE '%request%jwt%claims%'")


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[URL]:
    with Server.start(
        server.installation, settings={"shared_preload_libraries": "pg_stat_statements"}
    ) as own:
        engine = create_engine(own.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("CREATE EXTENSION pg_stat_statements"))
            connection.execute(text("CREATE ROLE authenticated"))
            connection.execute(text("CREATE ROLE app LOGIN PASSWORD 'app'"))
            connection.execute(text("GRANT authenticated TO app"))
        engine.dispose()
        yield own.url("postgres", user="app", password="app")


@table("settings", [{}, {"temp_tablespaces": ""}])
@pytest.mark.parametrize("how", hows())
def test_the_statistics_have_one_text_for_all_callers(
    url: URL, runner: asyncio.Runner, how: How, settings: dict[str, str]
) -> None:
    line = Line(url, how, runner, settings=settings)
    for number in range(20):
        line.visit(Caller(role="authenticated", subject=f"person_{number}"), work)
    line.hang_up()
    engine = create_engine(url.set(username="postgres"))
    with engine.connect() as connection:
        kept = connection.scalars(KEPT).all()
    engine.dispose()
    assert 0 < len(kept) < 10
    assert [query for query in kept if "person" in query] == []


def work(session: Session) -> None:
    session.execute(text("SELECT 1"))
    session.commit()
