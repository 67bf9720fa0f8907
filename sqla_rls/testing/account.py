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
from typing import IO

from sqla_rls.testing.installation import PostgresUnavailable


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
