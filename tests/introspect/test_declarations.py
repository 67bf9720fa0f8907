"""``sqla-rls import``: what it writes leaves autogenerate nothing to do."""

from __future__ import annotations

import pytest

from sqla_rls.testing.postgres import Server
from tests.support.introspected import execute_raw, introspected, introspected_without_drift, rebuilt
from tests.support.project import Project, operations, own_todos
from tests.support.suite import table

pytestmark = pytest.mark.sqlalchemy


@pytest.mark.exhaustive
@table(
    "expression",
    [
        "task = 'it''s 100% :done' AND task LIKE '%\\_:x%' ESCAPE '\\'",
        "task = E'a\\\\b\\nc' OR task = $$do$$ OR task = $x$ $$ {brace} %s %(x)s $x$",
        '"User Id" = current_user AND "User Id"::varchar COLLATE "C" <> \'\'',
        'EXISTS (SELECT FROM "Other one"."select" AS s WHERE s.id = todos.id)',
        "current_setting('app.tenant', true)::int = ANY (ARRAY[1, 2])",
        "todos IS NOT NULL AND tableoid > 0",
    ],
)
def test_nothing_is_left_to_do_whatever_an_expression_says(project: Project, expression: str) -> None:
    execute_raw(
        project,
        'CREATE SCHEMA "Other one"',
        'CREATE TABLE "Other one"."select" (id int PRIMARY KEY)',
        'CREATE TABLE todos (id int PRIMARY KEY, task text, "User Id" text)',
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY hairy ON todos USING ({expression}) WITH CHECK (({expression}) IS NOT FALSE)",
    )
    _, metadata = introspected(project)
    project.check(metadata)


@pytest.mark.exhaustive
def test_nothing_is_left_to_do_on_a_database_with_all_there_is(project: Project) -> None:
    project.options["include_schemas"] = True
    execute_raw(
        project,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, TRUNCATE ON TABLES TO rls_adopt_etl",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        'CREATE SCHEMA "Other one"',
        'CREATE TABLE "Other one"."Mixed Case" (id serial PRIMARY KEY, "Who?" text, '
        "n int GENERATED ALWAYS AS IDENTITY)",
        'ALTER TABLE "Other one"."Mixed Case" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
        'CREATE POLICY "Pol: 100% \'q\' \\ $$" ON "Other one"."Mixed Case" AS RESTRICTIVE FOR UPDATE '
        'TO rls_adopt_app, "Rls adopt ""odd"" it\'s" USING ("Who?" = current_user) WITH CHECK (true)',
        'CREATE POLICY wide ON "Other one"."Mixed Case" USING (id > 0)',
        'GRANT DELETE ON "Other one"."Mixed Case" TO "Rls adopt ""odd"" it\'s" WITH GRANT OPTION',
        'GRANT ALL ON "Other one"."Mixed Case" TO rls_adopt_etl WITH GRANT OPTION',
        'GRANT UPDATE ("Who?") ON "Other one"."Mixed Case" TO rls_adopt_app',
        'GRANT REFERENCES (id) ON "Other one"."Mixed Case" TO rls_adopt_etl',
        'GRANT ALL ON SEQUENCE "Other one"."Mixed Case_id_seq" TO rls_adopt_app',
        'GRANT SELECT ON SEQUENCE "Other one"."Mixed Case_n_seq" TO PUBLIC',
        "CREATE TABLE parts (id int NOT NULL, who text) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9)",
        "ALTER TABLE parts ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE parts_1 ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON parts FOR INSERT TO rls_adopt_app WITH CHECK (who = current_user)",
        "GRANT USAGE ON SCHEMA public TO rls_adopt_app",
        "GRANT INSERT, SELECT (who) ON parts TO rls_adopt_app",
        "CREATE POLICY dead ON parts FOR SELECT TO rls_adopt_none, rls_adopt_admin USING (true)",
        "CREATE TABLE closed (id int)",
        "ALTER TABLE closed ENABLE ROW LEVEL SECURITY",
        "GRANT SELECT ON closed TO pg_monitor",
        "CREATE TABLE open (id int)",
        "GRANT ALL ON open TO PUBLIC",
        "CREATE TABLE inert (id int)",
        "CREATE POLICY inert ON inert USING (true)",
    )
    written, _ = introspected_without_drift(project, "public", "Other one")

    assert "Role('rls_adopt_app', login=True, inherit=False, member_of=['rls_adopt_etl'])" in written
    assert "using='true', imply_privileges=False)" in written
    assert "Policy('mine', 'INSERT', ['rls_adopt_app'], with_check='(who = CURRENT_USER)')," in written
    assert "# the policies or FORCE of inert aren't declared: row security is disabled" in written
    assert "'open'" not in written
    assert "revoke_public_privileges" not in written


@pytest.mark.exhaustive
def test_what_a_migration_made_is_found_again(project: Project) -> None:
    project.migrate(own_todos())
    written, metadata = introspected(project)
    project.check(metadata)
    assert "imply_privileges" not in written
    assert "grant(" not in written


@pytest.mark.exhaustive
def test_a_role_named_authenticated_brings_no_second_one_along(project: Project) -> None:
    execute_raw(
        project,
        "DO 'BEGIN CREATE ROLE authenticated; EXCEPTION WHEN duplicate_object THEN END'",
        "COMMENT ON ROLE authenticated IS 'made by sqla_rls'",
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos TO authenticated USING (true)",
        "GRANT SELECT ON todos TO authenticated",
    )
    _, metadata = introspected(project)
    project.check(metadata)


@pytest.mark.exhaustive
def test_memberships_of_the_ready_made_roles_are_declared(project: Project) -> None:
    project.migrate(own_todos())
    execute_raw(project, "GRANT rls_adopt_etl TO authenticated, anonymous")
    written, metadata = introspected(project)
    for name in ("authenticated", "anonymous"):
        assert f"Role('{name}', member_of=['rls_adopt_etl'])" in written
    project.check(metadata)

    execute_raw(project, "GRANT rls_adopt_etl TO anonymous WITH ADMIN OPTION")
    written, metadata = introspected(project)
    assert (
        "# the memberships of anonymous aren't declared: they have options. Autogenerate will revoke them"
        in written
    )
    assert operations(project.revision(metadata)) == ["revoke_role"]


@pytest.mark.exhaustive
def test_a_new_database_gets_the_same(project: Project, server: Server) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int PRIMARY KEY, who text)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos TO rls_adopt_app USING (who = 'x')",
        "GRANT SELECT ON todos TO rls_adopt_app",
        "GRANT SELECT (id) ON todos TO rls_adopt_etl",
    )
    _, metadata = introspected(project)
    assert rebuilt(project, server, metadata) == project.state()


@pytest.mark.exhaustive
def test_views_that_read_as_whoever_asks_are_declared(project: Project) -> None:
    execute_raw(
        project,
        'CREATE SCHEMA "Other one"',
        "CREATE TABLE todos (id int PRIMARY KEY, task varchar(9))",
        "CREATE VIEW top WITH (security_invoker) AS SELECT 1 AS id",
        "CREATE VIEW lower WITH (security_invoker) AS SELECT id, task FROM todos"
        " WHERE task IN ('100%', ':b') AND task NOT IN ('c', '\\')",
        'CREATE VIEW "Other one"."Up ""100%""" WITH (security_invoker, security_barrier, check_option=local)'
        " AS SELECT id, task FROM lower",
        'CREATE OR REPLACE VIEW top WITH (security_invoker) AS SELECT id FROM "Other one"."Up ""100%"""',
        "GRANT SELECT ON lower TO PUBLIC",
        "GRANT TRIGGER ON lower TO rls_adopt_etl",
        'GRANT UPDATE (task, id) ON "Other one"."Up ""100%""" TO rls_adopt_app WITH GRANT OPTION',
        "CREATE VIEW as_owner AS SELECT id FROM todos",
    )
    project.options["include_schemas"] = True
    written, _ = introspected_without_drift(project, "public", "Other one")
    assert written.count("sqla_rls.view(") == 3
