"""``sqla-rls import`` of a project of Supabase writes the preset, and nothing of Supabase."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import text

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
