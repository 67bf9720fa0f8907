"""A server ends with its Python process, and leaves no process and no file."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from sqla_rls.server import cluster
from sqla_rls.testing.postgres import Server, installations
from tests.support.own_servers import as_root, ask, comes_true, connect, line_of, postmaster, runs


@pytest.mark.exhaustive
def test_a_stopped_server_leaves_nothing() -> None:
    server = Server.start()
    directory = str(server.socket_directory)
    pid = postmaster(directory)
    with connect(server):
        server.stop()
    server.stop()
    assert not runs(pid)
    assert not Path(directory).exists()
    with pytest.raises(psycopg.OperationalError):
        connect(server)


@pytest.mark.exhaustive
def test_a_server_that_nobody_stopped_ends_with_python(
    child: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = child("start(); sys.stdin.read()")
    directory = line_of(process)
    pid = postmaster(directory)
    process.communicate()
    assert process.returncode == 0
    assert not runs(pid)
    assert not Path(directory).exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_server_ends_with_a_python_that_is_killed(
    child: Callable[[str], subprocess.Popen[str]], how: signal.Signals
) -> None:
    process = child("start(); sys.stdin.read()")
    directory = line_of(process)
    pid = postmaster(directory)
    process.send_signal(how)
    process.wait()
    assert comes_true(lambda: not runs(pid))
    assert comes_true(lambda: not Path(directory).exists())


@pytest.mark.exhaustive
@as_root
def test_a_copy_of_the_binaries_ends_with_a_python_that_is_killed(
    child: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    bindir = installations()[0].copy(private).bindir
    process = child(
        "from pathlib import Path\n"
        "import sqla_rls.server.postgres as postgres\n"
        "from sqla_rls.testing.postgres import Installation\n"
        f"found = Installation(bindir=Path({str(bindir)!r}), version=18, origin='wheel')\n"
        "postgres.installations = lambda: [found]\n"
        "start(); sys.stdin.read()"
    )
    executable = Path(os.readlink(f"/proc/{postmaster(line_of(process))}/exe"))
    assert not executable.is_relative_to(tmp_path)
    process.kill()
    assert comes_true(lambda: not executable.parents[3].exists())


@pytest.mark.exhaustive
def test_a_server_outlives_the_thread_that_started_it() -> None:
    servers: list[Server] = []
    thread = threading.Thread(target=lambda: servers.append(Server.start()))
    thread.start()
    thread.join()
    with servers[0] as server:
        time.sleep(0.2)
        assert ask(server.url(), "SELECT 1") == 1


@pytest.mark.exhaustive
def test_a_forked_child_does_not_end_the_server(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child(
        "start()\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait(); print(server.create_database('still_there'), flush=True); sys.stdin.read()"
    )
    line_of(process)
    assert line_of(process) == "still_there"


@pytest.mark.exhaustive
def test_a_forked_child_does_not_keep_the_server(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child(
        "start()\n"
        "if (pid := os.fork()) == 0: time.sleep(30); os._exit(0)\n"
        "print(pid, flush=True); sys.stdin.read()"
    )
    directory, fork = line_of(process), int(line_of(process))
    pid = postmaster(directory)
    process.kill()
    process.wait()
    assert comes_true(lambda: not runs(pid))
    assert runs(fork)
    os.kill(fork, signal.SIGKILL)


@pytest.mark.exhaustive
def test_a_server_that_hangs_is_stopped_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "STOP_TIMEOUT", 0.1)
    server = Server.start()
    directory = str(server.socket_directory)
    pid = postmaster(directory)
    shared_memory = Path(directory, "data", "postmaster.pid").read_text().splitlines()[6].split()[1]
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert comes_true(lambda: not runs(pid))
    assert not Path(directory).exists()
    # The 56 bytes by which Postgres knows that a data directory is in use outlive a killed server.
    subprocess.run(["ipcrm", "-m", shared_memory], check=True)
