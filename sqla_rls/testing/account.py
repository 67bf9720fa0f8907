"""Who runs the server's programs.

We do; but they refuse root, so for root it's an unprivileged account, which must be able to reach the
programs and own its files.
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

from sqla_rls.testing.installation import PostgresUnavailable

# The server is the child of a shell which waits at a pipe for us to stop it, or to die however suddenly;
# then it ends the server and removes its files.  A pipe rather than PR_SET_PDEATHSIG: that fires when the
# thread that forked ends, not the process, needs Python between fork and exec, is there on Linux only, and
# leaves the files.
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
    """An account of the operating system; the fields are None for our own."""

    user: int | None = None
    group: int | None = None

    @classmethod
    def unprivileged(cls) -> Account:
        """Our own or, for root, ``postgres`` or ``nobody``."""
        if os.geteuid() != 0:
            return cls()
        import pwd  # not there on Windows

        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(user=entry.pw_uid, group=entry.pw_gid)
        raise PostgresUnavailable("Postgres refuses root, and there is no account postgres or nobody")

    def start(self, command: Sequence[str | Path], output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start *command*, which reads from a pipe of ours and writes to *output*."""
        # What is meant for our libpq would change the server's defaults.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**environment, "LC_ALL": "C", "TZ": "UTC"},
            # Ctrl-C is for us: what cleans up after it may still need the server.
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
        """Start server *command*, which ends by *signal* when we do, or ``end()`` it; then its files go."""
        supervisor = ["/bin/sh", "-c", _SUPERVISOR, "sqla_rls", signal, str(directory), str(copy or "")]
        process = self.start([*supervisor, *map(str, command)], output)
        assert process.stdin
        # A forked child has a copy of the pipe's end, and might outlive us with it.
        os.register_at_fork(after_in_child=process.stdin.close)
        return process

    def succeeds(self, *command: str | Path) -> bool:
        """Whether the account can run *command*, with success."""
        try:
            with tempfile.TemporaryFile() as output, self.start(command, output) as process:
                process.communicate()
        except OSError:
            return False
        return process.returncode == 0

    def make_directory(self, parents: Iterable[str]) -> Path:
        """A new directory of its own in the first of *parents* that it can reach."""
        for parent in parents:
            try:
                directory = Path(tempfile.mkdtemp(prefix="sqla_rls-", dir=parent))
            except OSError:
                continue
            self.take(directory)
            if self.succeeds("/bin/sh", "-c", 'test -w "$1"', "sh", directory):
                return directory
            directory.rmdir()
        raise PostgresUnavailable("Postgres' account can't write to any directory for temporary files")

    def take(self, tree: Path) -> None:
        """Make the account the owner of *tree* and all below it."""
        if self.user is not None and self.group is not None:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, self.user, self.group)


def end(server: subprocess.Popen[bytes], timeout: float) -> None:
    """End a *server* that is supervised, by force if it takes more than *timeout* seconds."""
    try:
        server.communicate(b"stop\n", timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, SIGKILL)
        server.wait()
