"""The user's own tests judge the mutants of a test database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import URL, Engine

from sqla_rls.analyze.prove.mutants import access_state
from sqla_rls.cli import main
from tests.support.suite import table
from todos.models import Base

#: Alice must not see, nor write, the rows of bob.
TESTS = """
import sys, psycopg
with psycopg.connect({url!r}) as connection:
    connection.execute("INSERT INTO todos (user_id, task) VALUES ('bob', 'sleep')")
    connection.execute("SET LOCAL ROLE authenticated")
    connection.execute("SET LOCAL request.jwt.claims = '{{\\"sub\\": \\"alice\\"}}'")
    found = [connection.execute(statement).rowcount for statement in {statements!r}]
    connection.rollback()
sys.exit(any(found))
"""
STATEMENTS = [
    "SELECT * FROM todos",
    "WITH c AS (SELECT 1) UPDATE todos SET task = 'x'",
    "DELETE FROM todos",
]


@pytest.fixture
def url(database: URL, engine: Engine) -> str:
    Base.metadata.create_all(engine)
    return database.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def tests(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "tests.py"
    path.write_text(TESTS.format(url=url, statements=STATEMENTS))
    return path


def judge(url: str, *command: str, limit: int = 100) -> Result:
    given = ["mutate", "--this-is-a-test-database", "--format", "json", "--limit", str(limit), url, "--"]
    return CliRunner().invoke(main, [*given, *command])


def state(engine: Engine) -> object:
    with engine.connect() as connection:
        return access_state(connection)


@pytest.mark.exhaustive
def test_tests_find_the_mutants_that_they_are_about(url: str, tests: Path, engine: Engine) -> None:
    before = state(engine)
    told = judge(url, sys.executable, str(tests))
    assert told.exit_code == 1, told.output
    answer = json.loads(told.stdout)
    survivors = {one["name"] for one in answer["survivors"]}
    assert {one["kind"] for one in answer["equivalent"]} == {"public"}
    assert "public.todos: crud-authenticated-policy-insert WITH CHECK true" in survivors
    assert "public.todos: crud-authenticated-policy-select USING true" not in survivors
    assert answer["found"] == 4
    assert state(engine) == before


def test_the_database_is_not_changed_without_a_word(url: str, tests: Path) -> None:
    told = CliRunner().invoke(main, ["mutate", url, "--", sys.executable, str(tests)])
    assert (told.exit_code, "--this-is-a-test-database" in told.output) == (2, True)


@table(
    ("script", "hint"),
    [
        (
            "execute('ALTER TABLE todos ENABLE ROW LEVEL SECURITY')",
            "public.todos had lost the mutant, so they create their tables again",
        ),
        ("raise SystemExit(3)", "fail without a mutant, with exit code 3"),
        ("execute('ALTER TABLE todos DISABLE ROW LEVEL SECURITY')", "changed the policies"),
    ],
)
def test_tests_that_cannot_judge_are_an_error(
    url: str, tmp_path: Path, engine: Engine, script: str, hint: str
) -> None:
    path = tmp_path / "tests.py"
    path.write_text(
        f"import psycopg\nexecute = psycopg.connect({url!r}, autocommit=True).execute\n{script}\n"
    )
    told = judge(url, sys.executable, str(path), limit=1)
    assert (told.exit_code, hint in told.output) == (2, True), told.output


def test_a_missing_program_is_an_error(url: str) -> None:
    told = judge(url, "no-such-program")
    assert (told.exit_code, "Give a program after --" in told.output) == (2, True), told.output


def test_a_database_without_policies_is_an_error(database: URL) -> None:
    told = judge(database.render_as_string(hide_password=False), "true")
    assert (told.exit_code, "no policies to weaken" in told.output) == (2, True), told.output


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_restores_the_database(
    url: str, tmp_path: Path, engine: Engine, number: signal.Signals
) -> None:
    path, ready = tmp_path / "tests.py", tmp_path / "ready"
    path.write_text(
        f"import pathlib, time\nready = pathlib.Path({str(ready)!r})\n"
        "ready.write_text(str(len(ready.read_text()) if ready.exists() else '') + 'x')\n"
        "time.sleep(0 if len(ready.read_text()) == 1 else 60)\n"
    )
    before = state(engine)
    command = [sys.executable, "-m", "sqla_rls", "mutate", "--this-is-a-test-database", url, "--"]
    # A session of its own: the signal is for the command, and its child gets none.
    with subprocess.Popen(
        [*command, sys.executable, str(path)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (ready.exists() and len(ready.read_text()) > 1) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert state(engine) != before
        os.kill(process.pid, number)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, "interrupted: the database is as before" in told) == (2, True), told
    assert state(engine) == before
