"""The command ``sqla-rls matrix``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.sides.scratch import Scratch
from sqla_rls.cli import main
from tests.support.servers import cleared_server

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

NOTES = """
CREATE ROLE app_user;
CREATE TABLE notes (id int PRIMARY KEY, user_id text NOT NULL);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON notes TO app_user
  USING (user_id = current_setting('request.jwt.claims', true)::json ->> 'sub');
GRANT SELECT, INSERT ON notes TO app_user;
"""


def run(*arguments: str, code: int) -> Result:
    done = CliRunner().invoke(main, ["matrix", *arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def url() -> Iterator[URL]:
    with cleared_server() as server:
        url = server.url(server.create_database())
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.connection.cursor().execute(NOTES)
        yield url


def test_a_file_to_commit_shows_each_change_of_access(url: URL, tmp_path: Path) -> None:
    target, access, page = url.render_as_string(), tmp_path / "access.txt", tmp_path / "access.html"
    assert run(target, "--write", str(access), "--html", str(page), code=0).stdout == ""
    lines = access.read_text(encoding="utf-8").splitlines()
    assert [line.partition(" | ")[0] for line in lines if not line.startswith("#")] == [
        "public.notes, app_user, INSERT: own rows",
        "public.notes, app_user, SELECT: own rows",
        "way around: role postgres, postgres, is a superuser. Reaches public.notes",
    ]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "no change of access" in run(target, "--check", str(access), code=0).stdout

    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE POLICY everything ON notes FOR SELECT TO app_user USING (1 = 1)"))
    try:
        shown = run(target, "--check", str(access), code=1).stdout
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP POLICY everything ON notes"))
    assert "-public.notes, app_user, SELECT: own rows | policy own" in shown
    assert "+public.notes, app_user, SELECT: always (the policies are true for every row)" in shown


def test_a_database_is_only_read(url: URL) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        # ACCESS SHARE is the only lock that this one lets through.
        connection.execute(text("LOCK TABLE notes IN EXCLUSIVE MODE"))
        assert "own rows" in run(url.render_as_string(), "--format", "csv", code=0).stdout
    with engine.connect() as connection:
        roles = connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolname = 'PUBLIC'")).all()
    assert roles == []


def test_a_role_with_few_rights_gets_what_it_may_see_and_a_line_about_the_rest(
    url: URL, tmp_path: Path
) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.connection.cursor().execute(
            """
            CREATE ROLE few LOGIN;
            CREATE TABLE "Hidden.""x" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
            CREATE SCHEMA apart; CREATE TABLE apart.things (id serial);
            CREATE VIEW all_hidden AS SELECT * FROM "Hidden.""x";
            GRANT SELECT ON notes TO few; GRANT SELECT ON all_hidden TO app_user;
            """
        )
    few = url.set(username="few").render_as_string()
    try:
        shown = run(few, code=0).stdout
        refused = run(few, "--write", str(tmp_path / "access.txt"), code=2).output
    finally:
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.connection.cursor().execute(
                'DROP TABLE "Hidden.""x" CASCADE; DROP SCHEMA apart CASCADE; DROP OWNED BY few; DROP ROLE few'
            )

    assert "there is no schema 'pubilc'" in run(url.render_as_string(), "--schema", "pubilc", code=2).output
    assert "public.notes" in shown
    assert "own rows" in shown
    assert 'Left out: public."Hidden.""x": the connection\'s role may not read it.' in shown
    assert "Left out: apart.things: the connection's role may not read it." in shown
    assert "all_hidden" in shown
    assert "pg_read_all_data" in refused


def test_arguments_that_fit_no_question_are_refused(tmp_path: Path) -> None:
    assert "give either TARGET or --diff" in run(code=2).output
    assert "give either TARGET or --diff" in run("models", "--diff", "a", "b", code=2).output
    assert "need TARGET" in run("--diff", "a", "b", "--check", "access.txt", code=2).output
    assert "either --write or --check" in run("models", "--check", "a", "--write", "a", code=2).output
    missing = run("models", "--check", str(tmp_path / "access.txt"), code=2)
    assert "Write it with --write" in missing.output


def test_a_role_that_gains_its_first_privilege_opens(
    url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot(name: str) -> str:
        done = CliRunner().invoke(main, ["snapshot", url.render_as_string()])
        assert done.exit_code == 0, done.output
        path = tmp_path / name
        path.write_text(done.stdout, encoding="utf-8")
        return str(path)

    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE reader"))
    before = snapshot("before.json")
    with engine.begin() as connection:
        connection.execute(text("GRANT SELECT ON notes TO reader"))
        connection.execute(text("CREATE POLICY read ON notes FOR SELECT TO reader USING (true)"))
        connection.execute(text("CREATE VIEW notes_of_all AS SELECT id FROM notes"))
        connection.execute(text("GRANT SELECT ON notes_of_all TO app_user"))
    after, page = snapshot("after.json"), tmp_path / "change.html"
    assert run("--diff", before, after, "--html", str(page), code=0).stdout == ""
    html = page.read_text(encoding="utf-8")
    assert '<span class="badge">opens</span>always' in html
    started: list[object] = []
    start = Scratch.__init__

    def counted(scratch: Scratch, *given: Any, **named: Any) -> None:
        started.append(scratch)
        start(scratch, *given, **named)

    monkeypatch.setattr(Scratch, "__init__", counted)
    shown = run("--diff", before, after, code=0).stdout
    # A scratch database for each side, of which neither starts twice.
    assert len(started) == 2
    assert "opens: public.notes, SELECT as reader\n  before: never (no privilege)\n  after: always" in shown
    assert "opens: view public.notes_of_all, as app_user: SELECT: reads with the rights of postgres" in shown
    back = run("--diff", after, before, "--format", "markdown", code=0).stdout
    assert "| **closes** | `public.notes` | `reader` | SELECT |" in back


def test_each_condition_of_the_examples_is_settled() -> None:
    for models, words in (
        ("todos.models:Base", ("public.todos", "authenticated", "UPDATE", "own rows")),
        ("teams.models:Base", ("public.members", "authenticated", "DELETE", "rows of my_teams('owner')")),
    ):
        found = json.loads(run("models", "--models", models, "--format", "json", code=0).stdout)
        entries = {
            (one["object"], one["role"], one["command"], one["condition"]): one for one in found["entries"]
        }
        assert entries[words]["verdict"] == "condition"
        by_worlds = [one for one in found["entries"] if one["basis"] == "worlds"]
        assert [one for one in by_worlds if one["verdict"] != "condition"] == []
