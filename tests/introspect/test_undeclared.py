"""``sqla-rls import`` names the objects and privileges that no declaration can have."""

from __future__ import annotations

from typing import Any

import pytest

from sqla_rls.testing.postgres import Server
from tests.support.introspected import execute_raw, introspected, rebuilt
from tests.support.project import Project, operations

pytestmark = pytest.mark.sqlalchemy


@pytest.mark.exhaustive
def test_what_cannot_be_declared_is_said(project: Project) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON todos TO rls_adopt_app WITH GRANT OPTION",
        "SET LOCAL ROLE rls_adopt_app",
        "GRANT SELECT ON todos TO rls_adopt_etl",
    )
    written, metadata = introspected(project)
    said = "# autogenerate will revoke SELECT on todos from rls_adopt_etl: rls_adopt_app granted it"
    assert said in written
    assert operations(project.revision(metadata)) == ["revoke"]


@pytest.mark.exhaustive
def test_types_and_sequences_that_the_models_must_bring_are_said(project: Project) -> None:
    execute_raw(
        project,
        "CREATE DOMAIN user_key AS text",
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE DOMAIN unused AS text",
        "CREATE SEQUENCE loose",
        "CREATE SEQUENCE unused_too",
        "CREATE TABLE todos (id serial, code int DEFAULT nextval('loose'), who user_key, of unused)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE FUNCTION ok(pair[]) RETURNS bool LANGUAGE sql SET search_path = '' AS 'SELECT true'",
        "CREATE POLICY it ON todos USING (who = 'alice'::user_key AND ok(NULL))",
        "CREATE VIEW seen WITH (security_invoker) AS SELECT 'good'::mood AS mood FROM todos",
        "CREATE TYPE span AS RANGE (subtype = int)",
        "CREATE POLICY early ON todos USING (code <@ span(1, 5))",
        # Of what the models bring, and of what isn't declared.
        "CREATE TYPE state AS ENUM ('new', 'done')",
        "CREATE TABLE jobs (state state DEFAULT 'new')",
        "CREATE VIEW open_jobs AS SELECT 'new'::state AS state FROM jobs",
        "CREATE FUNCTION of_app(state) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    written, metadata = introspected(project)
    remark = "# {} isn't declared, and declarations need it: add it to the models, or create it first"
    needed = ("domain user_key", "enum mood", "composite type pair", "range type span", "sequence loose")
    for one in needed:
        assert remark.format(one) in written
    assert written.count("declarations need it") == len(needed)
    # Its constructor comes with it.
    assert "RUN_FIRST" not in written
    assert "function span" not in written
    project.check(metadata)


@pytest.mark.exhaustive
def test_what_callers_hold_past_row_security_is_said_and_revoked(project: Project) -> None:
    execute_raw(
        project,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, TRIGGER ON TABLES TO rls_adopt_app",
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos TO rls_adopt_app USING (true)",
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER ON todos TO rls_adopt_app",
        "GRANT REFERENCES (id) ON todos TO PUBLIC",
    )
    written, metadata = introspected(project)
    for said in (
        "TRIGGER, TRUNCATE on todos from rls_adopt_app",
        "REFERENCES on todos from public",
        "TRIGGER on new TABLES from rls_adopt_app",
    ):
        assert f"# autogenerate will revoke {said}: policies don't apply to it" in written
    revokes = project.migrate(metadata)
    assert operations(revokes) == ["revoke", "revoke", "revoke_default_privileges"]
    assert "op.revoke_default_privileges(['TRIGGER'], 'TABLES', ['rls_adopt_app'])" in revokes


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "privileges",
    [
        [],
        ["REVOKE EXECUTE ON FUNCTION f(text, int) FROM PUBLIC"],
        [
            "REVOKE EXECUTE ON FUNCTION f(text, int) FROM PUBLIC",
            "GRANT EXECUTE ON FUNCTION f(text, int) TO rls_adopt_app, rls_adopt_admin WITH GRANT OPTION",
        ],
    ],
    ids=["everybody", "its owner", "some"],
)
def test_what_models_cannot_declare_is_sql_to_run_first(
    project: Project, server: Server, privileges: list[str]
) -> None:
    execute_raw(
        project,
        "CREATE FUNCTION f(who text, n int = 1) RETURNS boolean LANGUAGE sql COST 7"
        " AS 'SELECT true -- 100% :it'",
        *privileges,
        "CREATE TABLE todos (id int PRIMARY KEY, who text)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON todos TO rls_adopt_app USING (f(who))",
    )
    before = project.state()
    written, metadata = introspected(project)
    assert "# function f isn't declared: it has COST, ROWS, SUPPORT or TRANSFORM" in written
    project.check(metadata)
    found: dict[str, Any] = {}
    exec(written, found)
    assert rebuilt(project, server, metadata, *found["RUN_FIRST"]) == before


@pytest.mark.exhaustive
def test_a_partition_that_callers_reach_is_said_and_revoked(project: Project) -> None:
    execute_raw(
        project,
        "CREATE TABLE parts (id int NOT NULL) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        "ALTER TABLE parts ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON parts FOR SELECT TO rls_adopt_app USING (id = 1)",
        "GRANT SELECT ON parts, parts_1 TO rls_adopt_app",
    )
    written, metadata = introspected(project)
    said = "the privileges of rls_adopt_app on parts_1: they bypass the row security of parts"
    assert f"# autogenerate will revoke {said}" in written
    revokes = project.migrate(metadata)
    assert "op.revoke(['SELECT'], 'parts_1', ['rls_adopt_app'])" in revokes


@pytest.mark.exhaustive
def test_a_policy_without_an_expression_is_said_and_dropped(project: Project) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY small ON todos TO rls_adopt_app USING (id < 10)",
        "CREATE POLICY bare ON todos FOR SELECT TO rls_adopt_app",
        "CREATE POLICY loose ON todos AS RESTRICTIVE TO rls_adopt_etl",
        "GRANT SELECT, DELETE ON todos TO rls_adopt_app",
        "INSERT INTO todos VALUES (1), (20)",
    )
    written, metadata = introspected(project)
    assert "# autogenerate will drop policy bare on todos: it has no expression, and admits no row" in written
    assert (
        "# autogenerate will drop policy loose on todos: it has no expression, and limits no row" in written
    )

    def seen() -> list[int]:
        with project.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL ROLE rls_adopt_app")
            return list(connection.exec_driver_sql("SELECT id FROM todos").scalars())

    before = seen()
    assert "confirm_exposure" not in project.migrate(metadata)
    assert seen() == before == [1]


@pytest.mark.exhaustive
def test_a_schema_that_public_may_not_use_stays_closed_in_a_new_database(
    project: Project, server: Server
) -> None:
    execute_raw(
        project,
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "CREATE TABLE todos (id int PRIMARY KEY)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON todos TO rls_adopt_app USING (true)",
        "GRANT SELECT ON todos TO PUBLIC",
    )
    before = project.state()
    written, metadata = introspected(project)
    project.check(metadata)
    found: dict[str, Any] = {}
    exec(written, found)
    assert rebuilt(project, server, metadata, *found["RUN_FIRST"]) == before
    # Other schemas are closed in a new database, too.
    execute_raw(project, "CREATE SCHEMA other")
    assert "RUN_FIRST" not in introspected(project, "other")[0]
