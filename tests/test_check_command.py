"""The command ``sqla-rls check``: one exit code for lint, the matrix and ``alembic check``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from tests.support.servers import cleared_server

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

ROOT = Path(__file__).parents[1]
MODELS = ["--models", "todos.models:Base"]


@pytest.fixture(scope="module")
def migrated() -> Iterator[str]:
    """The URL of a database with the todos example, as the owner."""
    with cleared_server() as server:
        url = server.url(server.create_database()).render_as_string(hide_password=False)
        environment = {**os.environ, "DATABASE_URL": url}
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
        )
        yield url


@pytest.fixture(autouse=True)
def in_the_repository(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DATABASE_URL", migrated)


def check(*arguments: str, code: int) -> Result:
    done = CliRunner().invoke(main, ["check", *arguments])
    assert done.exit_code == code, done.output
    return done


def statuses(done: Result) -> dict[str, str]:
    lines = done.output.splitlines()
    assert len(lines) <= 10
    return {line[:8].strip(): line[8:19].strip() for line in lines if not line.startswith("Add")}


def test_each_check_has_a_line_and_the_worst_decides(migrated: str, tmp_path: Path) -> None:
    access = str(tmp_path / "access.txt")
    done = check(migrated, *MODELS, "--access", access, "--skip", "lint", code=2)
    assert statuses(done) == {"matrix": "no answer", "alembic": "ok"}
    assert "Write it with --write" in done.output

    written = CliRunner().invoke(main, ["matrix", migrated, "--write", access])
    assert written.exit_code == 0, written.output
    done = check(migrated, *MODELS, "--access", access, code=0)
    assert statuses(done) == {"lint": "ok", "matrix": "ok", "alembic": "ok"}

    with create_engine(
        migrated.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool
    ).begin() as one:
        one.execute(text("ALTER TABLE todos DISABLE ROW LEVEL SECURITY"))
    done = check(migrated, *MODELS, "--access", access, code=1)
    assert statuses(done) == {"lint": "fails", "matrix": "fails", "alembic": "fails"}
    assert "lines differ from the file" in done.output
    fail_on = ["--fail-on", "never", "--skip", "matrix", "--skip", "alembic"]
    assert statuses(check(migrated, *MODELS, *fail_on, code=0)) == {"lint": "ok"}
    shown = check(migrated, *MODELS, "--access", access, "--skip", "lint", "--details", code=1).output
    assert "+public.todos, authenticated, SELECT: always (row security is off)" in shown


def test_a_part_without_an_answer_fails(migrated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqla_rls.analyze.lint.run.STATEMENT_TIMEOUT", 1)
    done = check(migrated, "--skip", "matrix", "--skip", "alembic", "--details", code=1)
    assert "has no answer" in done.output
    assert "lint    fails" in done.output


def test_env_py_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    done = check("models", *MODELS, "--skip", "lint", "--skip", "matrix", code=2)
    assert statuses(done) == {"alembic": "no answer"}
    assert "OperationalError" in done.output


def test_all_checks_skipped_is_an_error() -> None:
    skipped = [word for name in ("lint", "matrix", "alembic") for word in ("--skip", name)]
    assert "leaves no check" in check("models", *skipped, code=2).output
