"""A PgBouncer for tests, in transaction mode.

What is bound must end with the transaction there, more than anywhere: the next one on the same server
connection may be of another client.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from contextlib import ExitStack, suppress
from typing import Any, Final

from sqlalchemy import URL

from sqla_rls.exc import RowSecurityError
from sqla_rls.testing.account import Account, end
from sqla_rls.testing.cluster import STOP_TIMEOUT, free_port

START_TIMEOUT: Final = 10.0  # seconds

#: What each driver must be told, as ``create_engine(connect_args=…)``: a statement prepared on one server
#: connection isn't there on the next, or is another client's.
CONNECT_ARGS: Final[dict[str, dict[str, Any]]] = {
    "psycopg": {"prepare_threshold": None},
    "asyncpg": {"statement_cache_size": 0},
}

_CONFIGURATION: Final = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
"""


class PgBouncerUnavailable(RowSecurityError):
    """There is no PgBouncer on this machine, or it doesn't start; the message says what to do, or why."""


def find_pgbouncer() -> str | None:
    """Where the program is, if it is on this machine."""
    return shutil.which(
        "pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin"
    )


class PgBouncer:
    """PgBouncer in transaction mode, on a port of its own; a context manager.  It trusts whoever connects.

    Attributes:
        url: that of the server, through PgBouncer.
    """

    def __init__(self, url: URL, *, pool_size: int) -> None:
        """Start it in front of a server, with *pool_size* connections for each user and database.

        Arguments:
            url: of the server; clients log in with its user and password.
            pool_size: PgBouncer's ``default_pool_size``.

        Raises:
            PgBouncerUnavailable: it isn't installed, or with what it said.
        """
        program = find_pgbouncer()
        if program is None:
            raise PgBouncerUnavailable("there is no PgBouncer here: apt install pgbouncer")
        account = Account.unprivileged()
        self.url = url.set(host="127.0.0.1", port=free_port())
        with ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile())
            self._directory = account.make_directory([tempfile.gettempdir()])
            undo.callback(shutil.rmtree, self._directory, ignore_errors=True)
            users, configuration = self._directory / "users", self._directory / "pgbouncer.ini"
            users.write_text(f'"{url.username}" "{url.password}"\n')
            configuration.write_text(
                _CONFIGURATION.format(
                    host=url.host,
                    port=url.port,
                    listen_port=self.url.port,
                    users=users,
                    pool_size=pool_size,
                )
            )
            account.take(self._directory)
            self._process = account.supervise(
                [program, configuration], self._log, self._directory, signal="TERM"
            )
            undo.callback(self.stop)
            self._wait_until_ready()
            undo.pop_all()

    def _wait_until_ready(self) -> None:
        deadline, port = time.monotonic() + START_TIMEOUT, self.url.port
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                said = self._log.read().decode(errors="replace")
                raise PgBouncerUnavailable(f"PgBouncer doesn't start:\n{said}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End it, and remove its files; does nothing the second time."""
        if self._log.closed:
            return
        end(self._process, STOP_TIMEOUT)
        self._log.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
