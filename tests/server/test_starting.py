"""A server starts from any binaries of the machine, with the settings it is given."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from sqla_rls.server import cluster
from sqla_rls.testing.postgres import Installation, PostgresUnavailable, Server, installations
from tests.support.own_servers import as_root, ask, line_of, postmaster

on_a_machine_with_postgres = pytest.mark.parametrize(
    "installation", installations(), ids=lambda found: f"{found.origin}-{found.version}"
)


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
