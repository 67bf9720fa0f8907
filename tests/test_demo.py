"""The demo: it tells its story to the end, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from sqla_rls.testing.postgres import Server, installations

pytestmark = pytest.mark.exhaustive

DEMO = Path(__file__).parents[1] / "examples" / "todos" / "demo.py"

on_a_machine_with_postgres = pytest.mark.skipif(not installations(), reason="no Postgres to start")


def start(directory: Path, **variables: str) -> subprocess.Popen[str]:
    """Start the demo outside the repository; with a server of its own, unless *variables* give one."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SQLA_RLS_TEST_")}
    return subprocess.Popen(
        [sys.executable, DEMO],
        cwd=directory,
        env={**others, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def assert_all_passed(demo: subprocess.Popen[str], transcript: str) -> None:
    ticks = len(re.findall("^  ✓ ", transcript, re.MULTILINE))
    assert demo.returncode == 0, transcript
    assert ticks > 25
    assert transcript.splitlines()[-1] == f"{ticks} passed, 0 failed"


def servers_on(port: str) -> list[str]:
    command = ["ps", "-A", "-ww", "-o", "args="]  # ww: however long the lines are
    processes = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in processes.stdout.splitlines() if f"port={port}" in line]


def port_in(transcript: str) -> str:
    port = re.search(r"on port (\d+)", transcript)
    assert port, transcript
    return port[1]


@on_a_machine_with_postgres
def test_all_passes_and_neither_a_secret_nor_a_server_is_left(tmp_path: Path) -> None:
    demo = start(tmp_path)
    transcript, _ = demo.communicate(timeout=300)
    assert_all_passed(demo, transcript)
    assert "eyJ" not in transcript
    assert re.findall(r"postgresql://(\w+:.*?)@", transcript) == ["owner:***", "app:***"]
    assert servers_on(port_in(transcript)) == []
    assert list(tmp_path.iterdir()) == []


def test_on_a_server_of_others_its_database_and_logins_are_gone(server: Server, tmp_path: Path) -> None:
    if len(installations()) > 1 and server.installation == installations()[0]:
        pytest.skip("of the version that the demo starts itself, above")
    url = server.url().set(drivername="postgresql").render_as_string(hide_password=False)
    names = "SELECT rolname FROM pg_roles WHERE rolcanlogin UNION SELECT datname FROM pg_database"
    with psycopg.connect(url, autocommit=True) as connection:
        before = set(connection.execute(names))
        demo = start(tmp_path, SQLA_RLS_TEST_URL=url)
        transcript, _ = demo.communicate(timeout=300)
        assert_all_passed(demo, transcript)
        suffix = re.search(r"/todos(_\w+)", transcript)
        assert suffix
        left = set(connection.execute(names)) - before
    assert [name for (name,) in left if name.endswith(suffix[1])] == []


@on_a_machine_with_postgres
def test_interrupted_it_fails_and_no_server_is_left(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout
    said = ""
    while "$ alembic upgrade" not in said:
        line = demo.stdout.readline()
        assert line, said
        said += line
    port = port_in(said)
    assert servers_on(port)
    demo.send_signal(signal.SIGINT)
    transcript, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert transcript.splitlines()[-1] == "0 passed, 1 failed"
    assert servers_on(port) == []
