"""The questions about access on a project of Supabase: ``auth.uid()`` is the caller there, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from sqla_rls import declare_roles, supabase
from sqla_rls.cli import main
from tests.support.project import Project
from tests.support.supabase import ALICE, BOB, Supabase, models

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def url(on_supabase: Supabase, tmp_path_factory: pytest.TempPathFactory) -> str:
    name = on_supabase.create_project(default_grants=False)
    project = Project(tmp_path_factory.mktemp("access") / "migrations", on_supabase.url(name))
    metadata = models()
    declare_roles(metadata, supabase.login_role("rls_app"))
    project.migrate(metadata)
    with on_supabase.admin(name).begin() as connection:
        for person in (ALICE, BOB):
            connection.execute(text("INSERT INTO auth.users (id) VALUES (:id)"), {"id": person})
            connection.execute(text("INSERT INTO todos (id, user_id) VALUES (:id, :id)"), {"id": person})
    return on_supabase.url(name).set(drivername="postgresql").render_as_string(hide_password=False)


def run(*arguments: str) -> str:
    return CliRunner().invoke(main, arguments, catch_exceptions=False).output


def test_the_matrix_tells_own_rows_and_public_ones(url: str) -> None:
    written = " ".join(run("matrix", url, "--schema", "public").split())
    assert "authenticated SELECT, INSERT, UPDATE, DELETE: own rows" in written
    assert "anon SELECT: rows with public yes" in written
    # Postgres alone calls a function of an event trigger.
    assert "rls_auto_enable" not in written


def test_why_tells_whose_row_it_is(url: str) -> None:
    as_alice = ("--as", ALICE, "--role", "authenticated", "--format", "json")
    own, other = (json.loads(run("why", url, "todos", key, *as_alice)) for key in (ALICE, BOB))
    assert (own["allowed"], other["allowed"]) == (True, False)


def test_lint_finds_no_fault_in_policies_of_the_preset(url: str, tmp_path: Path) -> None:
    found = json.loads(run("lint", url, "--schema", "public", "--format", "json"))
    ours = [one for one in found["findings"] if "todos" in one["object"] or "notices" in one["object"]]
    assert {one["level"] for one in ours} <= {"info"}
    assert not [one for one in found["findings"] if one["object"] == "rls_app"]


def test_lint_exempts_what_belongs_to_supabase_and_names_its_caller(on_supabase: Supabase) -> None:
    name = on_supabase.create_project()
    with on_supabase.admin(name).begin() as connection:
        connection.exec_driver_sql("SET ROLE postgres")
        connection.exec_driver_sql("CREATE TABLE notes (id int PRIMARY KEY, owner uuid NOT NULL)")
        connection.exec_driver_sql("ALTER TABLE notes ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(
            "CREATE POLICY all_notes ON notes FOR DELETE TO authenticated USING (true)"
        )
        connection.exec_driver_sql("CREATE POLICY all_files ON storage.objects FOR DELETE USING (true)")
    url = on_supabase.url(name).set(drivername="postgresql").render_as_string(hide_password=False)

    found = json.loads(run("lint", url, "--format", "json"))

    open_to_all = [one for one in found["findings"] if one["rule"] == "everyone-writes"]
    assert {one["object"] for one in open_to_all} == {"public.notes", "storage.objects"}
    assert {"auth.uid()" in one["remedy"]["sql"] for one in open_to_all} == {True}
    theirs = {"authenticator", "postgres", "storage.buckets", "net.http_get(text)"}
    assert theirs.isdisjoint(one["object"] for one in found["findings"])
    assert theirs <= {one["object"] for one in found["exempt"]}
