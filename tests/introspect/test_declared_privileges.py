"""``sqla-rls import`` declares grants, default privileges, and the privileges that PUBLIC lost."""

from __future__ import annotations

import pytest

from sqla_rls.testing.postgres import Server
from tests.support.introspected import closed, execute_raw, introspected, introspected_without_drift, rebuilt
from tests.support.project import Project, operations

pytestmark = pytest.mark.sqlalchemy


@pytest.mark.exhaustive
def test_what_was_taken_from_public_is_declared(project: Project) -> None:
    project.migrate(closed())
    written, metadata = introspected(project)
    assert "sqla_rls.revoke_public_privileges(metadata)" in written
    project.check(metadata)
    execute_raw(project, "GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert "revoke_public_privileges" not in introspected(project)[0]


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


def test_a_remark_stands_above_each_grant_that_policies_dont_limit(project: Project) -> None:
    execute_raw(
        project,
        "ALTER DEFAULT PRIVILEGES GRANT SELECT, TRUNCATE ON TABLES TO rls_adopt_etl",
        "CREATE TABLE todos (id int)",
        "ALTER TABLE todos ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY it ON todos FOR SELECT TO rls_adopt_app USING (true)",
        "GRANT SELECT ON todos TO rls_adopt_app",
        "GRANT TRIGGER ON todos TO rls_adopt_etl",
        "GRANT REFERENCES (id) ON todos TO rls_adopt_admin",
        "GRANT USAGE ON SCHEMA public TO rls_adopt_app",
        "GRANT USAGE, CREATE ON SCHEMA public TO rls_adopt_etl",
        "CREATE TABLE plain (id int)",
        "REVOKE SELECT ON plain FROM rls_adopt_etl",
        "CREATE VIEW seen WITH (security_invoker) AS SELECT id FROM todos",
    )
    written, _ = introspected_without_drift(project)
    lines = written.splitlines()
    beyond = [place for place, line in enumerate(lines) if "bypasses_row_security=True" in line]

    tail = "Delete them below, and autogenerate revokes them"
    assert [(lines[one].strip().partition("(")[0], lines[one - 1].strip()) for one in beyond] == [
        ("sqla_rls.grant_on", f"# policies don't limit CREATE of rls_adopt_etl. {tail}"),
        ("grant", f"# policies don't limit REFERENCES of rls_adopt_admin. {tail}"),
        ("grant", f"# policies don't limit TRIGGER, TRUNCATE of rls_adopt_etl. {tail}"),
        ("grant", f"# policies don't limit TRUNCATE of rls_adopt_etl. {tail}"),
        ("grant", f"# policies don't limit TRUNCATE of rls_adopt_etl. {tail}"),
        ("sqla_rls.default_privileges", f"# policies don't limit TRUNCATE of rls_adopt_etl. {tail}"),
    ]


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
