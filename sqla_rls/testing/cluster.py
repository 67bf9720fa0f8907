"""A throw-away cluster: its files and its processes.

Nothing outlives us.  The server is the child of a shell which waits at a pipe for us to stop it, or to
die however suddenly; then it ends the server and removes its files.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Final

from sqla_rls.testing.account import Account
from sqla_rls.testing.installation import Installation, PostgresUnavailable

DEFAULT_SETTINGS: Final = {
    # The data is thrown away, so nothing need wait for a disk.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # In the data directory, which we remove; /dev/shm/PostgreSQL.* outlives a server that is killed.
    "dynamic_shared_memory_type": "mmap",
}

MEMORY_NEEDED: Final = 2**30  # bytes: a cluster is 40 MB, each database in it 8
START_TIMEOUT: Final = 60.0  # seconds
STOP_TIMEOUT: Final = 10.0  # seconds

# A pipe rather than PR_SET_PDEATHSIG: that fires when the thread that forked ends, not the process,
# needs Python between fork and exec, is there on Linux only, and leaves the files.
# QUIT, "immediate shutdown", because nothing is to be kept.
_SUPERVISOR: Final = """
data=$1 binaries=$2
shift 2
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -QUIT "$server"; } 2>/dev/null &
watcher=$!
wait "$server"
kill "$watcher" 2>/dev/null
rm -rf "$data" "$binaries"
"""


class Cluster:
    """A throw-away cluster, running.

    Attributes:
        port: on 127.0.0.1, and part of the socket's name.
        directory: holds the socket and, in ``data``, the cluster.
    """

    def __init__(self, installation: Installation, settings: Mapping[str, str], port: int) -> None:
        self.port = port
        self._account = Account.unprivileged()
        with ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile())
            self.directory = self._account.make_directory(_data_parents())
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self._copy: Path | None = None
            if not self._account.succeeds(installation.bindir / "postgres", "--version"):
                # Such as those of a virtual environment in root's home.
                self._copy = self._account.make_directory(_temporary_parents())
                undo.callback(shutil.rmtree, self._copy, ignore_errors=True)
                installation = installation.copy(self._copy)
                self._account.take(self._copy)
            self._initdb(installation)
            self._process = self._start(installation, settings)
            undo.callback(self.stop)
            self._wait_until_ready()
            undo.pop_all()

    def _initdb(self, installation: Installation) -> None:
        command = [str(installation.bindir / "initdb"), "-D", f"{self.directory}/data"]
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        with self._account.start([*command, *options], self._log) as process:
            process.communicate()
        if process.returncode:
            raise PostgresUnavailable(f"initdb failed:\n{_text(self._log)}")

    def _start(self, installation: Installation, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
        settings = {
            **DEFAULT_SETTINGS,
            **settings,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
        }
        supervisor = ["/bin/sh", "-c", _SUPERVISOR, "sqla_rls", str(self.directory), str(self._copy or "")]
        server = [str(installation.bindir / "postgres"), "-D", f"{self.directory}/data"]
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        process = self._account.start([*supervisor, *server, *options], self._log)
        assert process.stdin
        # A forked child has a copy of the pipe's end, and might outlive us with it.
        os.register_at_fork(after_in_child=process.stdin.close)
        return process

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise PostgresUnavailable(f"Postgres doesn't start:\n{_text(self._log)}")
            time.sleep(0.005)

    def _ready(self) -> bool:
        # As pg_ctl does: the eighth line is the state, "ready" once both socket and port are ours.
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self) -> None:
        """End the server and remove its files; does nothing the second time."""
        if self._log.closed:
            return
        try:
            self._process.communicate(b"stop\n", timeout=STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
        for directory in filter(None, (self.directory, self._copy)):
            shutil.rmtree(directory, ignore_errors=True)


def launch(installation: Installation, settings: Mapping[str, str]) -> Cluster:
    """Make a cluster and start it on a port of its own.

    Raises:
        PostgresUnavailable: with what initdb or the server said.
    """
    while True:
        port = free_port()
        try:
            return Cluster(installation, settings, port)
        except PostgresUnavailable:
            # Somebody else may have been quicker; any other failure would only repeat itself.
            if not _taken(port):
                raise


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def _data_parents() -> Iterator[str]:
    # In memory where there is room: on ext4 a database made soon after others were dropped takes
    # 100 ms instead of 10.
    memory = "/dev/shm"  # noqa: S108
    with suppress(OSError):
        if shutil.disk_usage(memory).free > MEMORY_NEEDED:
            yield memory
    # A socket's path may have 103 bytes, and 33 of them are names below.
    yield from (parent for parent in _temporary_parents() if len(os.fsencode(parent)) <= 70)


def _temporary_parents() -> Iterator[str]:
    yield tempfile.gettempdir()
    yield from ("/tmp", "/var/tmp")  # noqa: S108


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")
