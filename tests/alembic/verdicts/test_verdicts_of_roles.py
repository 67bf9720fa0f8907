"""What memberships, roles and schemas open, and what a revision says of them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    text,
)

from sqla_rls import (
    Policy,
    Role,
    authenticated,
    declare_roles,
    grant,
    grant_on,
    sql_function,
)
from tests.support.project import Project, execute, operations, todos
from tests.support.verdicts import OWN, read, verdicts


@pytest.mark.exhaustive
def test_a_policy_for_public_opens_rows_though_no_role_exists_yet(project: Project) -> None:
    def models(using: str, *, is_granted: bool) -> MetaData:
        return todos(Policy("p", "SELECT", ["public"], using=using, imply_privileges=is_granted))

    project.migrate(models("true", is_granted=False))
    assert verdicts(project.migrate(models("task = 'public'", is_granted=False))) == []
    granted = project.revision(models("task = 'public'", is_granted=True))
    assert verdicts(granted)[0].startswith("Opens: PUBLIC can SELECT public.todos, for example ")
    project.confirm()
    project.upgrade()

    script = project.revision(models("true", is_granted=True))

    (note,) = verdicts(script)
    assert note.startswith(
        "Opens: PUBLIC can SELECT public.todos, for example PUBLIC without claims can read"
    )
    assert operations(script)[0] == "confirm_exposure"
    with project.engine.connect() as connection:
        assert not connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = 'PUBLIC'"))


def of_groups(**groups: list[str]) -> MetaData:
    """Roles with their groups: editors read public todos, and guests read nothing but them."""
    found = todos(
        read("task = 'public'", "editor"),
        Policy("all", "SELECT", "writer", using="true"),
        Policy("guests", "SELECT", "guest", using="task = 'public'", permissive=False),
    )
    roles = {name: groups.get(name, []) for name in ("editor", "writer", "guest", "jo")}
    declare_roles(found, *[Role(name, member_of=ones) for name, ones in roles.items()])
    return found


def test_a_membership_opens_a_table(project: Project) -> None:
    project.migrate(of_groups())

    script = project.revision(of_groups(jo=["editor"]))

    assert [note.partition(", for example")[0] for note in verdicts(script)] == [
        "Opens: jo can SELECT public.todos"
    ]
    assert operations(script)[0] == "confirm_exposure"


@pytest.mark.exhaustive
def test_the_end_of_a_membership_takes_a_restrictive_policy_away(project: Project) -> None:
    project.migrate(of_groups(writer=["guest"]))

    script = project.revision(of_groups())

    assert "Opens: writer can SELECT public.todos" in [
        note.partition(", for example")[0] for note in verdicts(script)
    ]
    assert operations(script)[0] == "confirm_exposure"


@pytest.mark.exhaustive
def test_a_membership_that_gives_no_right_says_nothing(project: Project) -> None:
    project.migrate(of_groups())

    assert verdicts(project.revision(of_groups(jo=["guest"]))) == []


@pytest.mark.exhaustive
def test_a_role_that_the_revision_creates_is_a_member_of_another(project: Project) -> None:
    project.migrate(of_groups())
    models = of_groups()
    declare_roles(models, Role("kim", member_of=["writer"]))

    assert verdicts(project.revision(models))[0].startswith(
        "Opens: kim can SELECT public.todos, for example "
    )


@pytest.mark.exhaustive
def test_a_membership_for_which_a_policy_asks_is_not_decided(project: Project) -> None:
    def models(*groups: str) -> MetaData:
        found = todos(read("pg_has_role(current_user, 'editor', 'USAGE')", "jo"))
        declare_roles(found, Role("editor"), Role("jo", member_of=[*groups]))
        return found

    project.migrate(models())

    assert verdicts(project.revision(models("editor"))) == [
        "Not decided: public.todos for jo: a policy asks for the role, and role jo gets other groups"
    ]


@pytest.mark.exhaustive
def test_a_membership_that_may_bring_execute_is_not_decided(project: Project) -> None:
    def models(*groups: str) -> MetaData:
        found = todos(read("is_open(task)", "jo"))
        declare_roles(found, Role("editor"), Role("jo", member_of=[*groups]))
        sql_function(
            "is_open", found, returns="boolean", arguments="task text", body="SELECT true", to=["editor"]
        )
        return found

    project.migrate(models())

    assert verdicts(project.revision(models("editor"))) == [
        "Not decided: public.todos for jo: role jo gets other groups, which may execute other functions"
    ]


@pytest.mark.exhaustive
def test_usage_on_a_schema_opens_its_tables(project: Project) -> None:
    def models(*roles: Any) -> MetaData:
        metadata = MetaData()
        Table(
            "notes",
            metadata,
            Column("id", Integer, primary_key=True),
            Policy("p", "SELECT", ["public"], using="true", imply_privileges=False),
            grant("SELECT", to="editor"),
            schema="extra",
        )
        grant_on(metadata, "USAGE", schema="extra", to=[authenticated, *roles])
        return metadata

    project.options = {"include_schemas": True}
    execute(project, "CREATE SCHEMA extra")
    project.migrate(models())
    execute(project, "REVOKE USAGE ON SCHEMA extra FROM editor")

    script = project.revision(models("editor"))

    assert verdicts(script)[0].startswith("Opens: editor can SELECT extra.notes, for example ")


@pytest.mark.exhaustive
def test_a_role_that_the_migration_creates(project: Project) -> None:
    project.migrate(todos(read(OWN)))

    script = project.revision(todos(read(OWN), Policy("q", "SELECT", "anonymous", using="task = 'public'")))

    assert verdicts(script)[0].startswith(
        "Opens: anonymous can SELECT public.todos, for example anonymous without"
    )


def test_a_role_that_no_database_has_yet_is_compared(project: Project) -> None:
    project.migrate(todos(read(OWN)))

    script = project.revision(todos(read(OWN), Policy("all", "SELECT", Role("editor"), using="true")))

    assert verdicts(script)[0].startswith("Opens: editor can SELECT public.todos, for example ")
    assert operations(script)[0] == "confirm_exposure"
