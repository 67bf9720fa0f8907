"""Two servers with the same roles, and a database on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqla_rls.server.postgres import Server
from tests.support.in_place import ROLES, Databases, database
from tests.support.servers import two_cleared_servers


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with two_cleared_servers(ROLES) as both:
        yield both


@pytest.fixture(scope="module")
def databases(servers: tuple[Server, Server]) -> Iterator[Databases]:
    with database(servers[0]) as before, database(servers[1]) as after:
        yield Databases(before, after)
