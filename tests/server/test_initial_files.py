"""The servers of a process copy the files that initdb made for its first one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sqla_rls.server import initial_files
from sqla_rls.testing.postgres import Server
from tests.support.own_servers import ask, comes_true, connect, line_of, postmaster


def cluster_of(server: Server) -> Any:
    """The identifier that initdb drew for it, and a copy keeps."""
    return ask(server.url(), "SELECT system_identifier FROM pg_control_system()")


@pytest.mark.exhaustive
def test_servers_of_a_process_copy_the_files_of_the_first(server: Server) -> None:
    with connect(server) as connection:
        connection.execute("CREATE ROLE somebody")
    with Server.start(server.installation) as second:
        assert cluster_of(second) == cluster_of(server)
        assert ask(second.url(), "SELECT count(*) FROM pg_roles WHERE rolname = 'somebody'") == 0


@pytest.mark.exhaustive
def test_servers_that_threads_start_make_the_files_once() -> None:
    with ThreadPoolExecutor(3) as threads:
        servers = list(threads.map(lambda _: Server.start(), range(3)))
    assert len({cluster_of(server) for server in servers}) == 1
    for server in servers:
        server.stop()


@pytest.mark.exhaustive
def test_the_files_end_with_the_server_that_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_files, "_places", {})
    with Server.start() as first, Server.start() as second:
        identifier = cluster_of(first)
        first.stop()
        assert cluster_of(second) == identifier
        with Server.start() as third:
            assert cluster_of(third) != identifier


@pytest.mark.exhaustive
def test_a_server_that_crashed_has_no_files_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_files, "_places", {})
    with Server.start() as first:
        os.kill(postmaster(str(first.socket_directory)), signal.SIGQUIT)
        assert comes_true(lambda: not Path(str(first.socket_directory)).exists())
        with Server.start() as second:
            assert ask(second.url(), "SELECT 1") == 1


@pytest.mark.exhaustive
def test_a_forked_child_makes_files_of_its_own(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child(
        "start()\n"
        "pid = os.fork()\n"
        "if pid == 0: start(); server.stop(); print('stopped', flush=True); os._exit(0)\n"
        "os.wait(); sys.stdin.read()"
    )
    assert line_of(process) != line_of(process)
    assert line_of(process) == "stopped"
