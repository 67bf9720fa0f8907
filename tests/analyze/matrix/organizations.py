"""A database of organizations: conditions, constants, and each way around policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from tests.support.servers import cleared_server

SQL = Path(__file__).with_name("organizations.sql").read_text(encoding="utf-8")


@contextmanager
def scratch_database(script: str = SQL) -> Iterator[Connection]:
    """A superuser's connection to a server of its own, since the matrix lists all roles."""
    with cleared_server() as server:
        url = server.url(server.create_database())
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.connection.cursor().execute(script)
        with engine.connect() as connection:
            yield connection
