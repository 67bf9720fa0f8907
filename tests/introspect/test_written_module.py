"""``sqla-rls import`` writes a module that runs, with any name in it."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import MetaData, Table

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.exc import DeclarationError
from sqla_rls.testing.postgres import Server
from tests.support.introspected import execute_raw, introspected
from tests.support.project import Project

pytestmark = pytest.mark.sqlalchemy


@pytest.mark.exhaustive
def test_a_database_without_policies_is_told_the_way_to_its_first_one(project: Project) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int, user_id text)",
        "CREATE VIEW all_todos AS SELECT id FROM todos",
        "GRANT SELECT ON todos, all_todos TO rls_adopt_app",
        "CREATE VIEW of_the_owner AS SELECT id FROM todos",
    )
    try:
        written, metadata = introspected(project)
        assert (
            "    # delete this call before you declare a policy that asks for the caller (auth_uid())\n"
            "    sqla_rls.ignore("
        ) in written
        assert "# view all_todos isn't declared: it shows the rows that its owner reads" in written
        assert "of_the_owner" not in written
        project.check(metadata)
    finally:
        # Nothing manages the privileges on the view.
        execute_raw(project, "DROP VIEW all_todos")


@pytest.mark.exhaustive
def test_a_module_of_remarks_alone_can_be_run(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.execute(CreateAuthFunctions())
    execute_raw(project, "CREATE TABLE inert (id int)", "CREATE POLICY inert ON inert USING (true)")
    written, metadata = introspected(project)
    assert "# the policies or FORCE of inert aren't declared" in written
    project.check(metadata)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ['it"""\nraise SystemExit\n"""', 'q"\'\\""", {0}\\'])
def test_the_name_of_a_database_stays_in_the_docstring(server: Server, name: str) -> None:
    server.create_database(name)
    try:
        url = server.url(name).render_as_string(hide_password=False)
        written = CliRunner().invoke(main, ["import", url], catch_exceptions=False).output
        exec(compile(written, "row_security.py", "exec"), {})
        assert repr(name) in str(ast.get_docstring(ast.parse(written)))
    finally:
        server.drop_database(name)


@pytest.mark.exhaustive
def test_a_name_of_several_lines_stays_in_its_comment(project: Project) -> None:
    execute_raw(
        project,
        'CREATE TABLE "a\nraise SystemExit" (id int)',
        'CREATE POLICY it ON "a\nraise SystemExit" USING (true)',
    )
    written, _ = introspected(project)
    assert "# the policies or FORCE of a raise SystemExit aren't" in written


@pytest.mark.exhaustive
def test_models_that_lack_tables_are_told_all_of_them(project: Project) -> None:
    for name in ("one", "another", "third"):
        execute_raw(project, f"CREATE TABLE {name} (id int)", f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    written, metadata = introspected(project)
    found: dict[str, Any] = {}
    exec(written, found)
    metadata = MetaData()
    Table("third", metadata)
    with pytest.raises(DeclarationError, match="models lack these tables: another, one"):
        found["declare_row_security"](metadata)
