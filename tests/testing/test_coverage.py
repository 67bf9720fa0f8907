"""Which policies the tests of an app exercise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, MetaData, Table, delete, insert, select, text, update
from sqlalchemy.orm import joinedload, sessionmaker

from sqla_rls import (
    Policy,
    anonymous,
    authenticated,
    declare_on,
    enforce_row_security,
    service_session,
)
from sqla_rls.testing.access import Access
from sqla_rls.testing.coverage import Exercise, Recorder, exercises, summary
from tests.support.pasted import write_conftest
from tests.support.sessions import Base, Notice, Step, Todo

APP = """
from sqlalchemy import *
from sqla_rls import *
metadata = MetaData()
notes = Table("notes", metadata, Column("id", Integer, primary_key=True), Column("user_id", Text),
              own_rows("user_id"))
"""
TESTS = """
from sqlalchemy import select, insert
from app_of_coverage import notes

def test_read(access):
    with access.as_caller("alice") as session:
        session.execute(select(notes))

def test_write(access):
    with access.as_caller("alice") as session:
        session.execute(insert(notes).values(id=1, user_id="alice"))
"""


def uses_of(engine: Engine, *statements: object, role: str = "authenticated") -> set[tuple[str, str, str]]:
    recorder = Recorder()
    recorder.start()
    try:
        with engine.connect() as connection, connection.begin() as transaction:
            with Access(connection).as_caller("alice", role=role) as session:
                for statement in statements:
                    session.execute(statement)  # type: ignore[call-overload]
            transaction.rollback()
    finally:
        recorder.stop()
    return recorder.uses


@pytest.mark.exhaustive
def test_a_job_without_a_person_exercises_the_policies_of_its_role(admin: Engine) -> None:
    recorder = Recorder()
    recorder.start()
    try:
        with admin.connect() as connection, connection.begin() as transaction:
            sessions = sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
            enforce_row_security(sessions, check_login_role=False)
            with service_session(sessions, reason="test", role="authenticated") as session:
                session.execute(select(Todo))
            with service_session(sessions, reason="test") as session:
                session.execute(delete(Todo))
            transaction.rollback()
    finally:
        recorder.stop()
    assert recorder.uses == {("todos", "SELECT", "authenticated")}


def test_a_statement_exercises_the_policies_of_its_tables(admin: Engine) -> None:
    own = "authenticated"
    assert uses_of(admin, select(Todo)) == {("todos", "SELECT", own)}
    assert uses_of(admin, select(Todo.task).join(Step)) == {
        ("todos", "SELECT", own),
        ("steps", "SELECT", own),
    }
    assert uses_of(admin, select(Todo.id).where(Todo.id.in_(select(Step.todo_id)))) == {
        ("todos", "SELECT", own),
        ("steps", "SELECT", own),
    }
    table: Table = Todo.metadata.tables["todos"]
    assert uses_of(admin, insert(table).values(task="x")) >= {("todos", "INSERT", own)}
    assert uses_of(admin, insert(table).inline().values(task="x")) == {("todos", "INSERT", own)}
    assert uses_of(admin, insert(table).values(task="x").returning(table.c.id)) == {
        ("todos", "INSERT", own),
        ("todos", "SELECT", own),
    }
    assert uses_of(admin, update(Todo).values(task="x")) == {
        ("todos", "UPDATE", own),
        ("todos", "SELECT", own),
    }
    assert uses_of(admin, delete(Step).where(Step.todo_id.in_(select(Todo.id)))) == {
        ("steps", "DELETE", own),
        ("steps", "SELECT", own),
        ("todos", "SELECT", own),
    }
    assert uses_of(admin, select(Notice), role="anonymous") == {("notices", "SELECT", "anonymous")}
    assert uses_of(admin, text("SELECT * FROM todos")) == set()


def test_eager_loads_and_a_flush_are_statements(admin: Engine) -> None:
    assert uses_of(admin, select(Todo).options(joinedload(Todo.steps))) >= {
        ("todos", "SELECT", "authenticated"),
        ("steps", "SELECT", "authenticated"),
    }
    recorder = Recorder()
    recorder.start()
    with admin.connect() as connection, connection.begin() as transaction:
        with Access(connection).as_caller("alice") as session:
            todo = Todo(task="x")
            session.add(todo)
            session.flush()
            todo.task = "y"
            session.flush()
            session.delete(todo)
            session.flush()
        # The owner is no caller.
        connection.execute(select(Step))
        transaction.rollback()
    recorder.stop()
    assert {command for _, command, _ in recorder.uses} == {"INSERT", "UPDATE", "DELETE", "SELECT"}
    assert {table for table, _, _ in recorder.uses} <= {"todos", "steps"}
    assert {role for *_, role in recorder.uses} == {"authenticated"}


def test_a_denied_statement_exercises_its_policy(admin: Engine) -> None:
    recorder = Recorder()
    recorder.start()
    with admin.connect() as connection, connection.begin() as transaction:
        access = Access(connection)
        with access.as_caller("alice"):
            access.assert_denied(lambda session: session.add(Todo(task="x", user_id="bob")), "policy")
        transaction.rollback()
    recorder.stop()
    assert ("todos", "INSERT", "authenticated") in recorder.uses


def test_a_policy_is_exercised_by_command_and_role() -> None:
    table = Table("docs", MetaData())
    declare_on(
        table,
        Policy("all", "ALL", [authenticated, anonymous], using=True),
        Policy("shared", "SELECT", "PUBLIC", using=True),
    )
    wanted = exercises([table.metadata])
    assert len(wanted) == 9
    assert Exercise("docs", "shared", "SELECT", "public") in wanted
    percent, lines = summary(wanted, {("docs", "SELECT", "anonymous"), ("docs", "DELETE", "editor")})
    assert lines[0] == "2 of 9 policies by command and role exercised (22 %)"
    assert "  not exercised: docs: policy 'all', DELETE as anonymous" in lines
    assert round(percent) == 22
    assert summary([], set())[0] == 100
    assert {one.table for one in exercises([Base.metadata])} >= {"todos", "notices"}


@pytest.mark.parametrize(
    "workers",
    [pytest.param((), id="alone"), pytest.param(("-n", "2"), id="xdist", marks=pytest.mark.exhaustive)],
)
@pytest.mark.exhaustive
def test_the_summary_of_a_run(admin: Engine, tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "app_of_coverage.py").write_text(APP)
    write_conftest(tmp_path, admin.url, 'pytest_plugins = ["sqla_rls.testing.pytest_plugin"]')
    (tmp_path / "test_app.py").write_text(TESTS)
    with admin.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (id int PRIMARY KEY, user_id text)")
        connection.exec_driver_sql("GRANT SELECT, INSERT ON notes TO authenticated")

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        # Other plugins than xdist are of no use here, and take seconds to import.
        plugins = ["-p", "no:cacheprovider", "-p", "xdist"]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, *workers, *options, "."]
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)

    low = run("--rls-coverage=app_of_coverage:metadata", "--rls-coverage-fail-under=60")
    assert (low.returncode, "less than the required 60 %" in low.stdout) == (1, True), low.stdout
    assert "2 of 4 policies by command and role exercised (50 %)" in low.stdout
    assert (
        "not exercised: notes: policy 'crud-authenticated-policy-delete', DELETE as authenticated"
        in low.stdout
    )
    if workers:
        enough = run("--rls-coverage=app_of_coverage:metadata", "--rls-coverage-fail-under=50")
        assert enough.returncode == 0, enough.stdout + enough.stderr
        assert run("--rls-coverage=app_of_coverage:metadata").returncode == 0
        assert run("--rls-coverage-fail-under=50").returncode == 4
        wrong = run("--rls-coverage=nowhere:metadata")
        assert wrong.returncode != 0
        assert "can't be imported" in wrong.stdout + wrong.stderr
