"""A project of Supabase: migrations change our tables only."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, Table, Text, Uuid, select, text
from sqlalchemy.exc import DBAPIError

from sqla_rls import (
    Policy,
    Role,
    auth_uid,
    declare_on,
    declare_roles,
    enable_row_level_security,
    grant,
    supabase,
)
from sqla_rls import authenticated as our_authenticated
from sqla_rls.exc import DeclarationError
from tests.support.project import Project, operations
from tests.support.supabase import Supabase, models


@pytest.fixture
def project(on_supabase: Supabase, tmp_path: Path) -> Project:
    name = on_supabase.create_project()
    return Project(tmp_path / "migrations", on_supabase.url(name))


def database_of(project: Project) -> str:
    assert project.url.database is not None
    return project.url.database


def _is_ours(line: tuple[str, str]) -> bool:
    return any(word in line[1] for word in ("todos", "notices", "alembic_version"))


@pytest.mark.exhaustive
def test_a_first_revision_has_our_tables_only_and_the_second_is_empty(
    project: Project, on_supabase: Supabase
) -> None:
    name = database_of(project)
    before = on_supabase.state(name)
    written = project.revision(models(storage=False))
    for word in ("create_rls_role", "create_auth_functions", "default_privileges", "'auth'", "service_role"):
        assert word not in written
    project.upgrade()
    made = on_supabase.state(name) ^ before
    assert made
    assert not [line for line in made if not _is_ours(line)]
    assert not before - on_supabase.state(name)
    project.check(models(storage=False))
    project.downgrade("base")
    assert on_supabase.state(name) == before


@pytest.mark.exhaustive
def test_service_role_keeps_its_privileges_and_callers_get_what_their_policies_need(
    project: Project, on_supabase: Supabase
) -> None:
    project.migrate(models())
    held = {line for kind, line in on_supabase.state(database_of(project)) if kind == "privilege"}
    assert {line.split()[2] for line in held if line.startswith("todos service_role")} >= {
        "SELECT",
        "TRUNCATE",
    }
    assert {line.split()[2] for line in held if line.startswith("todos authenticated")} == {
        *("SELECT", "INSERT", "UPDATE", "DELETE")
    }
    assert not [line for line in held if line.startswith("todos anon")]
    assert {line for line in held if line.startswith("notices anon")} == {"notices anon SELECT"}


@pytest.mark.exhaustive
def test_only_policies_change_in_storage_and_realtime(project: Project, on_supabase: Supabase) -> None:
    name = database_of(project)
    project.migrate(models(storage=False))
    before = on_supabase.state(name)
    written = project.migrate(models())
    assert set(operations(written)) == {"create_policy"}
    made = on_supabase.state(name) ^ before
    assert {kind for kind, _ in made} == {"policy"}
    assert sorted(line.split(",")[0] for _, line in made) == ["(realtime", "(storage", "(storage"]

    with_policies = on_supabase.state(name)
    undone = project.migrate(models(storage=False))
    assert set(operations(undone)) == {"drop_policy"}
    assert on_supabase.state(name) == before
    project.downgrade()
    assert on_supabase.state(name) == with_policies
    project.downgrade()
    assert on_supabase.state(name) == before


@pytest.mark.exhaustive
def test_policies_of_others_on_storage_stay(project: Project, on_supabase: Supabase) -> None:
    with project.engine.begin() as connection:
        connection.execute(text("CREATE POLICY dashboard ON storage.objects FOR SELECT USING (false)"))
    project.migrate(models())
    assert "dashboard" not in project.revision(models(storage=False))
    project.upgrade()
    assert [line for kind, line in project.state() if kind == "policy" and "dashboard" in line]


@pytest.mark.exhaustive
def test_a_changed_policy_of_storage_is_altered(project: Project) -> None:
    project.migrate(models(storage=False))
    for bucket in ("avatars", "covers"):
        metadata = models(storage=False)
        objects = supabase.storage_objects(metadata)
        declare_on(objects, Policy("files", "SELECT", supabase.anon, using=objects.c.bucket_id == bucket))
        written = project.migrate(metadata)
    assert operations(written) == ["alter_policy"]
    project.downgrade("base")


@pytest.mark.exhaustive
def test_without_the_right_to_policies_of_storage_the_revision_is_refused_by_postgres(
    on_supabase: Supabase, tmp_path: Path
) -> None:
    name = on_supabase.create_project(policies=False)
    project = Project(tmp_path / "migrations", on_supabase.url(name))
    project.revision(models())
    with pytest.raises(DBAPIError, match="must be owner of"):
        project.upgrade()


@pytest.mark.exhaustive
def test_a_database_without_storage_gets_no_policies_there(project: Project, on_supabase: Supabase) -> None:
    with on_supabase.admin(database_of(project)).begin() as connection:
        connection.execute(text("DROP SCHEMA storage CASCADE"))
    written = project.migrate(models())
    assert "storage" not in written
    assert "realtime" in written


@pytest.mark.exhaustive
def test_grants_and_flags_can_not_be_declared_on_tables_of_supabase(project: Project) -> None:
    for item in (grant("SELECT", to="anon"), enable_row_level_security()):
        metadata = models(storage=False)
        declare_on(supabase.storage_objects(metadata), item)
        with pytest.raises(DeclarationError, match=r"storage\.objects: the table belongs to another program"):
            project.revision(metadata)


@pytest.mark.exhaustive
def test_a_project_without_default_grants_is_granted_what_policies_need(
    on_supabase: Supabase, tmp_path: Path
) -> None:
    name = on_supabase.create_project(default_grants=False)
    project = Project(tmp_path / "migrations", on_supabase.url(name))
    before = on_supabase.state(name)
    project.migrate(models(storage=False))
    assert not [line for line in on_supabase.state(name) ^ before if not _is_ours(line)]
    project.downgrade("base")
    assert on_supabase.state(name) == before


@pytest.mark.exhaustive
def test_create_all_touches_nothing_of_supabase(project: Project, on_supabase: Supabase) -> None:
    name = database_of(project)
    before = on_supabase.state(name)
    models().create_all(project.engine)
    made = on_supabase.state(name) ^ before
    assert made
    assert not [line for line in made if not _is_ours(line)]
    project.check(models(storage=False))
    models().drop_all(project.engine)
    assert on_supabase.state(name) == before
    models().tables["todos"].create(project.engine)
    assert not [line for line in on_supabase.state(name) ^ before if not _is_ours(line)]


@pytest.mark.exhaustive
def test_the_roles_of_supabase_stay_as_they_are_also_by_the_ready_made_names(
    project: Project, on_supabase: Supabase
) -> None:
    metadata = models(storage=False)
    declare_on(
        metadata.tables["notices"],
        Policy("more", "SELECT", [our_authenticated, "service_role"], using="public = 'members'"),
    )
    declare_roles(metadata, supabase.login_role("rls_login"))
    before = on_supabase.state(database_of(project))
    written = project.migrate(metadata)
    assert written.count("create_rls_role") == 1
    made = {
        line
        for kind, line in on_supabase.state(database_of(project)) - before
        if kind in ("role", "membership")
    }
    assert {line for line in made if not line.startswith("rls_login")} <= {
        "anon rls_login f",
        "authenticated rls_login f",
        "rls_login postgres t",
    }
    assert not before - on_supabase.state(database_of(project))
    project.downgrade("base")
    assert on_supabase.state(database_of(project)) == before


@pytest.mark.exhaustive
def test_a_role_of_another_program_takes_no_attributes(project: Project) -> None:
    with pytest.raises(DeclarationError, match="managed=False"):
        Role("anon", managed=False, login=True)
    metadata = models(storage=False)
    declare_roles(metadata, Role("authenticated", inherit=False))
    with pytest.raises(DeclarationError, match="role 'authenticated' is declared twice"):
        project.revision(metadata)


def test_text_columns_compare_with_the_uuid_and_other_columns_are_refused() -> None:
    columns = Column("owner_id", Text), Column("owner", Uuid), Column("place", Integer)
    text_, uuid, other = (select(1).where(supabase.auth_uid(column)) for column in columns)
    assert "(SELECT CAST(auth.uid() AS TEXT)) = owner_id" in str(text_)
    assert "(SELECT auth.uid()) = owner" in str(uuid)
    with pytest.raises(DeclarationError, match="the ids of Supabase Auth are uuids"):
        str(other)


@pytest.mark.exhaustive
def test_functions_that_supabase_lacks_are_refused_even_where_they_could_be_created(
    project: Project, on_supabase: Supabase
) -> None:
    with on_supabase.admin(database_of(project)).begin() as connection:
        connection.execute(text("GRANT CREATE ON SCHEMA auth TO postgres"))
    metadata = models(storage=False)
    declare_on(metadata.tables["todos"], Policy("own", using=auth_uid("task"), roles="authenticated"))
    with pytest.raises(DeclarationError, match=r"policy 'own' on todos .* auth\.user_id\(\)"):
        project.revision(metadata)


@pytest.mark.exhaustive
def test_models_may_have_tables_of_supabase(project: Project) -> None:
    metadata = models(storage=False)
    Table("users", metadata, Column("id", Uuid, primary_key=True, index=True), schema="auth")
    written = project.migrate(metadata)
    assert "schema='auth'" not in written


@pytest.mark.exhaustive
def test_include_schemas_drops_no_table_of_supabase(project: Project) -> None:
    project.options["include_schemas"] = True
    written = project.revision(models(storage=False))
    assert not {"drop_table", "drop_index", "drop_constraint"} & set(operations(written))
    project.upgrade()
    project.check(models(storage=False))
