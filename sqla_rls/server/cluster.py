"""A throw-away cluster: its files and its processes.

When this process ends, even by SIGKILL, account.py ends the server and removes its files.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

from sqla_rls.server import initial_files
from sqla_rls.server.account import Account, end
from sqla_rls.server.installation import Installation, PostgresUnavailable

DEFAULT_SETTINGS: Final = {
    # The data is thrown away, so no statement needs to wait for a disk.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # With mmap the memory is in the data directory; /dev/shm/PostgreSQL.* outlives a killed server.
    "dynamic_shared_memory_type": "mmap",
}

MEMORY_NEEDED: Final = 2**30  # bytes: a cluster takes 40 MB, and each database 8 MB
START_TIMEOUT: Final = 60.0  # seconds
STOP_TIMEOUT: Final = 10.0  # seconds


class Cluster:
    """A running throw-away cluster; with *primary*, a hot standby of the server at that port.

    Attributes:
        port: the port on 127.0.0.1, and part of the socket's name.
        directory: the directory of the socket, which no other account can enter.  ``data`` in it has the
            cluster.  ``initial`` has the files that initdb made, if other clusters of this process may copy
            them.
    """

    def __init__(
        self,
        installation: Installation,
        settings: Mapping[str, str],
        port: int,
        primary: int | None,
        *,
        listens: bool,
    ) -> None:
        self.port = port
        self._listens = listens
        self._account = Account.unprivileged()
        with ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile())
            self.directory = self._account.make_directory(_data_parents())
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._copy: Path | None = None
            originals = installation
            if not _can_run(self._account, installation.bindir / "postgres"):
                # The account can't reach the programs, for example in a virtual environment of root.
                self._copy = self._account.make_directory(_temporary_parents())
                undo.callback(shutil.rmtree, self._copy, ignore_errors=True)
                installation = installation.copy(self._copy)
                self._account.take(self._copy)
            undo.callback(initial_files.withdraw, self.directory)
            self._make(originals, installation, primary)
            self._process = self._start(installation, settings)
            undo.callback(self.stop)
            self._wait_until_ready()
            undo.pop_all()

    def _make(self, originals: Installation, installation: Installation, primary: int | None) -> None:
        data = self.directory / "data"
        if primary is None:
            with initial_files.of(originals, self.directory) as (initial, exist):
                if not exist:
                    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
                    self._run(installation.bindir / "initdb", "-D", initial, *options, "--no-sync")
                    _remove_maps(initial)
                self._run("cp", "-R", "-p", initial, data)
            return
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        options += ["--host=127.0.0.1", f"--port={primary}", "--username=postgres"]
        self._run(installation.bindir / "pg_basebackup", "-D", data, *options)

    def _run(self, program: Path | str, *arguments: Path | str) -> None:
        with self._account.start([program, *arguments], self._log) as process:
            process.communicate()
        if process.returncode:
            raise PostgresUnavailable(
                f"Postgres can't start: {Path(program).name} failed. Read its output:\n{_text(self._log)}"
            )

    def _start(self, installation: Installation, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        settings = {
            **DEFAULT_SETTINGS,
            **settings,
            "listen_addresses": "127.0.0.1" if self._listens else "",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        server = [str(installation.bindir / "postgres"), "-D", f"{self.directory}/data"]
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        # QUIT is an immediate shutdown, since the data is thrown away.
        return self._account.supervise(
            [*server, *options], self._log, self.directory, self._copy, signal="QUIT"
        )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PostgresUnavailable(
                    "Postgres doesn't start: it has ended, or isn't ready in time. "
                    f"Read its log:\n{_text(self._log)}"
                )
            time.sleep(0.005)

    def _ready(self) -> bool:
        # As in pg_ctl: the eighth line is the state; "ready" means that socket and port are open.
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self) -> None:
        """End the server and remove its files; a second call has no effect."""
        if self._log.closed:
            return
        initial_files.withdraw(self.directory)
        end(self._process, STOP_TIMEOUT)
        self._log.close()
        for directory in filter(None, (self.directory, self._copy)):
            shutil.rmtree(directory, ignore_errors=True)


def launch(
    installation: Installation,
    settings: Mapping[str, str],
    *,
    primary: int | None = None,
    listens: bool = True,
) -> Cluster:
    """Create a cluster and start it on a free port.

    Args:
        installation: the binaries.
        settings: settings of the server.
        primary: create a hot standby of the server at this port instead.
        listens: whether the server listens on 127.0.0.1; without it, on its socket only.

    Raises:
        PostgresUnavailable: initdb or the server failed; the message has its output.
    """
    while True:
        port = free_port()
        try:
            return Cluster(installation, settings, port, primary, listens=listens)
        except PostgresUnavailable:
            # Another program may have taken the port.  Another failure would repeat itself.
            if not _taken(port):
                raise


def _remove_maps(data: Path) -> None:
    """Remove the maps of free space and of visibility, which Postgres makes again where it needs them.

    Each database is a copy of these files: it has 226 files in place of 300.
    """
    for pattern in ("base/*/*_fsm", "base/*/*_vm"):
        for path in data.glob(pattern):
            path.unlink()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


@cache
def _can_run(account: Account, program: Path) -> bool:
    return account.succeeds(program, "--version")


def _data_parents() -> Iterator[str]:
    # Memory first: on ext4, creating a database soon after dropping others takes 100 ms instead of 10.
    memory = "/dev/shm"  # noqa: S108
    with suppress(OSError):
        if shutil.disk_usage(memory).free > MEMORY_NEEDED:
            yield memory
    # A socket's path may have 103 bytes, and the names below take 33.
    yield from (parent for parent in _temporary_parents() if len(os.fsencode(parent)) <= 70)


def _temporary_parents() -> Iterator[str]:
    yield tempfile.gettempdir()
    yield from ("/tmp", "/var/tmp")  # noqa: S108


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
