"""Servers with the stand-in for pg_session_jwt, which is compiled for them.

It takes a C compiler, OpenSSL's headers and the server's.  The latter may lie below another root than ``/``,
which the environment variable ``SQLA_RLS_TEST_HEADERS`` names: where a package was extracted, say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from sqla_rls.server.account import Account
from sqla_rls.server.installation import Installation
from sqla_rls.testing.postgres import Server

SOURCES = Path(__file__).with_name("pg_session_jwt")


def has_extension(installation: Installation) -> bool:
    """Whether it comes with pg_session_jwt itself."""
    shared = _places(installation).get("SHAREDIR")
    return shared is not None and (shared / "extension" / "pg_session_jwt.control").exists()


def can_have_stand_in(installation: Installation) -> bool:
    """Whether it can be compiled for it, here."""
    return sys.platform == "linux" and _library(installation) is not None


@contextmanager
def server_with_stand_in(
    installation: Installation, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that offers it as the extension of that name, whether or not it comes with the other."""
    directory = Account.unprivileged().make_directory([tempfile.gettempdir(), "/tmp", "/var/tmp"])
    try:
        library = _library(installation)
        assert library is not None
        (directory / "pg_session_jwt.so").write_bytes(library)
        settings = {**(settings or {}), "dynamic_library_path": f"{directory}:$libdir"}
        if installation.version >= 18:
            settings["extension_control_path"] = f"{directory}:$system"
            extensions = directory / "extension"
            extensions.mkdir()
        else:
            installation, extensions = _with_extensions_of_its_own(installation, directory)
        for part in (*SOURCES.glob("*.control"), *SOURCES.glob("*.sql")):
            shutil.copy(part, extensions)
        with Server.start(installation, settings=settings) as server:
            yield server
    finally:
        shutil.rmtree(directory)


def _with_extensions_of_its_own(installation: Installation, target: Path) -> tuple[Installation, Path]:
    """Links to it below *target*, and the directory of its extensions."""
    places = [_places(installation)[name] for name in ("BINDIR", "PKGLIBDIR", "SHAREDIR")]
    root = os.path.commonpath(places)
    programs, libraries, shared = [target / place.relative_to(root) for place in places]
    for place, directory in zip(places, (programs, libraries, shared), strict=True):
        _link_each(place, directory)
    # Postgres looks for its files beside its program, which for a link is where that leads to.
    (programs / "postgres").unlink()
    shutil.copy(places[0] / "postgres", programs)
    extensions = shared / "extension"
    extensions.unlink()
    _link_each(places[2] / "extension", extensions)
    for other in extensions.glob("pg_session_jwt*"):
        other.unlink()
    return replace(installation, bindir=programs), extensions


def _link_each(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for one in source.iterdir():
        (target / one.name).symlink_to(one)


@cache
def _library(installation: Installation) -> bytes | None:
    """The compiled stand-in; None, where it can't be compiled."""
    headers = _places(installation).get("INCLUDEDIR-SERVER", Path("/"))
    root = os.environ.get("SQLA_RLS_TEST_HEADERS")
    if root and not headers.exists():
        headers = Path(root, headers.relative_to("/"))
    options = ["-O1", "-Wall", f"-I{headers}", "-shared", "-fPIC"]
    with tempfile.NamedTemporaryFile(suffix=".so") as library:
        command = ["cc", *options, str(SOURCES / "pg_session_jwt.c"), "-o", library.name, "-lcrypto"]
        try:
            done = subprocess.run(command, capture_output=True)
        except FileNotFoundError:
            return None
        return Path(library.name).read_bytes() if done.returncode == 0 else None


@cache
def _places(installation: Installation) -> dict[str, Path]:
    """Where its files are, as its pg_config says; nothing, where that is missing."""
    try:
        said = subprocess.run([installation.bindir / "pg_config"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        return {}
    pairs = (line.partition(" = ") for line in said.splitlines())
    return {name: Path(value) for name, _, value in pairs}
