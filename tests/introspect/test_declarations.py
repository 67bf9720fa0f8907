"""``sqla-rls import``: what it writes leaves autogenerate nothing to do."""

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
from tests.support.introspected import closed, execute_raw, introspected, introspected_without_drift, rebuilt
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
def test_what_was_taken_from_public_is_declared(project: Project) -> None:
    project.migrate(closed())
    written, metadata = introspected(project)
    assert "sqla_rls.revoke_public_privileges(metadata)" in written
    project.check(metadata)
    execute_raw(project, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert "revoke_public_privileges" not in introspected(project)[0]


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
    name = server.create_database()
    elsewhere = Project(project.folder.parent / "elsewhere", server.url(name))
    elsewhere.migrate(metadata)
    assert [line for line in elsewhere.state() if line[1] != "alembic_version"] == project.state()
    server.drop_database(name)


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


@pytest.mark.exhaustive
def test_default_privileges_are_declared_once(project: Project) -> None:
    execute_raw(
        project,
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO rls_adopt_app, rls_adopt_etl",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, USAGE ON SEQUENCES TO rls_adopt_app",
        "CREATE TABLE todos (id serial)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
    )
    written, _ = introspected_without_drift(project)
    lines = [line.strip() for line in written.splitlines() if "default_privileges" in line]
    assert len(lines) == 3, lines
    assert "'DELETE', 'INSERT', 'SELECT', 'UPDATE', to=['rls_adopt_app', 'rls_adopt_etl']" in written


@pytest.mark.exhaustive
def test_a_sequence_is_declared_by_its_column(project: Project) -> None:
    execute_raw(
        project,
        "CREATE SEQUENCE shared",
        "CREATE TABLE before (id serial PRIMARY KEY, n int DEFAULT nextval('shared'))",
        "ALTER TABLE before RENAME TO todos",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos FOR INSERT TO rls_adopt_app WITH CHECK (true)",
        "GRANT INSERT ON todos TO rls_adopt_app",
        "GRANT USAGE ON SCHEMA public TO rls_adopt_app",
        "GRANT USAGE, SELECT ON SEQUENCE before_id_seq, shared TO rls_adopt_app",
    )
    written, _ = introspected_without_drift(project)
    assert "imply_privileges" not in written
    assert "'SELECT', to=['rls_adopt_app'], sequence=metadata.tables['todos'].c['id'])" in written
    assert "'SELECT', to=['rls_adopt_app'], sequence='shared')" in written


@pytest.mark.exhaustive
def test_what_roles_hold_on_a_schema_is_declared(project: Project, server: Server) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos FOR SELECT TO rls_adopt_app USING (true)",
        "GRANT SELECT ON todos TO rls_adopt_app",
        "GRANT USAGE ON SCHEMA public TO rls_adopt_app",
        "GRANT USAGE, CREATE ON SCHEMA public TO rls_adopt_etl",
    )
    written, metadata = introspected_without_drift(project)
    assert "'CREATE', 'USAGE', to=['rls_adopt_etl'], schema='public', bypasses_row_security=True)" in written
    assert rebuilt(project, server, metadata) == project.state()


@pytest.mark.exhaustive
@pytest.mark.parametrize("has_defaults", [False, True], ids=["new database", "database with the defaults"])
def test_default_privileges_reopen_nothing_that_was_closed(
    project: Project, server: Server, has_defaults: bool
) -> None:
    defaults = [
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, TRUNCATE ON TABLES TO rls_adopt_app, rls_adopt_etl",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON SEQUENCES TO rls_adopt_app",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO rls_adopt_etl",
    ]
    execute_raw(
        project,
        *defaults,
        'CREATE TABLE "Closed to app" (id serial PRIMARY KEY)',
        'ALTER TABLE "Closed to app" ENABLE ROW LEVEL SECURITY',
        'REVOKE ALL ON "Closed to app" FROM rls_adopt_app',
        'REVOKE ALL ON SEQUENCE "Closed to app_id_seq" FROM rls_adopt_app',
        "CREATE TABLE plain (id serial PRIMARY KEY)",
        "REVOKE ALL ON plain FROM rls_adopt_app, rls_adopt_etl",
        "CREATE TABLE plain_sequence (id serial PRIMARY KEY)",
        "REVOKE ALL ON SEQUENCE plain_sequence_id_seq FROM rls_adopt_app",
        "CREATE TABLE narrow (id int)",
        "REVOKE ALL ON narrow FROM rls_adopt_app, rls_adopt_etl",
        "GRANT SELECT (id) ON narrow TO rls_adopt_app",
        "CREATE TABLE wide (id int)",
        "GRANT UPDATE ON wide TO rls_adopt_admin",
        "CREATE TABLE as_given (id int)",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = pg_temp AS 'SELECT 1'",
        "REVOKE ALL ON FUNCTION f FROM PUBLIC, rls_adopt_etl",
        "CREATE VIEW seen WITH (security_invoker) AS SELECT id, f() FROM plain",
        "REVOKE ALL ON seen FROM rls_adopt_app, rls_adopt_etl",
    )
    written, metadata = introspected_without_drift(project)
    assert "'as_given'" not in written
    assert "declare_on(\n        metadata.tables['plain'],\n        grant(to=" in written
    found = rebuilt(project, server, metadata, *(defaults if has_defaults else []))
    assert privileges_in(found) == [
        (kind, line)
        for kind, line in privileges_in(project.state())
        # A new database gets the default privileges after a table that declares nothing.
        if has_defaults or not line.startswith("as_given rls_")
    ]


def privileges_in(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without those on the functions that come with any default that calls a function."""
    return [line for line in lines if line[0].endswith("privilege") and not line[1].startswith("auth.")]


@pytest.mark.exhaustive
def test_a_sequence_that_lacks_what_defaults_give_is_declared(project: Project) -> None:
    execute_raw(
        project,
        "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO rls_adopt_app",
        "CREATE SEQUENCE closed",
        "CREATE SEQUENCE open",
        "REVOKE ALL ON SEQUENCE closed FROM rls_adopt_app",
        "CREATE TABLE todos (id int DEFAULT nextval('closed') + nextval('open'))",
    )
    written, metadata = introspected(project)
    assert "grant_on(metadata, to=['rls_adopt_app'], sequence='closed')" in written
    assert "'open'" not in written
    project.check(metadata)
    execute_raw(project, "GRANT USAGE ON SEQUENCE closed TO rls_adopt_app")
    assert operations(project.migrate(metadata)) == ["revoke"]


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
