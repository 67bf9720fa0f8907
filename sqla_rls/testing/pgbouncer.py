"""A PgBouncer for tests, in transaction mode.

In this mode, the next transaction on a server connection may belong to another client.
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
from sqla_rls.server.account import Account, end
from sqla_rls.server.cluster import STOP_TIMEOUT, free_port

START_TIMEOUT: Final = 10.0  # seconds

#: The ``create_engine(connect_args=…)`` that each driver needs.  They turn off prepared statements, which
#: exist on one server connection only.
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
    """This machine has no PgBouncer, or it doesn't start; the message has the next step or the reason."""


def find_pgbouncer() -> str | None:
    """Return the path of the program; None if this machine doesn't have it."""
    return shutil.which(
        "pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin"
    )


class PgBouncer:
    """A PgBouncer in transaction mode, on a free port; a context manager.

    Every client on this machine can connect without a password.

    Attributes:
        url: the URL of the server, through PgBouncer.
    """

    def __init__(self, url: URL, *, pool_size: int) -> None:
        """Start PgBouncer in front of a server.

        Args:
            url: the URL of the server; clients log in with its user and password.
            pool_size: the server connections for each user and database (``default_pool_size``).

        Raises:
            PgBouncerUnavailable: it isn't installed, or it failed; the message has its output.
        """
        program = find_pgbouncer()
        if program is None:
            raise PgBouncerUnavailable(
                "PgBouncer can't start: this machine doesn't have it. Run apt install pgbouncer"
            )
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
                raise PgBouncerUnavailable(
                    f"PgBouncer doesn't start: it has ended, or isn't ready in time. Read its log:\n{said}"
                )
            time.sleep(0.005)

    def stop(self) -> None:
        """End PgBouncer and remove its files; a second call has no effect."""
        if self._log.closed:
            return
        end(self._process, STOP_TIMEOUT)
        self._log.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> PgBouncer:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
