"""The database of ``sqla-rls dev`` runs the quick start of README.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.testing.development import DevelopmentDatabase, development_database
from sqla_rls.testing.issuer import Issuer
from sqla_rls.testing.postgres import Installation, Server
from tests.support.servers import cleared_server

ROOT = Path(__file__).parents[2]
ROLES = "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"


def _listing() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


@pytest.fixture
def shared(installation: Installation | None) -> Iterator[Server]:
    """As a server that others use: then the names have suffixes.  It has no roles of other tests."""
    with cleared_server(installation) as server:
        yield Server.connect(server.url())


def point_to(database: DevelopmentDatabase, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that ``sqla-rls dev`` prints."""
    app = database.app.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_AUTHENTICATED_URL", app)
    monkeypatch.setenv("STACK_PROJECT_ID", issuer.project_id)
    monkeypatch.setenv("STACK_BASE_URL", issuer.base_url)


def test_the_quick_start_is_the_example_and_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listing = _listing()
    assert listing == (ROOT / "examples" / "recipes" / "quickstart.py").read_text(encoding="utf-8")
    assert len(listing.splitlines()) <= 40
    assert len(readme.splitlines()) <= 150


@pytest.mark.exhaustive
def test_the_quick_start_runs(shared: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with shared, development_database(shared) as database, Issuer() as issuer:
        point_to(database, issuer, monkeypatch)
        app: dict[str, Any] = {"__name__": "app"}
        exec(compile(_listing(), "README.md", "exec", dont_inherit=True), app)
        app["Base"].metadata.create_all(create_engine(database.owner, poolclass=NullPool))
        alice, bob = ({"Authorization": f"Bearer {issuer.token(name)}"} for name in ("alice", "bob"))
        try:
            with TestClient(app["app"]) as client:
                assert client.post("/todos", params={"task": "buy milk"}, headers=alice).status_code == 201
                assert client.get("/todos", headers=alice).json() == ["buy milk"]
                assert client.get("/todos", headers=bob).json() == []
                assert client.get("/todos").status_code == 401
        finally:
            app["SessionLocal"].kw["bind"].dispose()


@pytest.mark.exhaustive
def test_a_shared_server_is_left_as_it_was(shared: Server) -> None:
    with (
        shared,
        psycopg.connect(
            shared.url().set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        ) as superuser,
    ):
        before = superuser.execute(ROLES).fetchall()
        # The second finds the roles of callers that the first made, and keeps them.
        with development_database(shared), development_database(shared) as database:
            assert database.app.password
            app = create_engine(database.app, poolclass=NullPool)
            with app.connect() as connection:
                inherits = text(
                    "SELECT pg_has_role('authenticated', 'USAGE'), pg_has_role('anonymous', 'USAGE')"
                )
                assert connection.execute(inherits).one() == (False, False)
                connection.execute(text("SET ROLE authenticated"))
                connection.execute(text("SET ROLE anonymous"))
        assert superuser.execute(ROLES).fetchall() == before


def test_the_owner_may_ask_as_the_roles_of_callers(shared: Server) -> None:
    with shared, development_database(shared) as database:
        owner = create_engine(database.owner, poolclass=NullPool)
        # Before, the creator of a role grants it to itself.
        created = ["of_a_migration"] if shared.version >= 16 else []
        with owner.begin() as connection:
            connection.execute(text("CREATE ROLE of_a_migration"))
            for role in ("authenticated", "anonymous", *created):
                connection.execute(text(f"SET ROLE {role}"))
                connection.execute(text("RESET ROLE"))
            connection.execute(text("DROP ROLE of_a_migration"))


def test_a_grant_in_the_database_does_not_keep_the_login_role(shared: Server) -> None:
    with shared:
        with development_database(shared) as database:
            owner = create_engine(database.owner, poolclass=NullPool)
            with owner.begin() as connection:
                connection.execute(text("CREATE TABLE note (id int)"))
                connection.execute(text(f"GRANT SELECT ON note TO {database.app.username}"))
        with create_engine(shared.url(), poolclass=NullPool).connect() as connection:
            statement = text("SELECT FROM pg_roles WHERE rolname IN (:app, :owner)")
            names = {"app": database.app.username, "owner": database.owner.username}
            assert not connection.execute(statement, names).all()


@pytest.mark.exhaustive
def test_a_server_of_our_own_takes_a_second_database() -> None:
    with (
        Server.start() as server,
        development_database(server) as first,
        development_database(server) as second,
    ):
        assert (first.app.database, first.app.username, first.owner.username) == ("app", "app", "owner")
        for url in (first.app, first.owner, second.app, second.owner):
            with create_engine(url, poolclass=NullPool).connect() as connection:
                assert connection.scalar(text("SELECT current_user")) == url.username
        assert first.app.database != second.app.database
