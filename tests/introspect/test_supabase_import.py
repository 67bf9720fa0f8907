"""``sqla-rls import`` of a project of Supabase writes the preset, and nothing of Supabase."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, text

from tests.support.introspected import introspected
from tests.support.project import Project, operations
from tests.support.supabase import Supabase, models

_MORE = """
CREATE TABLE profiles (id uuid PRIMARY KEY REFERENCES auth.users, username text);
ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Profiles are public" ON profiles FOR SELECT USING (true);
CREATE POLICY "Own profile" ON profiles FOR UPDATE TO authenticated USING ((SELECT auth.uid()) = id);
CREATE POLICY "Service" ON profiles TO service_role USING (true);
CREATE FUNCTION is_public(value text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT value = ''yes''';
CREATE FUNCTION nightly() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_temp AS 'SELECT';
REVOKE EXECUTE ON FUNCTION nightly FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION nightly TO service_role;
CREATE POLICY "By dashboard" ON storage.objects FOR DELETE TO authenticated
  USING (bucket_id = 'avatars' AND (storage.foldername(name))[1] = (SELECT auth.uid()::text));
"""


@pytest.mark.parametrize("default_grants", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_a_project_is_imported_with_the_preset(
    on_supabase: Supabase, tmp_path: Path, default_grants: bool
) -> None:
    name = on_supabase.create_project(default_grants=default_grants)
    project = Project(tmp_path / "migrations", on_supabase.url(name))
    project.migrate(models())
    with project.engine.begin() as connection:
        connection.execute(text(_MORE))
    before = on_supabase.state(name)

    written, metadata = introspected(project)
    assert "supabase.leave_alone(metadata)" in written
    assert "supabase.storage_objects(metadata)" in written
    assert "By dashboard" in written
    # service_role alone executes nightly(), whose privileges the preset leaves alone.
    assert "to=[]," in written
    for word in ("declare_roles", "default_privileges", "ignore(", "'USAGE'"):
        assert word not in written
    if default_grants:
        # Privileges that policies don't limit are revoked from callers, as the module says.
        assert "autogenerate will revoke" in written
        assert set(operations(project.revision(metadata))) == {"revoke"}
        project.upgrade()
        changed = on_supabase.state(name) ^ before
        assert {kind for kind, _ in changed} == {"privilege"}
        assert {line.split()[2] for _, line in changed} <= {"TRUNCATE", "TRIGGER", "REFERENCES", "MAINTAIN"}
        assert {line.split()[1] for _, line in changed} == {"anon", "authenticated"}
    project.check(metadata)


def test_another_database_is_imported_without_the_preset(project: Project) -> None:
    written, _ = introspected(project)
    assert "supabase" not in written


@pytest.mark.exhaustive
def test_a_remark_says_that_policies_dont_limit_what_anon_holds_by_default(
    on_supabase: Supabase, tmp_path: Path
) -> None:
    project = Project(tmp_path / "migrations", on_supabase.url(on_supabase.create_project()))
    with project.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id int, user_id uuid)")
        connection.exec_driver_sql("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(
            "CREATE POLICY own ON notes TO authenticated USING (user_id = (SELECT auth.uid()))"
        )
        # Policies name this role, so that declarations refuse the privileges.
        connection.exec_driver_sql("REVOKE ALL ON notes FROM authenticated")
        connection.exec_driver_sql("GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO authenticated")

    written, metadata = introspected(project)

    lines = [line.strip() for line in written.splitlines()]
    (grant,) = (place for place, line in enumerate(lines) if "'TRUNCATE'" in line)
    assert "to=['anon']" in lines[grant]
    assert lines[grant - 1].startswith("# policies don't limit ")
    assert "TRUNCATE of anon" in lines[grant - 1]
    project.check(metadata)
    assert operations(project.revision(metadata)) == []
    project.upgrade()
    without, found = re.sub(r", 'TRUNCATE'|'TRUNCATE', ", "", written), dict[str, Any]()
    exec(compile(without, "row_security.py", "exec"), found)
    metadata = MetaData()
    metadata.reflect(project.engine)
    found["declare_row_security"](metadata)
    assert operations(project.revision(metadata)) == ["revoke"]
