"""The two sides of a case, each in a database on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.cases.case import Case
from tests.analyze.cases.evidence import change, prepare
from tests.support.servers import cleared_server


class Servers:
    """Two servers, and on each an empty database with the functions of schema ``auth``."""

    def __init__(self, before: Server, after: Server) -> None:
        self.both = (before, after)
        self.templates = [self._template(server) for server in self.both]

    @classmethod
    @contextmanager
    def start(cls) -> Iterator[Servers]:
        with cleared_server() as before, cleared_server() as after:
            yield cls(before, after)

    @contextmanager
    def sides(self, case: Case) -> Iterator[tuple[Connection, Connection]]:
        """A superuser's connections to the databases before and after the change."""
        with self.databases(case) as names, self.connected(names) as connections:
            yield connections

    @contextmanager
    def connected(self, names: tuple[str, str]) -> Iterator[tuple[Connection, Connection]]:
        """A superuser's connections to the databases of these names."""
        with ExitStack() as stack:
            before, after = (
                stack.enter_context(create_engine(server.url(name), poolclass=NullPool).connect())
                for server, name in zip(self.both, names, strict=True)
            )
            yield before, after

    @contextmanager
    def databases(self, case: Case) -> Iterator[tuple[str, str]]:
        """The names of the databases before and after the change."""
        before, after = (
            server.create_database(template=template)
            for server, template in zip(self.both, self.templates, strict=True)
        )
        try:
            for is_after, server, name in zip((False, True), self.both, (before, after), strict=True):
                with self._superuser(server, name) as connection:
                    prepare(connection, case)
                    if is_after:
                        change(connection, case)
            yield before, after
        finally:
            for server, name in zip(self.both, (before, after), strict=True):
                server.drop_database(name)
                with self._superuser(server) as connection:
                    for role in case.roles:
                        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))

    @staticmethod
    def _template(server: Server) -> str:
        name = server.create_database()
        with create_engine(server.url(name), poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
        return name

    @staticmethod
    @contextmanager
    def _superuser(server: Server, name: str | None = None) -> Iterator[Any]:
        engine = create_engine(server.url(name), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection.connection.driver_connection
