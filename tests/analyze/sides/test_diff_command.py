"""The commands ``sqla-rls diff`` and ``sqla-rls snapshot``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import URL, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.cli.progress import Progress
from sqla_rls.testing.postgres import Server
from tests.support.servers import cleared_server

ROOT = Path(__file__).parents[3]
MODELS = ["--models", "todos.models:Base"]

MEMBERS = """
CREATE ROLE app_user;
CREATE ROLE table_owner;
CREATE SCHEMA "Team: one" AUTHORIZATION table_owner;
GRANT USAGE ON SCHEMA "Team: one" TO app_user;
SET search_path = "Team: one";
CREATE FUNCTION me() RETURNS text LANGUAGE sql STABLE
  AS $$ SELECT current_setting('request.jwt.claims', true)::json ->> 'sub' $$;
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
CREATE TABLE "Docs" (id int PRIMARY KEY, org_id int NOT NULL, is_public boolean NOT NULL);
CREATE TABLE notes (id int PRIMARY KEY, user_id text NOT NULL);
ALTER TABLE members OWNER TO table_owner;
ALTER TABLE "Docs" OWNER TO table_owner;
ALTER TABLE notes OWNER TO table_owner;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Docs" ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON members TO app_user USING (user_id = me());
CREATE POLICY team ON "Docs" FOR SELECT TO app_user
  USING (org_id IN (SELECT m.org_id FROM members AS m) OR is_public);
CREATE POLICY own ON notes TO app_user USING (user_id = me());
GRANT SELECT, INSERT, UPDATE, DELETE ON members, "Docs", notes TO app_user;
"""

OPEN_TO_PUBLIC = """
CREATE TABLE docs (id int PRIMARY KEY);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON docs USING ({using});
GRANT SELECT ON docs TO PUBLIC;
CREATE TABLE secrets (id int PRIMARY KEY);
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON secrets USING ({using});
"""


def run(*arguments: str, code: int) -> Result:
    done = CliRunner().invoke(main, [*arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with cleared_server() as server:
        yield server


@pytest.fixture
def by_hand(own_server: Server) -> Iterator[URL]:
    """A database made without models; its owner may change the objects."""
    name = own_server.create_database()
    url = own_server.url(name)
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS app_user, table_owner")
        connection.connection.cursor().execute(MEMBERS)
    yield url
    own_server.drop_database(name)


@pytest.fixture
def snapshot(by_hand: URL, tmp_path: Path) -> str:
    path = tmp_path / "before.json"
    path.write_text(run("snapshot", by_hand.render_as_string(), code=0).stdout)
    return str(path)


@pytest.fixture
def change(by_hand: URL) -> Callable[[str], str]:
    """Runs SQL in the database, and returns the side."""

    def alter(sql: str) -> str:
        with create_engine(by_hand, poolclass=NullPool).begin() as connection:
            connection.execute(text('SET LOCAL search_path = "Team\\: one"'))
            connection.connection.cursor().execute(sql)
        return by_hand.render_as_string()

    return alter


WIDER = "CREATE OR REPLACE FUNCTION me() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'user_1' $$"


@pytest.mark.exhaustive
def test_a_side_is_like_itself(by_hand: URL, snapshot: str) -> None:
    done = run("diff", by_hand.render_as_string(), snapshot, "--fail-on", "any", code=0)
    assert "no difference found" in done.stdout


def test_what_opens_closes_the_gate(snapshot: str, change: Callable[[str], str]) -> None:
    after = change(
        'DROP POLICY team ON "Docs"; CREATE POLICY team ON "Docs" FOR SELECT TO app_user USING (true)'
    )
    done = run("diff", snapshot, after, "--format", "json", code=1)
    found = json.loads(done.stdout)
    (opened,) = found["changes"]
    assert (opened["object"], opened["role"], opened["command"], opened["verdict"]) == (
        '"Team: one"."Docs"',
        "app_user",
        "SELECT",
        "opens",
    )
    assert found["unknown"] == []


@pytest.mark.exhaustive
def test_a_policy_opens_rows_to_public_though_no_role_exists_yet() -> None:
    with cleared_server() as server:
        urls = []
        for using in ("id = 1", "true"):
            url = server.url(server.create_database())
            with create_engine(url, poolclass=NullPool).begin() as connection:
                connection.exec_driver_sql(OPEN_TO_PUBLIC.format(using=using))
            urls.append(url.render_as_string())
        found = json.loads(run("diff", *urls, "--format", "json", code=1).stdout)
        with create_engine(url, poolclass=NullPool).connect() as connection:
            roles = connection.scalars(text("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'")).all()
    assert [(one["object"], one["role"], one["command"], one["verdict"]) for one in found["changes"]] == [
        ("public.docs", "PUBLIC", "SELECT", "opens")
    ]
    assert found["unknown"] == []
    assert roles == ["postgres"]


@pytest.mark.exhaustive
def test_options_decide_what_closes_the_gate(snapshot: str, change: Callable[[str], str]) -> None:
    after = change("DROP POLICY own ON notes")
    run("diff", snapshot, after, code=0)
    run("diff", snapshot, after, "--fail-on", "any", code=1)
    run("diff", snapshot, after, "--fail-on", "any", "--schema", "public", code=0)
    # The other way round it opens.
    run("diff", after, snapshot, code=1)
    run("diff", after, snapshot, "--fail-on", "never", code=0)


@pytest.mark.exhaustive
def test_the_counterexample_can_be_replayed(
    by_hand: URL, snapshot: str, change: Callable[[str], str]
) -> None:
    after = change(WIDER)
    found = json.loads(run("diff", snapshot, after, "--format", "json", code=1).stdout)
    example = next(one for one in found["changes"] if one["verdict"] != "closes")
    with create_engine(by_hand, poolclass=NullPool).connect() as connection:
        for table, rows in example["counterexample"]["rows"].items():
            for row in rows:
                names = ", ".join(f'"{name}"' for name in row)
                values = ", ".join(f":{name}" for name in row)
                insert = f"INSERT INTO {table} ({names}) VALUES ({values})"
                connection.execute(text(insert.replace("Team:", "Team\\:")), row)
        claims = example["counterexample"]["claims"]
        if claims is not None:
            connection.execute(
                text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": json.dumps(claims)}
            )
        connection.exec_driver_sql(f"SET LOCAL ROLE {example['role']}")
        statement = example["counterexample"]["statement"]
        done = connection.exec_driver_sql(statement)
        count = len(done.all()) if done.returns_rows else done.rowcount
        assert example["counterexample"]["after"] == f"{count} row{'s' * (count != 1)}"
        connection.rollback()


@pytest.mark.exhaustive
def test_a_reviewed_change_passes_and_a_new_one_doesnt(
    snapshot: str, change: Callable[[str], str], tmp_path: Path
) -> None:
    baseline = str(tmp_path / "baseline.json")
    wide = 'CREATE POLICY wide ON "Docs" FOR SELECT TO app_user USING (true)'
    after = change(wide)
    run("diff", snapshot, after, "--baseline", baseline, code=2)
    run("diff", snapshot, after, "--baseline", baseline, "--write-baseline", code=0)
    done = run("diff", snapshot, after, "--baseline", baseline, "--fail-on", "any", code=0)
    assert "(reviewed)" in done.stdout
    change('ALTER TABLE notes DISABLE ROW LEVEL SECURITY; DROP POLICY wide ON "Docs"')
    done = run("diff", snapshot, after, "--baseline", baseline, code=1)
    assert "stale: " in done.stdout


@pytest.mark.exhaustive
def test_an_option_names_the_owner_of_the_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    snapshot = run("snapshot", "models", *MODELS, "--owner", "Some One", code=0).stdout
    assert json.loads(snapshot)["database"]["owner_of_tables"] == "Some One"


@pytest.mark.exhaustive
def test_models_are_like_their_revisions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "head.json"
    path.write_text(run("snapshot", "rev:head", "--owner", "Some One", code=0).stdout)
    done = run("diff", str(path), "models", *MODELS, "--fail-on", "any", code=0)
    assert "no difference found" in done.stdout
    assert "role Some One owns the objects" in done.stdout
    done = run("diff", "rev:base", "rev:head", "--schema", "public", "--format", "json", code=1)
    changes = json.loads(done.stdout)["changes"]
    assert {one["role"] for one in changes if one["object"] == "public.todos"} == {"authenticated", "owner"}
    assert {one["object"] for one in changes} == {"public.todos"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json", "models"], "there is no such file"),
        (["models", "models"], "Add --models"),
        (["models", "rev:nowhere", *MODELS], "Can't locate revision"),
        (["models", "postgresql://me:very-secret@127.0.0.1:1/x", *MODELS], "can't be read"),
        (["models", "models", *MODELS, "--write-baseline"], "needs --baseline"),
        (["models", "models", *MODELS, "--baseline", "nowhere.json"], "Add --write-baseline"),
    ],
)
def test_a_comparison_that_cannot_run_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    done = run("diff", *arguments, code=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()[-1:]) == 1
    assert "Traceback" not in done.output
    assert "very-secret" not in done.output


@pytest.mark.exhaustive
def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch, snapshot: str) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("sqla_rls.analyze.sides.comparison.compare_databases", fail)
    done = run("diff", snapshot, snapshot, code=2)
    assert done.stderr == "Error: sqla-rls has no answer: ZeroDivisionError: one two\n"


@pytest.mark.exhaustive
def test_a_table_that_a_scratch_database_has_in_part_is_unknown(snapshot: str, tmp_path: Path) -> None:
    edited = tmp_path / "edited.json"
    edited.write_text(Path(snapshot).read_text().replace("OR is_public)", "OR is_there())"))
    found = json.loads(run("diff", snapshot, str(edited), "--format", "json", code=0).stdout)
    assert {one["object"] for one in found["unknown"]} == {'"Team: one"."Docs"'}
    assert {one["object"] for one in found["changes"]} == set()
    assert "only in part" in found["unknown"][0]["reason"]


@pytest.mark.exhaustive
def test_a_part_that_is_missing_on_both_sides_is_no_difference(snapshot: str, tmp_path: Path) -> None:
    edited = tmp_path / "edited.json"
    edited.write_text(Path(snapshot).read_text().replace("OR is_public)", "OR is_there())"))
    run("diff", snapshot, str(edited), "--fail-on", "unknown", code=1)
    run("diff", str(edited), str(edited), "--fail-on", "unknown", code=0)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_comparison_shows_a_bar_on_a_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return is_terminal

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(Progress, "_AFTER", 0.0)
    with Progress("Comparing") as progress:
        progress(0, 4, "public.a")
        progress(3, 4, "public.d")
    assert ("Comparing" in terminal.getvalue() and "75%" in terminal.getvalue()) == is_terminal
    assert bool(terminal.getvalue()) == is_terminal
