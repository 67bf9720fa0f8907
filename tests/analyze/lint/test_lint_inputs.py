"""Databases that are hard to read: names, dropped roles, foreign schemas, few rights, many tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from benchmarks.analyze import many_tables
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.run import lint
from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.lint.examples import run, shown
from tests.support.modules import imported_anew
from tests.support.suite import find_installation, newest

LONG = "é" * 31 + "x"  # 63 bytes
HARD = f"""
CREATE ROLE "Ro le" NOLOGIN;
CREATE ROLE gone NOLOGIN;
CREATE ROLE few LOGIN;
CREATE SCHEMA "Sch: %";
GRANT USAGE ON SCHEMA "Sch: %" TO "Ro le";
CREATE TYPE "Sch: %".mood AS ENUM ('a', 'b');
CREATE DOMAIN "Sch: %".positive AS int CHECK (VALUE > 0);
CREATE TABLE "Sch: %"."{LONG}" (
  "i d" "Sch: %".positive PRIMARY KEY, "o'wner" text, moods "Sch: %".mood[], "upper" text
    GENERATED ALWAYS AS (upper("o'wner")) STORED, nothing point);
ALTER TABLE "Sch: %"."{LONG}" ENABLE ROW LEVEL SECURITY;
CREATE POLICY "p: {{}} %s" ON "Sch: %"."{LONG}" TO "Ro le", gone
  USING ("o'wner" = current_setting('app.user', true) OR 'a' = ANY (moods));
CREATE POLICY other ON "Sch: %"."{LONG}" FOR UPDATE TO PUBLIC USING ("upper" = 'X') WITH CHECK (true);
GRANT ALL ON "Sch: %"."{LONG}" TO "Ro le", gone;
CREATE TABLE "<script>" (id int) PARTITION BY LIST (id);
CREATE TABLE "<script>_1" PARTITION OF "<script>" FOR VALUES IN (1) PARTITION BY LIST (id);
CREATE TABLE "<script>_2" PARTITION OF "<script>_1" FOR VALUES IN (1);
ALTER TABLE "<script>" ENABLE ROW LEVEL SECURITY;
CREATE POLICY itself ON "<script>" USING (EXISTS (SELECT FROM "<script>" AS s WHERE s.id = id));
GRANT SELECT ON "<script>", "<script>_2" TO "Ro le";
CREATE TABLE empty ();
ALTER TABLE empty ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON empty USING (true);
CREATE VIEW v1 AS SELECT * FROM "Sch: %"."{LONG}";
CREATE VIEW v2 WITH (security_invoker) AS SELECT * FROM v1;
CREATE VIEW v3 AS SELECT v2.*, e.ctid FROM v2, empty AS e;
GRANT SELECT ON v3, empty TO "Ro le";
CREATE FUNCTION strange(anyelement, VARIADIC int[] DEFAULT '{{}}') RETURNS bool LANGUAGE plpgsql
  SECURITY DEFINER AS 'BEGIN EXECUTE $1::text; RETURN true; END';
CREATE PROCEDURE proc() LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
CREATE TABLE asks (id int PRIMARY KEY, who name DEFAULT current_user);
ALTER TABLE asks ENABLE ROW LEVEL SECURITY;
CREATE POLICY asks ON asks USING (strange(id) AND who = current_user);
GRANT SELECT, INSERT ON asks TO "Ro le";
CREATE TABLE parent (id int); CREATE TABLE child (extra text) INHERITS (parent);
SET allow_system_table_mods = on;
DELETE FROM pg_authid WHERE rolname = 'gone';
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own: roles are of all databases, and one is gone without its privileges."""
    with Server.start(find_installation(newest())) as found:
        yield found


@pytest.fixture(scope="module")
def hard(server: Server) -> URL:
    name = server.create_database()
    with connected(server.url(name)) as connection, connection.begin():
        run(connection, HARD)
    return server.url(name)


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        yield connection


def looked(url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    given = ["lint", url.render_as_string(hide_password=False), "--format", "json", "--ignore", "speed"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code in (0, 1), done.output
    return dict(json.loads(done.stdout))


@pytest.mark.exhaustive
def test_a_database_that_is_hard_to_read(hard: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = looked(hard, tmp_path, monkeypatch)

    assert [one["object"] for one in found["findings"] if one["kind"] == "rule"] == []
    named = {(one["rule"], one["object"]) for one in found["findings"]}
    assert ("caller-privileges", f'"Sch: %"."{LONG}"') in named
    assert ("partition-past-parent", 'public."<script>_2"') in named
    assert ("definer-search-path", "public.strange(anyelement,integer[])") in named


def test_a_role_with_few_rights_gets_the_catalog_and_a_line_about_the_rest(
    hard: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = looked(hard.set(username="few"), tmp_path, monkeypatch)

    assert ("caller-privileges", f'"Sch: %"."{LONG}"') in {
        (one["rule"], one["object"]) for one in found["findings"]
    }
    assert {one["level"] for one in found["findings"] if one["rule"] == "unknown"} == {"error"}
    assert "public.asks" in {one["object"] for one in found["findings"] if one["rule"] == "unknown"}


def test_the_run_is_read_only_and_takes_no_lock_above_access_share(hard: URL) -> None:
    with connected(hard) as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        lint(Database(connection=connection), target="hard", ignore=["speed"])
        modes = connection.scalars(
            text("SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'")
        )
        assert set(modes) == {"AccessShareLock"}


@pytest.mark.exhaustive
def test_nothing_is_found_in_an_empty_database(server: Server) -> None:
    with connected(server.url(server.create_database())) as connection:
        found = lint(Database(connection=connection), target="empty")
    assert [one for one in shown(found) if not one.startswith("info")] == []
    assert found.left_out == ()


def in_schemas(number: int) -> str:
    """The tables of the benchmark, in five schemas."""
    script = many_tables(number).before
    for place in range(5):
        script += f"CREATE SCHEMA s{place}; GRANT USAGE ON SCHEMA s{place} TO authenticated;"
    for place in range(number):
        script += f"ALTER TABLE table_{place} SET SCHEMA s{place % 5};"
    return script


def of_shapes(number: int, shapes: int) -> str:
    """Tables with *shapes* names of columns and conditions."""
    script = many_tables(0).before
    for place in range(number):
        table, kind = f"table_{place}", place % shapes
        script += f"""
CREATE TABLE {table} (id bigint PRIMARY KEY, org_id int NOT NULL, owner_{kind} text, status_{kind} text);
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON {table} TO authenticated;
CREATE POLICY read ON {table} FOR SELECT TO authenticated
  USING (owner_{kind} = (SELECT auth.user_id()) OR status_{kind} = 'public');
CREATE POLICY edit ON {table} FOR UPDATE TO authenticated USING (owner_{kind} = (SELECT auth.user_id()));
"""
    return script


def statements(server: Server, script: str) -> int:
    """Return the number of statements that a run sends."""
    with connected(server.url(server.create_database())) as connection:
        with connection.begin():
            connection.execute(CreateAuthFunctions())
            if not connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = 'authenticated'")):
                run(connection, "CREATE ROLE authenticated")
            run(connection, script)
        with connection.begin():
            sent: list[str] = []
            event.listen(connection, "before_cursor_execute", lambda *call: sent.append(call[2]))
            found = lint(Database(connection=connection), target="many")

    # A change of org_id hides the row from its owner.
    assert {one.rule for one in found.findings if one.level != "info"} <= {"update-hides-row"}
    return len(sent)


@pytest.mark.exhaustive
def test_tables_of_one_shape_are_asked_about_once(server: Server) -> None:
    few = statements(server, many_tables(30).before)
    assert statements(server, many_tables(300).before) == few
    assert statements(server, in_schemas(60)) == few


@pytest.mark.exhaustive
def test_the_statements_grow_with_the_shapes_and_not_with_the_tables(server: Server) -> None:
    of_10, of_20, of_40 = (statements(server, of_shapes(40, shapes)) for shapes in (10, 20, 40))

    assert of_40 - of_20 == 2 * (of_20 - of_10)
    assert of_20 - of_10 <= 10 * 10
    assert statements(server, of_shapes(80, 40)) == of_40


@pytest.mark.exhaustive
@pytest.mark.parametrize("models", ["todos.models:Base", "todos.lists:Base", "teams.models:Base"])
def test_an_example_has_nothing_above_an_info(models: str, tmp_path: Path) -> None:
    # The author alone sees the trash: another editor puts nothing into it, and the author gives nothing in it
    # to somebody else.
    meant = {"rule": "update-hides-row", "object": "public.documents"}
    if models.startswith("teams"):
        parts = "\n".join(f'{name} = "{value}"' for name, value in meant.items())
        (tmp_path / "lint.toml").write_text(
            f'[[tool.sqla_rls.lint.exempt]]\n{parts}\nreason = "the trash is the author\'s"\n', "utf-8"
        )
    config = str(tmp_path / "lint.toml")
    given = ["lint", "models", "--models", models, "--fail-on", "warning", "--config", config]
    with imported_anew("todos.models", "todos.lists"):
        done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
