"""Questions to a server that a test starts and stops, and to its processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.testing.postgres import Server

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def postmaster(directory: str | Path) -> int:
    return int(Path(directory, "data", "postmaster.pid").read_text().split()[0])


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process stays a zombie for as long as whoever adopts it takes no notice.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state) and not state.startswith("Z")


def comes_true(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ask(url: URL, query: str) -> Any:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return connection.scalar(text(query))


def connect(server: Server, database: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=server.host, port=server.port, user="postgres", dbname=database, autocommit=True
    )
