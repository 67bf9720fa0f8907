"""Functions that ``sqla-rls import`` declares, or leaves alone."""

from __future__ import annotations

import pytest
from sqlalchemy import MetaData

from sqla_rls import sql_function
from sqla_rls.testing.postgres import Server
from tests.support.introspected import execute_raw, introspected, introspected_without_drift, rebuilt
from tests.support.project import Project, operations, own_todos

pytestmark = pytest.mark.sqlalchemy


def test_functions_that_policies_defaults_and_views_call_are_declared(project: Project) -> None:
    execute_raw(
        project,
        'CREATE SCHEMA "Other one"',
        # Each is called by one that comes before it in the alphabet.
        'CREATE FUNCTION zero() RETURNS text LANGUAGE sql STABLE SET search_path = "Other one", pg_temp'
        " AS $$SELECT 'it''s 100% :done \\ {brace}'\n-- as they write it\n$$",
        'CREATE FUNCTION "Other one"."Is mine"(who text, n int = 5, VARIADIC "more %" text[] = \'{}\')'
        ' RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = \'\', "a ""b, c", pg_temp'
        " AS $$ SELECT public.zero() = $1 $$",
        "CREATE FUNCTION now_or_never() RETURNS TABLE (at timestamptz) LANGUAGE sql IMMUTABLE"
        " SET search_path = pg_catalog, pg_temp AS 'SELECT null::timestamptz'",
        'CREATE TABLE todos (id int PRIMARY KEY, task text DEFAULT zero(), "User Id" text)',
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        'CREATE POLICY mine ON todos TO rls_adopt_app USING ("Other one"."Is mine"("User Id"))',
        "CREATE VIEW seen WITH (security_invoker) AS SELECT at FROM now_or_never()",
        'REVOKE EXECUTE ON FUNCTION "Other one"."Is mine" FROM PUBLIC',
        'GRANT EXECUTE ON FUNCTION "Other one"."Is mine" TO rls_adopt_app, pg_monitor',
        'GRANT EXECUTE ON FUNCTION "Other one"."Is mine" TO "Rls adopt ""odd"" it\'s"',
        "REVOKE EXECUTE ON FUNCTION now_or_never FROM PUBLIC",
    )
    written, metadata = introspected_without_drift(project, "public", "Other one")
    assert written.count("sqla_rls.sql_function(") == 3
    assert "isn't declared" not in written

    execute_raw(
        project,
        "CREATE OR REPLACE FUNCTION zero() RETURNS text LANGUAGE sql STABLE SET search_path = pg_temp"
        " AS 'SELECT current_user'",
    )
    assert operations(project.migrate(metadata)) == ["create_rls_function"]
    assert project.state() == project.state()


@pytest.mark.exhaustive
def test_functions_of_migrations_are_found_again(project: Project) -> None:
    def models() -> MetaData:
        metadata = own_todos()
        sql_function("whose", metadata, returns="text", body="SELECT auth.user_id()", to="rls_adopt_app")
        return metadata

    project.migrate(models())
    written, metadata = introspected(project)
    assert "sqla_rls.sql_function(" in written
    project.check(metadata)
    execute_raw(project, "ALTER FUNCTION whose COST 7")
    written, metadata = introspected(project)
    assert "# function whose isn't declared: it has COST, ROWS, SUPPORT or TRANSFORM\n" in written
    assert "drop_rls_function" in operations(project.revision(metadata))


SAFE = "LANGUAGE sql SET search_path = pg_temp"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (f"{SAFE} RETURN true", "its body isn't a string"),
        (f"{SAFE} COST 7 AS 'SELECT true'", "it has COST, ROWS, SUPPORT or TRANSFORM"),
    ],
)
def test_a_function_that_cannot_be_declared_is_said_and_left_alone(
    project: Project, definition: str, why: str
) -> None:
    assert_left_alone(project, definition, why=why)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("afterwards", "why"),
    [
        (f"CREATE FUNCTION f() RETURNS int {SAFE} AS 'SELECT 1'", "others have its name"),
        ("ALTER EXTENSION plpgsql ADD FUNCTION f", "it belongs to an extension"),
        (
            "GRANT EXECUTE ON FUNCTION f TO rls_adopt_app WITH GRANT OPTION",
            "a role holds EXECUTE on it WITH GRANT OPTION",
        ),
        (
            'CREATE SCHEMA "Other one"; ALTER FUNCTION f SET SCHEMA "Other one"',
            'its schema isn\'t read. Give --schema "Other one"',
        ),
    ],
)
def test_so_is_one_that_is_more_than_it_says(project: Project, afterwards: str, why: str) -> None:
    assert_left_alone(project, f"{SAFE} AS 'SELECT true'", afterwards, why=why)


def assert_left_alone(project: Project, definition: str, *afterwards: str, why: str) -> None:
    execute_raw(
        project,
        f"CREATE FUNCTION f(who text) RETURNS boolean {definition}",
        "CREATE TABLE todos (id int PRIMARY KEY, who text)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON todos TO rls_adopt_app USING (f(who))",
        *afterwards,
    )
    written, _ = introspected_without_drift(project)
    assert f"f isn't declared: {why}\n" in written
    assert "sql_function(" not in written


@pytest.mark.exhaustive
def test_a_function_for_its_owner_alone_is_declared_so(project: Project, server: Server) -> None:
    execute_raw(
        project,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = pg_temp AS 'SELECT 1'",
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        "CREATE TABLE todos (id int DEFAULT f())",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
    )
    written, metadata = introspected_without_drift(project)
    assert "sql_function(" in written

    name = server.create_database()
    elsewhere = Project(project.folder.parent / "elsewhere", server.url(name))
    elsewhere.migrate(metadata)
    server.drop_database(name)


FUNCTIONS = {
    "plpgsql": "LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS"
    " 'BEGIN RETURN EXISTS (SELECT FROM public.todos AS t WHERE t.who = $1) AND 1 % 2 = 1; END'",
    "sql": "LANGUAGE sql SET search_path = public AS 'SELECT helper(who) FROM todos'",
    "no search_path": "LANGUAGE sql SECURITY DEFINER PARALLEL SAFE STRICT LEAKPROOF AS 'SELECT true'",
    "pg_temp first": "LANGUAGE sql SET search_path = pg_temp, public AS 'SELECT true'",
    "settings": """LANGUAGE sql SET work_mem = '7MB' SET search_path = "$user", 'a "b', '' AS 'SELECT 1=1'""",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("definition", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_models_alone_rebuild_a_database_with_functions(
    project: Project, server: Server, definition: str
) -> None:
    execute_raw(
        project,
        "CREATE TABLE todos (id int PRIMARY KEY, who text)",
        f"CREATE FUNCTION f(who text) RETURNS boolean {definition.replace('helper(who)', 'true')}",
        # Only the text of a body says that it is called; younger, too, than what calls it.
        "CREATE FUNCTION helper(who text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'",
        f"CREATE OR REPLACE FUNCTION f(who text) RETURNS boolean {definition}",
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION f TO rls_adopt_app",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON todos TO rls_adopt_app USING (f(who))",
        "GRANT SELECT ON todos TO rls_adopt_app",
    )
    written, metadata = introspected_without_drift(project)
    assert "isn't declared" not in written
    assert ("# function f is unsafe: it runs as its owner" in written) is (
        "SECURITY DEFINER" in definition and "search_path" not in definition
    )
    assert ("'helper'" in written) is ("helper(" in definition)
    assert rebuilt(project, server, metadata) == [
        line for line in project.state() if "helper" not in line[1] or "helper(" in definition
    ]


def test_a_function_of_a_policy_whose_tables_a_caller_can_shadow_is_said(project: Project) -> None:
    body = "'BEGIN RETURN EXISTS (SELECT FROM allowed WHERE allowed.id = $1); END'"
    execute_raw(
        project,
        "CREATE TABLE allowed (id int)",
        f"CREATE FUNCTION lured(int) RETURNS boolean LANGUAGE plpgsql STABLE AS {body}",
        "CREATE FUNCTION pinned(int) RETURNS boolean LANGUAGE plpgsql STABLE "
        f"SET search_path = public, pg_temp AS {body}",
        f"CREATE FUNCTION costly(int) RETURNS boolean LANGUAGE plpgsql STABLE COST 7 AS {body}",
        "CREATE FUNCTION bound(int) RETURNS boolean LANGUAGE sql STABLE "
        "RETURN EXISTS (SELECT FROM allowed WHERE allowed.id = $1)",
        "GRANT SELECT ON allowed TO rls_adopt_app",
    )
    for name in ("lured", "pinned", "costly", "bound"):
        execute_raw(
            project,
            f"CREATE TABLE {name} (id int)",
            f"INSERT INTO {name} VALUES (1)",
            f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
            f"CREATE POLICY it ON {name} TO rls_adopt_app USING ({name}(id))",
            f"GRANT SELECT ON {name} TO rls_adopt_app",
        )
    with project.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL ROLE rls_adopt_app")
        connection.exec_driver_sql("CREATE TEMPORARY TABLE allowed ON COMMIT DROP AS SELECT 1 AS id")
        opened = {
            name
            for name in ("lured", "pinned", "costly", "bound")
            if connection.exec_driver_sql(f"SELECT FROM {name}").rowcount
        }
    written, _ = introspected(project)

    assert opened == {"lured", "costly"}
    assert {
        name for name in ("lured", "pinned", "costly", "bound") if f"# function {name} is unsafe: " in written
    } == opened
    assert "policies, views or defaults call it, with the search_path of the caller" in written


@pytest.mark.exhaustive
def test_a_trigger_function_whose_tables_a_caller_can_shadow_is_said(project: Project) -> None:
    body = "'BEGIN INSERT INTO entries VALUES (current_user); RETURN NULL; END'"
    trigger = "RETURNS trigger LANGUAGE plpgsql"
    execute_raw(
        project,
        "CREATE TABLE entries (who text)",
        "GRANT INSERT ON entries TO rls_adopt_app",
        f"CREATE FUNCTION lured() {trigger} SECURITY DEFINER AS {body}",
        f"CREATE FUNCTION pinned() {trigger} SECURITY DEFINER SET search_path = public, pg_temp AS {body}",
        f"CREATE FUNCTION caller() {trigger} AS {body}",
        f"CREATE FUNCTION disabled() {trigger} SECURITY DEFINER AS {body}",
        f"CREATE FUNCTION unused() {trigger} SECURITY DEFINER AS {body}",
    )
    names = ("lured", "pinned", "caller", "disabled", "unused")
    for name in names:
        execute_raw(
            project,
            f'CREATE TABLE "{name} rows" (id int)',
            f'GRANT INSERT ON "{name} rows" TO rls_adopt_app',
        )
        if name != "unused":
            execute_raw(project, f'CREATE TRIGGER it AFTER INSERT ON "{name} rows" EXECUTE FUNCTION {name}()')
    execute_raw(project, 'ALTER TABLE "disabled rows" DISABLE TRIGGER it')
    with project.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL ROLE rls_adopt_app")
        connection.exec_driver_sql("CREATE TEMPORARY TABLE entries (source text) ON COMMIT DROP")
        connection.exec_driver_sql("GRANT ALL ON entries TO PUBLIC")
        ran = set()
        for name in names:
            connection.exec_driver_sql("TRUNCATE pg_temp.entries")
            connection.exec_driver_sql(f'INSERT INTO "{name} rows" VALUES (1)')
            found = connection.exec_driver_sql("SELECT source FROM pg_temp.entries").scalar()
            if found not in (None, "rls_adopt_app"):
                ran.add(name)
    written, _ = introspected(project)

    assert ran == {"lured"}
    assert {name for name in names if f"# function {name} is unsafe: it runs as its owner" in written} == ran
