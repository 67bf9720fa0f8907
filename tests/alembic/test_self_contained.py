"""A revision holds all that its models need, whatever the developer's database and cluster have already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls import (
    Policy,
    Role,
    auth_uid,
    authenticated,
    declare_roles,
    default_privileges,
    grant,
    revoke_public_privileges,
    sql_function,
)
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.roles import CreateRole
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, execute, notes, operations, own_todos, todos

pytestmark = pytest.mark.exhaustive

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
    assert operations(written)[:3] == ["create_rls_role", "create_rls_role", "create_auth_functions"]
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
            "me", metadata, returns="text", body="SELECT auth.user_id()", to=READER, search_path=["auth"]
        )
        return metadata

    with_auth_functions(project)
    written = project.migrate(models())
    assert operations(written)[:2] == ["create_rls_role", "create_auth_functions"]
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
    assert operations(written) == ["create_rls_role", "create_rls_role"]
    runs_elsewhere(project, cluster, metadata)

    # Drift of a role that the history has made is seen.
    execute(project, "CREATE ROLE rls_test_other", "ALTER ROLE rls_test_app NOLOGIN")
    execute(project, "GRANT rls_test_other TO rls_test_app", "REVOKE rls_test_group FROM rls_test_app")
    written = project.migrate(metadata)
    assert operations(written) == ["alter_rls_role", "revoke_role", "grant_role"]


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
    assert operations(written)[0] == "create_rls_role"
    runs_elsewhere(project, cluster, metadata)


def test_a_database_that_was_made_without_revisions_needs_none(project: Project) -> None:
    metadata = todos(
        Policy("own", "SELECT", [authenticated, app(member_of=[GROUP])], using=auth_uid("user_id")),
        grant("SELECT", to=READER),
    )
    metadata.create_all(project.engine)
    project.check(metadata)


def test_what_public_loses_although_it_holds_nothing_here(project: Project) -> None:
    def public(verb: str) -> None:
        name = project.engine.dialect.identifier_preparer.quote(project.url.database or "")
        execute(project, f"{verb} TEMPORARY ON DATABASE {name} {'TO' if verb == 'GRANT' else 'FROM'} PUBLIC")

    def has_temporary() -> bool:
        return any(kind == "database" and line.startswith("- TEMPORARY") for kind, line in project.state())

    def closed() -> MetaData:
        metadata = todos(Policy("all", using=True))
        revoke_public_privileges(metadata)
        return metadata

    project.migrate(todos(Policy("all", using=True)))
    public("REVOKE")
    written = project.migrate(closed())
    assert operations(written) == ["revoke_public_privileges"]
    assert operations(written, "downgrade") == []
    project.downgrade()
    public("GRANT")
    project.upgrade()
    assert not has_temporary()
    project.check(closed())

    # The models leave it out, and take it up again: what revisions revoke stays revoked.
    assert project.migrate(todos(Policy("all", using=True))).count("op.") == 0
    assert project.migrate(closed()).count("op.") == 0


def test_default_privileges_that_are_here_already(project: Project, cluster: Server) -> None:
    def models(*privileges: str) -> MetaData:
        metadata = todos(Policy("all", using=True))
        default_privileges(metadata, *privileges, to=READER)
        default_privileges(metadata, on="FUNCTIONS", to="PUBLIC")
        return metadata

    execute(
        project,
        "CREATE ROLE rls_test_reader",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT ON TABLES TO rls_test_reader",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    )
    before = [line for line in project.state() if line[0] == "default privilege"]
    written = project.migrate(models("SELECT", "INSERT"))
    for line in (
        "op.grant_default_privileges(['SELECT'], 'TABLES', ['rls_test_reader'])",
        "op.grant_default_privileges(['INSERT'], 'TABLES', ['rls_test_reader'])",
        "op.revoke_default_privileges(['EXECUTE'], 'FUNCTIONS', ['public'])",
    ):
        assert line in written
    assert [line for line in project.state() if line[0] == "default privilege"] == before

    # A role that lost one by hand loses it elsewhere, too, when the declaration goes.
    execute(project, "ALTER DEFAULT PRIVILEGES REVOKE INSERT ON TABLES FROM rls_test_reader")
    written = project.migrate(models("SELECT"))
    assert "op.revoke_default_privileges(['INSERT'], 'TABLES', ['rls_test_reader'])" in written
    execute(project, "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC")
    execute(project, "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM rls_test_reader")
    runs_elsewhere(project, cluster, models("SELECT"))


def test_everybody_executes_no_declared_function_elsewhere(project: Project, cluster: Server) -> None:
    def models() -> MetaData:
        metadata = MetaData()
        sql_function("one", metadata, returns="int", body="SELECT 1", to=READER)
        return metadata

    execute(project, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    written = project.migrate(models())
    assert "op.revoke(['EXECUTE'], 'one', ['public'], object_type='FUNCTION')" in written
    execute(project, "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC")
    runs_elsewhere(project, cluster, models())
    assert ("function privilege", "one() - EXECUTE") not in project.state()


def test_a_database_whose_default_privileges_came_without_revisions_needs_none(project: Project) -> None:
    metadata = todos(Policy("all", using=True))
    default_privileges(metadata, "SELECT", to=READER)
    default_privileges(metadata, on="FUNCTIONS", to="PUBLIC")
    revoke_public_privileges(metadata)
    metadata.create_all(project.engine)
    execute(project, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    project.check(metadata)
    execute(project, "GRANT INSERT ON todos TO rls_test_reader")
    assert operations(project.migrate(metadata)) == ["revoke"]


def test_each_of_several_databases_has_a_history_of_its_own(cluster: Server, tmp_path: Path) -> None:
    names = [cluster.create_database() for _ in range(2)]
    settings, folder = tmp_path / "alembic.ini", tmp_path / "migrations"
    config = Config(settings)
    command.init(config, str(folder), template="multidb")
    urls = [cluster.url(name).render_as_string(hide_password=False).replace("%", "%%") for name in names]
    given = iter(urls)
    settings.write_text(
        re.sub(
            "^sqlalchemy.url = .*",
            lambda _: f"sqlalchemy.url = {next(given)}",
            settings.read_text(),
            flags=re.MULTILINE,
        )
    )
    env = folder / "env.py"
    models_of = env.read_text().replace(
        "target_metadata = {}", "target_metadata = config.attributes['models']"
    )
    # What it makes of logging would hold for other tests, too.
    env.write_text(models_of.replace("    fileConfig(config.config_file_name)", "    pass"))

    def autogenerate(one: MetaData, other: MetaData) -> str:
        config.attributes["models"] = {"engine1": one, "engine2": other}
        before = set(folder.glob("versions/*.py"))
        command.revision(config, "change", autogenerate=True)
        command.upgrade(config, "head")
        (written,) = set(folder.glob("versions/*.py")) - before
        return written.read_text()

    def section(written: str, name: str) -> list[str]:
        return re.findall(r"op\.(\w+)", written.split(f"def upgrade_{name}()")[1].split("\ndef ")[0])

    autogenerate(models(READER), MetaData())
    written = autogenerate(models(READER), models(READER))
    assert section(written, "engine1") == []
    assert section(written, "engine2") == ["create_rls_role"]
    assert "create_rls_role" not in autogenerate(models(READER), models(READER))
    for name in names:
        cluster.drop_database(name)
