"""What the tests share: every Postgres there is, a database for each test, people."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls import Identity
from sqla_rls.testing.pgbouncer import find_pgbouncer
from sqla_rls.testing.postgres import Installation, Server, installations

# Under nohup, or in the background of a script, these are ignored, by the children that tests interrupt, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

INSTALLATIONS = [None] if "SQLA_RLS_TEST_URL" in os.environ else installations()


@pytest.fixture(
    scope="session",
    params=INSTALLATIONS,
    ids=lambda found: f"postgres{found.version}" if found else "given",
)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The wheel's PostgreSQL, and each that the system has."""
    installation: Installation | None = request.param
    with (
        Server.start(installation)
        if installation
        else Server.connect(os.environ["SQLA_RLS_TEST_URL"]) as found
    ):
        yield found


@pytest.fixture
def database(server: Server) -> Iterator[URL]:
    """The superuser's URL of an empty database."""
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    """Connects to it as the superuser."""
    engine = create_engine(database, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def pgbouncer() -> None:
    """For tests that start one; in CI, where it must be there, they fail without."""
    if find_pgbouncer() is None and "pgbouncer" not in os.environ.get("SQLA_RLS_TEST_REQUIRE", ""):
        pytest.skip("there is no PgBouncer here: apt install pgbouncer")


@pytest.fixture
def alice() -> Identity:
    return Identity(role="authenticated", subject="alice")


@pytest.fixture
def bob() -> Identity:
    return Identity(role="authenticated", subject="bob")
