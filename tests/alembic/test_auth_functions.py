"""The functions of schema auth where an extension, or another program, has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, Text, Uuid, text

from sqla_rls import auth_uid, authenticated, crud_policy
from sqla_rls.exc import AuthSchemaUnusable
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, execute, operations, own_todos
from tests.support.servers import administered

pytestmark = pytest.mark.sqlalchemy


def test_models_without_declarations_get_no_auth_functions(project: Project) -> None:
    """Alembic loads the plugin in each project of an environment, also in those that declare nothing."""
    metadata = MetaData()
    Table("logs", metadata, Column("id", Uuid, server_default=text("gen_random_uuid()")))
    assert operations(project.migrate(metadata)) == ["create_table"]
    project.check(metadata)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "default", ["lower(auth.user_id())", 'lower("auth" . user_id())', 'lower(U&"\\0061uth".user_id())']
)
def test_a_default_in_sql_text_gets_the_auth_functions_that_it_calls(project: Project, default: str) -> None:
    metadata = MetaData()
    Table("logs", metadata, Column("user_id", Text, server_default=text(default)))
    assert operations(project.migrate(metadata))[0] == "create_auth_functions"


@pytest.mark.exhaustive
def test_the_extension_that_may_not_be_used_is_an_error_with_its_cure(
    tmp_path: Path, signing_server: Server
) -> None:
    name = signing_server.create_database()
    superuser = Project(tmp_path / "superuser", signing_server.url(name))
    with superuser.engine.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS sqla_rls_owner"))
        connection.execute(text("CREATE ROLE sqla_rls_owner LOGIN CREATEROLE"))
        connection.execute(text(f"ALTER DATABASE {name} OWNER TO sqla_rls_owner"))
    project = Project(tmp_path / "owner", signing_server.url(name, user="sqla_rls_owner"))
    before = project.state()

    project.revision(own_todos())
    with pytest.raises(AuthSchemaUnusable) as error:
        project.upgrade()
    assert [line for line in project.state() if line[1] != "alembic_version"] == before

    assert str(error.value).endswith(error.value.statement)
    execute(superuser, error.value.statement)
    project.upgrade()
    project.check(own_todos())
    project.downgrade("base")
    signing_server.drop_database(name)
    with administered(signing_server) as connection:
        connection.execute(text("DROP ROLE sqla_rls_owner"))


@pytest.mark.exhaustive
def test_functions_of_somebody_else_are_never_replaced(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    supabase = "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE RETURN NULL::uuid"
    execute(project, "CREATE SCHEMA auth", supabase)
    metadata = MetaData()
    Table(
        "notes",
        metadata,
        Column("user_id", Uuid),
        crud_policy(authenticated, read=auth_uid("user_id"), modify=None),
    )
    assert "create_auth_functions" in operations(project.migrate(metadata))
    assert "another program created uid; missing: none" in caplog.text
    with project.engine.connect() as connection:
        assert connection.scalar(text("SELECT obj_description('auth.uid()'::regprocedure)")) is None


@pytest.mark.exhaustive
def test_a_migration_made_elsewhere_leaves_what_it_finds_and_says_so(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    written = project.revision(own_todos())
    assert "create_auth_functions" in operations(written)
    execute(
        project,
        "CREATE SCHEMA auth",
        "CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE RETURN NULL::uuid",
    )
    project.upgrade()
    assert "another program created uid; missing: none" in caplog.text
    with project.engine.connect() as connection:
        assert connection.scalar(text("SELECT obj_description('auth.uid()'::regprocedure)")) is None
        assert connection.scalar(text("SELECT auth.user_id()")) is None
    project.downgrade("base")
    with project.engine.connect() as connection:
        assert (
            connection.scalar(text("SELECT count(*) FROM pg_proc WHERE pronamespace = 'auth'::regnamespace"))
            == 1
        )
