"""What ``alembic upgrade --sql`` prints: a database administrator has to review it."""

from __future__ import annotations

import pytest
from sqlalchemy import MetaData, select

from sqla_rls import Policy, Role, authenticated, declare_roles, grant, sql_function, view
from tests.support.project import Project, execute, own_todos

SELECT_POLICY = (
    'CREATE POLICY "crud-authenticated-policy-select" ON todos FOR SELECT TO authenticated'
    " USING ((SELECT auth.user_id()) = todos.user_id)"
)
FUNCTION = (
    "CREATE OR REPLACE FUNCTION one() RETURNS integer LANGUAGE sql STABLE PARALLEL UNSAFE"
    " SET search_path = pg_catalog, pg_temp AS $sql$SELECT 1$sql$"
)
NEW_LINE = "a\n; DROP TABLE todos; --\rb"


def plain(script: str) -> list[str]:
    """The comment above each block; an empty one where there is none."""
    lines = script.split("\n")
    above = [place - 1 for place, line in enumerate(lines) if line.startswith("DO ")]
    return [lines[place].removeprefix("-- ") if lines[place].startswith("-- ") else "" for place in above]


def test_each_statement_stands_once_and_as_a_comment_above_its_block(project: Project) -> None:
    metadata = own_todos()
    declare_roles(metadata, Role("rls_test_app", login=True, member_of=[authenticated]))
    sql_function("one", metadata, returns="int", body="SELECT 1", to=authenticated)
    todos = metadata.tables["todos"]
    view("my_todos", metadata, select(todos.c.id), grant("SELECT", to=authenticated))
    project.revision(metadata)
    script = project.script("upgrade", "head")

    found = plain(script)
    assert "" not in found
    for statement in (
        "CREATE ROLE authenticated",
        "CREATE ROLE rls_test_app LOGIN IN ROLE authenticated",
        "GRANT USAGE ON SCHEMA auth TO authenticated",
        SELECT_POLICY,
        FUNCTION,
    ):
        assert statement in found
    for once in ("CREATE POLICY", "CREATE VIEW", "CREATE SCHEMA auth"):
        of_each = [line for line in script.split("\n") if once in line and not line.startswith("-- ")]
        assert len(of_each) == len(set(of_each))


@pytest.mark.exhaustive
def test_the_script_makes_what_the_migration_makes(project: Project) -> None:
    project.revision(own_todos())
    script = project.script("upgrade", "head")
    # Most of it makes the functions of schema auth.
    assert len(script.split("\n")) < 800
    execute(project, "DROP TABLE IF EXISTS alembic_version")
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.connection.driver_connection.execute(script)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    project.check(own_todos())


@pytest.mark.exhaustive
def test_a_name_does_not_end_the_comment(project: Project) -> None:
    """Neither with a line feed nor with a carriage return, by which Postgres ends a comment, too."""
    metadata = own_todos()
    Policy(NEW_LINE, "SELECT", authenticated, using=True)._set_parent_with_dispatch(metadata.tables["todos"])
    project.migrate(metadata)
    script = project.script("upgrade", "head")
    assert "-- ; DROP TABLE todos; --" in script
    assert '-- b" ON todos FOR SELECT TO authenticated USING (true)' in script
    project.downgrade("base")
    execute(project, "DROP TABLE alembic_version")
    with project.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.connection.driver_connection.execute(script)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    project.check(metadata)


@pytest.mark.exhaustive
def test_a_migrations_table_brings_no_functions_of_its_own(project: Project) -> None:
    """``op.create_auth_functions()`` makes them; ``Table.create()`` of a model does so itself."""
    project.revision(own_todos())
    script = project.script("upgrade", "head")
    assert script.count("CREATE SCHEMA auth") == 1
    (table,) = own_todos().tables.values()
    table.create(project.engine)
    assert isinstance(table.metadata, MetaData)
