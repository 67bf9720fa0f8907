"""Two projects in one database: neither drops what the other made, nor forgets what it made itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Column, Integer, MetaData, Table

from sqla_rls import Policy, Role, grant, ignore, sql_function, view
from sqla_rls.exc import DeclarationError
from tests.support.project import Project, execute, operations
from tests.support.suite import table

pytestmark = pytest.mark.exhaustive

READER = Role("reporting")


def models(table: str, *, functions: tuple[str, ...] = (), views: tuple[str, ...] = ()) -> MetaData:
    metadata = MetaData()
    Table(table, metadata, Column("id", Integer), Policy("all", "SELECT", READER, using=True))
    for name in functions:
        sql_function(name, metadata, returns="int", body="SELECT 1", to=READER)
    for name in views:
        view(name, metadata, f"SELECT id FROM {table}", grant("SELECT", to=READER))
    return metadata


def ours(*, made: bool = True) -> MetaData:
    return models("notes", functions=("f",) * made, views=("v",) * made)


def beside(project: Project, tmp_path: Path) -> Project:
    """Another project in the same database; each looks at its own tables alone."""
    other = Project(tmp_path / "other", project.url)
    other.options = {"version_table": "alembic_version_of_other"}
    for one, tables in ((project, ["notes"]), (other, ["files"])):
        one.options["include_name"] = lambda name, kind, _, mine=tables: kind != "table" or name in mine
    return other


def about(written: str) -> list[str]:
    return [name for name in operations(written) if "view" in name or "function" in name]


def test_another_project_keeps_its_views_and_functions(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = beside(project, tmp_path)
    project.migrate(ours())
    theirs = models("files", functions=("g",), views=("w",))
    assert about(other.migrate(theirs)) == ["create_rls_function", "create_rls_view"]
    caplog.clear()
    project.check(ours())
    for kind, name in (("function", "g"), ("view", "w")):
        assert (
            f"autogenerate doesn't manage {kind}s that callers may use: the models don't declare {name}. "
        ) in caplog.text
    caplog.clear()
    quiet = ours()
    ignore(quiet, functions="g*", views=["w"])
    project.check(quiet)
    assert "that callers may use" not in caplog.text

    before = other.state()
    assert about(project.migrate(ours(made=False))) == ["drop_rls_view", "drop_rls_function"]
    other.check(theirs)
    project.downgrade()
    assert project.state() == before


def test_a_comment_by_hand_ends_nothing(project: Project) -> None:
    project.migrate(ours())
    execute(project, 'COMMENT ON FUNCTION f IS \'@graphql({"name": "f"})\'', "COMMENT ON VIEW v IS '@omit'")
    project.check(ours())
    execute(project, "GRANT EXECUTE ON FUNCTION f TO PUBLIC", "ALTER VIEW v RESET (security_invoker)")
    before = project.state()
    assert "replace_rls_view" in operations(project.migrate(ours()))
    assert ("function privilege", "f() - EXECUTE") not in project.state()
    project.downgrade()
    assert project.state() == before

    project.upgrade()
    before = project.state()
    assert about(project.migrate(ours(made=False))) == ["drop_rls_view", "drop_rls_function"]
    project.downgrade()
    assert project.state() == before


def test_no_comment_is_made(project: Project) -> None:
    project.migrate(ours())
    with project.engine.connect() as connection:
        query = "SELECT count(*) FROM pg_description WHERE objoid IN ('v'::regclass, 'f'::regproc)"
        assert connection.exec_driver_sql(query).scalar() == 0


def test_what_create_all_made_is_named_when_its_declaration_goes(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    ours().create_all(project.engine)
    project.migrate(ours())
    before = project.state()
    caplog.clear()
    project.check(ours(made=False))
    assert "doesn't manage functions that callers may use" in caplog.text
    assert "doesn't manage views that callers may use" in caplog.text
    assert project.state() == before


def test_what_a_revision_made_in_a_schema_that_is_not_compared_is_named(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    execute(project, "CREATE SCHEMA app")
    metadata = ours(made=False)
    for name in ("f", "g"):
        sql_function(name, metadata, schema="app", returns="int", body="SELECT 1", to=READER)
    project.migrate(metadata)
    execute(
        project,
        "DROP FUNCTION app.g",
        "CREATE FUNCTION app.by_hand() RETURNS int LANGUAGE sql RETURN 1",
        "REVOKE EXECUTE ON FUNCTION app.by_hand FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION app.by_hand TO reporting",
    )
    caplog.clear()
    project.check(ours(made=False))
    assert "the models don't declare app.f. Declare" in caplog.text
    project.options["include_schemas"] = True
    assert about(project.revision(ours(made=False))) == ["drop_rls_function"]


def test_one_by_hand_in_place_of_one_that_a_revision_dropped_is_not_its_own(project: Project) -> None:
    project.migrate(ours())
    project.migrate(ours(made=False))
    execute(
        project,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE VIEW v WITH (security_invoker) AS SELECT 1 AS one",
    )
    project.check(ours(made=False))


def test_which_of_several_functions_is_its_own_is_not_guessed(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(ours())
    execute(project, "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql RETURN 1")
    written = project.revision(ours(made=False))
    assert about(written) == ["drop_rls_view"]
    assert "doesn't manage functions that callers may use" in caplog.text


def test_calls_whose_names_are_not_literals_prove_nothing(project: Project) -> None:
    project.migrate(ours(made=False))
    execute(
        project,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE VIEW v WITH (security_invoker) AS SELECT 1 AS one",
    )
    command.revision(project.config(MetaData()), "by hand")
    (script,) = project.folder.glob("versions/*by_hand.py")
    script.write_text(
        script.read_text().replace(
            "pass",
            "if False:\n        op.create_rls_view(sa.literal('v'), 'x')\n"
            "        op.create_rls_function(schema=op.f('public'), name='f')\n        op.create_rls_view()",
            1,
        )
    )
    project.upgrade()
    project.check(ours(made=False))


@table("hook", ["include_name", "include_object"])
def test_env_py_is_asked_for_views_and_functions(
    project: Project, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[Any] = []

    def include_name(name: Any, kind: str, parents: Any) -> bool:
        asked.append((kind, name, parents["schema_name"]) if "schema_name" in parents else ())
        return name not in {"f", "v"}

    def include_object(item: Any, name: Any, kind: str, reflected: bool, compare_to: Any) -> bool:
        asked.append((kind, name, getattr(item, "schema", None), item.info, reflected))
        return name not in {"f", "v"}

    project.migrate(ours())
    execute(project, "ALTER FUNCTION f() VOLATILE", "ALTER VIEW v RESET (security_invoker)")
    execute(project, "GRANT EXECUTE ON FUNCTION f TO PUBLIC")
    project.options[hook] = {"include_name": include_name, "include_object": include_object}[hook]
    for made in (True, False):
        project.check(ours(made=made))
        for kind, name in (("function", "f"), ("view", "v")):
            expected: Any = (kind, name, None, *(({}, not made) if hook == "include_object" else ()))
            assert expected in asked
            assert f"Excluded {kind} {name!r}" in caplog.text


def test_a_view_that_env_py_leaves_out_is_not_warned_of(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.migrate(ours(made=False))
    execute(project, "CREATE VIEW w AS SELECT * FROM notes", "GRANT SELECT ON w TO reporting")
    project.check(ours(made=False))
    assert "view w bypasses the row security of" in caplog.text
    caplog.clear()
    project.options["include_name"] = lambda name, kind, _: (kind, name) != ("view", "w")
    with caplog.at_level(logging.WARNING):
        project.check(ours(made=False))
    assert not caplog.records


@table("ignored", [{"functions": "f"}, {"views": ["v*"]}])
def test_what_is_ignored_stays_and_is_not_declared_as_well(project: Project, ignored: dict[str, Any]) -> None:
    project.migrate(ours())
    declared = ours()
    ignore(declared, **ignored)
    with pytest.raises(
        DeclarationError, match=r"(function 'f'|view 'v') can't be compared: it is declared, and matches"
    ):
        project.check(declared)
    metadata = ours(made=False)
    ignore(metadata, **ignored)
    left = ["drop_rls_view"] if "functions" in ignored else ["drop_rls_function"]
    assert about(project.revision(metadata)) == left
