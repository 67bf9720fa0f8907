"""Two servers with the same roles, and a database on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.server.postgres import Server
from tests.support.in_place import ROLES, Databases, database
from tests.support.servers import cleared_server


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with cleared_server() as before, cleared_server() as after:
        for server in (before, after):
            engine = create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql(ROLES)
        yield before, after


@pytest.fixture(scope="module")
def databases(servers: tuple[Server, Server]) -> Iterator[Databases]:
    with database(servers[0]) as before, database(servers[1]) as after:
        yield Databases(before, after)
