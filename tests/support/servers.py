"""Servers of which a test may change the roles: one after the other, tests take the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.server.installation import Installation
from sqla_rls.server.postgres import Server
from tests.support.suite import find_installation, newest

_free: Final[dict[Installation, list[Server]]] = {}

_DATABASES: Final = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
_ROLES: Final = "SELECT rolname FROM pg_roles WHERE oid >= 16384"


@contextmanager
def cleared_server(installation: Installation | None = None) -> Iterator[Server]:
    """Give a server without databases and roles that no other test has at the moment.

    Args:
        installation: the binaries; None is the newest.
    """
    installation = installation or find_installation(newest())
    free = _free.setdefault(installation, [])
    # Autovacuum's transactions would count among those of a test.
    server = free.pop() if free else Server.start(installation, settings={"autovacuum": "off"})
    try:
        yield server
        _clear(server)
    except BaseException:
        server.stop()
        raise
    free.append(server)


@contextmanager
def two_cleared_servers(roles: str) -> Iterator[tuple[Server, Server]]:
    """Give two cleared servers, each with the roles that the script *roles* creates."""
    with cleared_server() as one, cleared_server() as other:
        for server in (one, other):
            with administered(server) as connection:
                connection.exec_driver_sql(roles)
        yield one, other


def administered(server: Server) -> Connection:
    """Connect as the superuser, in AUTOCOMMIT."""
    return create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


def _clear(server: Server) -> None:
    url = server.url().set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as superuser:
        for (name,) in superuser.execute(_DATABASES).fetchall():
            server.drop_database(name)
        names = [sql.Identifier(name) for (name,) in superuser.execute(_ROLES).fetchall()]
        for statement in ("DROP OWNED BY {}", "DROP ROLE {}") if names else ():
            superuser.execute(sql.SQL(statement).format(sql.SQL(", ").join(names)))
