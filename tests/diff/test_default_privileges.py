"""Default privileges give nothing on what is managed: it has what it declares, in each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Identity, Integer, MetaData, Table, Text, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls import (
    Policy,
    Role,
    default_privileges,
    disable_row_level_security,
    grant,
    grant_on,
    ignore,
    sql_function,
    view,
)
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.project import Project, execute, operations
from tests.support.suite import table

GIVEN = [
    "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT ON TABLES TO rls_default_caller",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT UPDATE ON TABLES TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT ON SEQUENCES TO rls_default_caller",
    "ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO rls_default_caller",
]


@pytest.fixture(autouse=True)
def roles(server: Server) -> Iterator[None]:
    engine = create_engine(server.url(), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE rls_default_caller"))
        connection.execute(text("CREATE ROLE rls_default_other"))
    yield
    with engine.begin() as connection:
        connection.execute(text("DROP ROLE rls_default_caller, rls_default_other"))


def declared(*, schema: str | None = None) -> MetaData:
    """The default privileges, and a table, function and view that give less."""
    metadata = MetaData()
    default_privileges(metadata, "SELECT", "INSERT", to="rls_default_caller")
    default_privileges(metadata, "UPDATE", to="PUBLIC", schema="public")
    default_privileges(metadata, "USAGE", "SELECT", on="SEQUENCES", to="rls_default_caller")
    default_privileges(metadata, "EXECUTE", on="FUNCTIONS", to=["rls_default_caller", "PUBLIC"])
    return metadata


def models(metadata: MetaData, *columns: Column[Any], schema: str | None = None) -> MetaData:
    Table(
        "Some notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("n", Integer, Identity()),
        Column("task", Text),
        *columns,
        Policy("read", "SELECT", "rls_default_other", using=True),
        grant("UPDATE", columns=["task"], to="rls_default_caller"),
        schema=schema,
    )
    quoted = f"{schema}." if schema else ""
    query = f'SELECT id, task FROM {quoted}"Some notes"'
    view("seen", metadata, query, grant("SELECT", to="rls_default_other"), schema=schema)
    sql_function("f", metadata, returns="int", body="SELECT 1", to="rls_default_other", schema=schema)
    return metadata


def held(project: Project) -> list[tuple[str, str]]:
    """What callers hold."""
    return [
        (kind, line)
        for kind, line in project.state()
        if kind.endswith("privilege")
        and kind != "default privilege"
        and (" rls_default_" in line or " - " in line)
    ]


def managed(project: Project) -> list[tuple[str, str]]:
    """Without the default privileges, which the first revision grants, and its downgrade revokes."""
    return [line for line in project.state() if line[0] != "default privilege"]


NARROW = [
    ("column privilege", '"Some notes" task rls_default_caller UPDATE'),
    ("function privilege", "f() rls_default_other EXECUTE"),
    ("privilege", '"Some notes" rls_default_other SELECT'),
    ("privilege", "seen rls_default_other SELECT"),
]


@table("before", [[], GIVEN], ids=["new defaults", "old defaults"])
def test_what_is_new_has_what_it_declares(
    project: Project, server: Server, tmp_path: Path, before: list[str]
) -> None:
    execute(project, *before)
    state = managed(project)
    project.migrate(models(declared()))
    assert held(project) == NARROW
    after = managed(project)

    name = server.create_database()
    elsewhere = Project(tmp_path / "elsewhere", server.url(name))
    (elsewhere.folder / "versions").rmdir()
    (elsewhere.folder / "versions").symlink_to(project.folder / "versions")
    execute(elsewhere, *([] if before else GIVEN))
    elsewhere.upgrade()
    assert held(elsewhere) == NARROW
    assert managed(elsewhere) == after
    server.drop_database(name)

    project.downgrade()
    assert managed(project) == state


@pytest.mark.exhaustive
def test_in_another_schema_too(project: Project) -> None:
    execute(project, "CREATE SCHEMA app")
    project.options["include_schemas"] = True
    project.migrate(models(declared(), schema="app"))
    assert [line.removeprefix("app.") for _, line in held(project)] == [line for _, line in NARROW]


@pytest.mark.exhaustive
@pytest.mark.parametrize("drift", ["SELECT ON {} TO rls_default_caller", "UPDATE ON {} TO PUBLIC"])
@pytest.mark.parametrize("on", ['"Some notes"', "seen"])
def test_what_defaults_would_give_is_drift(project: Project, drift: str, on: str) -> None:
    project.migrate(models(declared()))
    before = project.state()
    execute(project, f"GRANT {drift.format(on)}")
    drifted = project.state()
    written = project.migrate(models(declared()))
    assert operations(written) == ["revoke"]
    assert project.state() == before
    project.downgrade()
    assert project.state() == drifted


@pytest.mark.exhaustive
def test_so_is_what_they_gave_to_an_old_table_that_is_declared_now(project: Project) -> None:
    execute(project, *GIVEN)
    metadata = MetaData()
    Table("notes", metadata, Column("id", Integer, primary_key=True), Column("task", Text))
    project.migrate(metadata)
    before = managed(project)
    assert ("privilege", "notes rls_default_caller SELECT") in before
    metadata = declared()
    columns = Column("id", Integer, primary_key=True), Column("task", Text)
    Table("notes", metadata, *columns, Policy("p", "SELECT", using=True))
    project.migrate(metadata)
    assert held(project) == [("privilege", "notes - SELECT")]
    project.downgrade()
    assert managed(project) == before


@pytest.mark.exhaustive
def test_the_sequence_of_a_new_column_is_closed(project: Project) -> None:
    execute(project, *GIVEN)
    project.migrate(models(MetaData()))
    before = project.state()
    project.migrate(models(MetaData(), Column("more", Integer, Identity())))
    assert held(project) == NARROW
    project.downgrade()
    assert project.state() == before


@pytest.mark.exhaustive
def test_what_is_dropped_comes_back_with_what_it_had(project: Project) -> None:
    execute(project, *GIVEN)
    project.migrate(models(MetaData()))
    execute(
        project,
        "CREATE TABLE closed (id serial PRIMARY KEY)",
        "REVOKE ALL ON closed FROM rls_default_caller, PUBLIC",
        "REVOKE SELECT ON SEQUENCE closed_id_seq FROM rls_default_caller",
        "GRANT SELECT ON closed TO rls_default_other WITH GRANT OPTION",
        "GRANT INSERT (id) ON closed TO rls_default_caller",
        "GRANT EXECUTE ON FUNCTION f TO PUBLIC",
    )
    before = held(project)
    project.migrate(MetaData())
    assert held(project) == []
    project.downgrade()
    assert held(project) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", ["create_all", "create"])
def test_create_all_closes_too(project: Project, way: str) -> None:
    execute(project, *GIVEN)
    metadata = models(MetaData())
    if way == "create_all":
        metadata.create_all(project.engine)
        assert held(project) == NARROW
        project.check(models(MetaData()))
    else:
        metadata.tables["Some notes"].create(project.engine)
        assert held(project) == [NARROW[0], NARROW[2]]


@pytest.mark.exhaustive
def test_create_all_leaves_ignored_roles_and_other_tables_what_they_get(project: Project) -> None:
    execute(project, *GIVEN, "ALTER DEFAULT PRIVILEGES GRANT DELETE ON TABLES TO rls_default_other")
    metadata = MetaData()
    ignore(metadata, roles="rls_default_oth*")
    Table("open", metadata, Column("id", Integer))
    Table("notes", metadata, Column("id", Integer), disable_row_level_security())
    metadata.create_all(project.engine)
    assert held(project) == [
        ("privilege", "notes rls_default_other DELETE"),
        ("privilege", "open - UPDATE"),
        ("privilege", "open rls_default_caller INSERT"),
        ("privilege", "open rls_default_caller SELECT"),
        ("privilege", "open rls_default_other DELETE"),
    ]
    project.check(metadata)


@pytest.mark.exhaustive
def test_a_table_may_say_that_roles_have_none(project: Project) -> None:
    execute(project, *GIVEN, "CREATE SEQUENCE numbers")
    metadata = MetaData()
    Table("notes", metadata, Column("id", Integer), grant(to="rls_default_caller"))
    grant_on(metadata, to="rls_default_caller", sequence="numbers")
    assert "op.enable_row_level_security" not in project.migrate(metadata)
    assert held(project) == []
    with pytest.raises(DeclarationError, match="columns= without privileges"):
        grant(to=Role("nobody"), columns=["id"])
