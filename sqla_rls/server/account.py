"""The account of the operating system that runs the server's programs.

Postgres refuses to run as root.  For root, an unprivileged account runs the programs.  It must be able to
reach the programs, and it owns its files.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import IO, Final

from sqla_rls.server.installation import PostgresUnavailable

# The server is the child of a shell.  The shell waits at a pipe until this process writes to it or dies; then
# the shell ends the server and removes its files.  PR_SET_PDEATHSIG isn't used: it fires at the end of the
# thread that forked, needs Python between fork and exec, exists only on Linux, and leaves the files.
_SUPERVISOR: Final = """
signal=$1 directory=$2 copy=$3
shift 3
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -"$signal" "$server"; } 2>/dev/null &
watcher=$!
wait "$server"
kill "$watcher" 2>/dev/null
rm -rf "$directory" "$copy"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account of the operating system; both fields are None for the present account."""

    user: int | None = None
    group: int | None = None

    @classmethod
    def unprivileged(cls) -> Account:
        """Return the present account; for root, ``postgres`` or ``nobody``.

        Raises:
            PostgresUnavailable: the account is root, and neither of the two exists.
        """
        if os.geteuid() != 0:
            return cls()
        import pwd  # Windows doesn't have it

        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(user=entry.pw_uid, group=entry.pw_gid)
        raise PostgresUnavailable(
            "Postgres can't start: it refuses root, and there is no account postgres or nobody. "
            "Create one of them, or run as another account"
        )

    def start(self, command: Sequence[str | Path], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start *command*, which reads from a pipe and writes to *output*."""
        # PG* variables for this process's libpq would change defaults of the server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**environment, "LC_ALL": "C", "TZ": "UTC"},
            # Ctrl-C must not end the server, since the cleanup after it may need the server.
            start_new_session=True,
            user=self.user,
            group=self.group,
            extra_groups=None if self.user is None else [],
        )

    def supervise(
        self,
        command: Sequence[str | Path],
        output: IO[bytes],
        directory: Path,
        copy: Path | None = None,
        *,
        signal: str,
    ) -> subprocess.Popen[bytes]:
        """Start the server *command*, and remove its files when it ends.

        Args:
            command: the program and its arguments.
            output: the file for its output.
            directory: a directory to remove.
            copy: another directory to remove.
            signal: the signal that ends the server, when this process ends or calls ``end()``.
        """
        supervisor = ["/bin/sh", "-c", _SUPERVISOR, "sqla_rls", signal, str(directory), str(copy or "")]
        process = self.start([*supervisor, *map(str, command)], output)
        assert process.stdin
        # A forked child has a copy of the pipe's end, and may outlive this process.
        os.register_at_fork(after_in_child=process.stdin.close)
        return process

    def succeeds(self, *command: str | Path) -> bool:
        """Return whether the account can run *command* successfully."""
        try:
            with tempfile.TemporaryFile() as output, self.start(command, output) as process:
                process.communicate()
        except OSError:
            return False
        return process.returncode == 0

    def make_directory(self, parents: Iterable[str]) -> Path:
        """Return a new directory of the account in the first of *parents* that it can reach.

        Raises:
            PostgresUnavailable: the account can't write to any of them.
        """
        for parent in parents:
            try:
                directory = Path(tempfile.mkdtemp(prefix="sqla_rls-", dir=parent))
            except OSError:
                continue
            self.take(directory)
            if self.succeeds("/bin/sh", "-c", 'test -w "$1"', "sh", directory):
                return directory
            directory.rmdir()
        raise PostgresUnavailable(
            "Postgres can't start: its account can't write to any directory for temporary files. "
            "Set TMPDIR to one that it can write to"
        )

    def take(self, tree: Path) -> None:
        """Make the account the owner of *tree* and of its contents."""
        if self.user is not None and self.group is not None:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, self.user, self.group)


def end(server: subprocess.Popen[bytes], timeout: float) -> None:
    """End a supervised *server*; kill it after *timeout* seconds."""
    try:
        server.communicate(b"stop\n", timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, SIGKILL)
        server.wait()
