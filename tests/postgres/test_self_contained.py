"""A revision holds all that its models need, whatever the developer's database and cluster have already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, Role, auth_uid, authenticated, declare_roles, grant, sql_function
from sqla_rls.ddl import CreateAuthFunctions
from sqla_rls.ddl_roles import CreateRole
from sqla_rls.testing.postgres import Server

from .project import Project, execute, notes, operations, own_todos, todos

GROUP = Role("rls_test_group")
READER = Role("rls_test_reader")
_DROP_ROLES = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT rolname FROM pg_roles WHERE rolname ~ '^rls_test_' LOOP
    EXECUTE 'DROP ROLE ' || name;
  END LOOP;
END $$
"""


@pytest.fixture
def cluster(server: Server) -> Iterator[Server]:
    """One that has no roles of these tests, before and after."""
    admin = create_engine(server.url(), poolclass=NullPool)
    with admin.begin() as connection:
        connection.execute(text(_DROP_ROLES))
    yield server
    with admin.begin() as connection:
        connection.execute(text(_DROP_ROLES))


@pytest.fixture
def project(cluster: Server, tmp_path: Path) -> Iterator[Project]:
    """On the developer's database."""
    name = cluster.create_database()
    yield Project(tmp_path / "migrations", cluster.url(name))
    cluster.drop_database(name)


def runs_elsewhere(project: Project, cluster: Server, metadata: MetaData) -> None:
    """*project*'s revisions run where nothing is, both ways, and leave nothing to do there."""
    with project.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("DROP SCHEMA IF EXISTS elsewhere CASCADE"))
        connection.execute(text("DROP SCHEMA IF EXISTS auth CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        connection.execute(text("GRANT USAGE ON SCHEMA public TO PUBLIC"))
    with create_engine(cluster.url(), poolclass=NullPool).begin() as connection:
        connection.execute(text(_DROP_ROLES))
    project.upgrade()
    project.check(metadata)
    project.downgrade("base")
    project.upgrade()
    project.check(metadata)


def app(**attributes: Any) -> Role:
    return Role("rls_test_app", **attributes)


def models(*roles: Role) -> MetaData:
    metadata = MetaData()
    declare_roles(metadata, *roles)
    return metadata


def with_auth_functions(project: Project) -> None:
    """By another project, whose tables are in a schema of their own, and grant what they need."""
    with project.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS auth"))  # which keeps the extension out
        connection.execute(CreateAuthFunctions())
        connection.execute(CreateRole(Role("authenticated")))
        connection.execute(CreateRole(Role("anonymous")))
    execute(
        project,
        "CREATE SCHEMA elsewhere",
        "CREATE TABLE elsewhere.things (user_id text DEFAULT auth.user_id())",
        "CREATE POLICY own ON elsewhere.things USING ((SELECT auth.user_id()) = user_id)",
        "GRANT USAGE ON SCHEMA auth, public TO authenticated, anonymous",
    )


def test_functions_and_roles_of_another_project(project: Project, cluster: Server) -> None:
    with_auth_functions(project)
    written = project.migrate(own_todos())
    assert operations(written)[:3] == ["create_role", "create_role", "create_auth_functions"]
    for schema in ("'auth'", "None"):
        assert f"op.grant(['USAGE'], {schema}, ['authenticated'], object_type='SCHEMA')" in written
    assert "op.grant(['USAGE'], 'auth', ['anonymous'], object_type='SCHEMA')" in written
    project.downgrade()
    project.upgrade()
    runs_elsewhere(project, cluster, own_todos())


def test_row_security_that_comes_later(project: Project, cluster: Server) -> None:
    with_auth_functions(project)
    project.migrate(notes(Policy("all", using=True)))
    metadata = notes(Policy("all", using=auth_uid("user_id")))
    written = project.migrate(metadata)
    assert "create_auth_functions" in operations(written)
    written = project.migrate(notes(Policy("all", using=auth_uid("user_id"), command="SELECT")))
    assert "create_auth_functions" not in operations(written)
    project.migrate(metadata)
    runs_elsewhere(project, cluster, metadata)


def test_functions_whose_bodies_ask_who_is_calling(project: Project, cluster: Server) -> None:
    def models() -> MetaData:
        metadata = MetaData()
        sql_function(
            metadata, "me", returns="text", body="SELECT auth.user_id()", to=READER, search_path=["auth"]
        )
        return metadata

    with_auth_functions(project)
    written = project.migrate(models())
    assert operations(written)[:2] == ["create_role", "create_auth_functions"]
    runs_elsewhere(project, cluster, models())


def test_a_role_that_the_cluster_has_as_something_else(project: Project, cluster: Server) -> None:
    metadata = models(app(login=True, inherit=False, member_of=[GROUP]))
    execute(
        project,
        "CREATE ROLE rls_test_app NOLOGIN",
        "CREATE ROLE rls_test_other",
        "CREATE ROLE rls_test_group",
        "GRANT rls_test_other TO rls_test_app",
        "GRANT rls_test_group TO rls_test_app WITH ADMIN OPTION",
    )
    written = project.migrate(metadata)
    assert operations(written) == ["create_role", "create_role"]
    runs_elsewhere(project, cluster, metadata)

    # Drift of a role that the history has made is seen.
    execute(project, "CREATE ROLE rls_test_other", "ALTER ROLE rls_test_app NOLOGIN")
    execute(project, "GRANT rls_test_other TO rls_test_app", "REVOKE rls_test_group FROM rls_test_app")
    written = project.migrate(metadata)
    assert operations(written) == ["alter_role", "revoke_role", "grant_role"]


def test_a_role_that_another_project_uses_in_the_same_database(project: Project, cluster: Server) -> None:
    execute(
        project,
        "CREATE ROLE rls_test_reader",
        "CREATE TABLE theirs (id int)",
        "GRANT SELECT ON theirs TO rls_test_reader",
        "CREATE POLICY theirs ON theirs TO rls_test_reader USING (true)",
    )
    project.options["include_name"] = lambda name, kind, parents: name != "theirs"
    metadata = todos(grant("SELECT", to=READER))
    written = project.migrate(metadata)
    assert operations(written)[0] == "create_role"
    runs_elsewhere(project, cluster, metadata)


def test_a_database_that_was_made_without_revisions_needs_none(project: Project) -> None:
    metadata = todos(
        Policy("own", "SELECT", [authenticated, app(member_of=[GROUP])], using=auth_uid("user_id")),
        grant("SELECT", to=READER),
    )
    metadata.create_all(project.engine)
    project.check(metadata)
