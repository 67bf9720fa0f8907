"""Packages of npm for tests.

Each is fetched once, to the user's cache.  Its content must have the hash that the test names.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TIMEOUT: Final = 120  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    name: str
    release: str
    #: The SHA-512 of the tarball, as npm states it.
    sha512: str


def fetch(package: Package, place: str, arrange: Callable[[Path], None] | None = None) -> Path | str:
    """The folder *place* of the cache, with the package in it; or why it can't be had.

    Args:
        place: its path below the cache.
        arrange: changes the unpacked package before anybody uses it.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sqla_rls")
    target = home / place
    target.parent.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        # Each worker of a run may be the first to need it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists() and (problem := _fetch(package, target, arrange)):
            return problem
    return target


def _fetch(package: Package, target: Path, arrange: Callable[[Path], None] | None) -> str:
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        name = f"{package.name}@{package.release}"
        command = ["npm", "pack", "--silent", "--pack-destination", directory, name]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT)
        except FileNotFoundError:
            return "npm isn't there to fetch it"
        except subprocess.TimeoutExpired:
            return f"npm has not fetched it within {TIMEOUT} seconds"
        if done.returncode:
            return f"npm can't fetch it: {' '.join(done.stderr.split())[:200]}"
        (tarball,) = Path(directory).glob("*.tgz")
        unpack(tarball, package.sha512, Path(directory))
        unpacked = Path(directory, "package")
        if arrange is not None:
            arrange(unpacked)
        shutil.move(unpacked, target)
    return ""


def unpack(tarball: Path, expected: str, target: Path) -> None:
    """Extract *tarball* below *target*, if its SHA-512 is *expected*."""
    content = tarball.read_bytes()
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != expected:
        raise ValueError(f"{tarball.name} has the SHA-512 {found}, not {expected}. Don't run it.")
    with tarfile.open(tarball) as archive:
        archive.extractall(target, filter="data")
