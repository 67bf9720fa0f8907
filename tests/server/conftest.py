"""A server of these tests' own, and Python processes that start others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sqla_rls.testing.postgres import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server.start() as server:
        yield server


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs Python code that has started ``server`` and told where it is."""
    children: list[subprocess.Popen[str]] = []
    prologue = (
        "import os, signal, sys, threading, time\n"
        "from sqla_rls.testing.postgres import Server\n"
        "def start():\n"
        "    global server\n"
        "    server = Server.start()\n"
        "    print(server.socket_directory, flush=True)\n"
    )

    def run(code: str) -> subprocess.Popen[str]:
        # -P: the repository's folder alembic/ isn't Alembic.
        command = [sys.executable, "-P", "-c", prologue + code]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        children.append(process)
        return process

    yield run
    for process in children:
        process.kill()
        process.communicate()
