"""The statements that Postgres permits are those that the models declare."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from teams.models import Base as Teams

from sqla_rls.analyze.prove.prove import Prover, prove
from sqla_rls.analyze.prove.pytest_text import failing_tests
from sqla_rls.analyze.sides import Built, Side
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.limit import TimeLimit
from tests.support.pasted import write_conftest
from tests.support.proofs import SELECT, UPDATE, access_state_of, changed, keys
from tests.support.suite import table
from todos.models import Base as Todos


@pytest.mark.exhaustive
def test_todos_are_proved(built: Built) -> None:
    before = access_state_of(built.connection)
    proof = prove(built.connection, [Todos.metadata])
    assert (proof.violations, proof.not_stated) == ((), ())
    assert {(one.role, one.source, one.control) for one in proof.kept} == {
        ("anonymous", "declared", "hole"),
        ("authenticated", "declared", "hole"),
    }
    assert (len(proof.kept), proof.controls) == (8, 8)
    assert all(one.statements for one in proof.kept)
    assert access_state_of(built.connection) == before


@pytest.mark.exhaustive
@table(
    ("statements", "expected"),
    [
        ([f"ALTER POLICY {SELECT} USING (true)"], {("authenticated", "SELECT", "more")}),
        ([f"ALTER POLICY {UPDATE} WITH CHECK (true)"], {("authenticated", "UPDATE", "more")}),
        (
            [f"ALTER POLICY {SELECT} TO PUBLIC USING (true)", "GRANT SELECT ON todos TO anonymous"],
            {("authenticated", "SELECT", "more"), ("anonymous", "SELECT", "more")},
        ),
        (["REVOKE DELETE ON todos FROM authenticated"], {("authenticated", "DELETE", "less")}),
        (
            ["CREATE POLICY narrow ON todos AS RESTRICTIVE FOR UPDATE USING (NOT is_complete)"],
            {("authenticated", "UPDATE", "less")},
        ),
        (
            ["ALTER TABLE todos DISABLE ROW LEVEL SECURITY"],
            {("authenticated", command, "more") for command in ("SELECT", "INSERT", "UPDATE", "DELETE")},
        ),
        # By the key, UPDATE and DELETE need a SELECT policy.
        (
            [f"DROP POLICY {SELECT}"],
            {("authenticated", command, "less") for command in ("SELECT", "INSERT", "UPDATE", "DELETE")},
        ),
    ],
)
def test_a_difference_is_found(
    built: Built, statements: list[str], expected: set[tuple[str, str, str]]
) -> None:
    with changed(built.connection, *statements):
        assert keys(prove(built.connection, [Todos.metadata])) == expected


def test_a_violation_is_the_smallest_world_in_words(built: Built) -> None:
    with changed(built.connection, f"ALTER POLICY {SELECT} USING (true)"):
        (violation,) = prove(built.connection, [Todos.metadata]).violations
    assert re.fullmatch(
        r"authenticated without claims can read public\.todos\(id=\d, user_id=\w+\); the intent denies it",
        violation.text,
    )
    assert (violation.intended, violation.found, violation.claims) == (0, 1, None)
    assert [len(rows) for rows in violation.rows.values()] == [1]


def run_pytest(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(directory)]
    # Plugins are of no use here, and take seconds to import.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run([*command, str(directory)], capture_output=True, text=True, check=False, env=env)


@pytest.mark.exhaustive
def test_a_violation_is_a_failing_pytest_until_the_policy_is_mended(built: Built, tmp_path: Path) -> None:
    narrow = "CREATE POLICY narrow ON todos AS RESTRICTIVE FOR UPDATE USING (NOT is_complete)"
    write_conftest(tmp_path, built.url)
    with changed(built.connection, f"ALTER POLICY {SELECT} USING (true)", narrow):
        tests = failing_tests(prove(built.connection, [Todos.metadata]).violations)
        (tmp_path / "test_pasted.py").write_text(tests)
        failed = run_pytest(tmp_path)
    assert "def test_authenticated_may_not_select_public_todos(access: Access) -> None:" in tests
    assert "2 failed" in failed.stdout, failed.stdout
    assert "the statement reaches 1 rows, not 0" in failed.stdout
    assert "the statement reaches 0 rows, not 1" in failed.stdout
    mended = run_pytest(tmp_path)
    assert "2 passed" in mended.stdout, mended.stdout


def test_a_table_that_lacks_a_part_is_not_proved(built: Built) -> None:
    incomplete = frozenset({"public.todos"})
    prover = Prover.of(built.connection, [Todos.metadata], Budget(worlds=5), incomplete=incomplete)
    proof = prover.run((), (), None)
    assert not proof.kept
    assert {one.reason.partition(",")[0] for one in proof.not_stated} == {
        "the scratch database lacks a part of it"
    }


def test_without_time_nothing_is_proved(built: Built) -> None:
    proof = prove(built.connection, [Todos.metadata], budget=Budget(seconds=0))
    assert proof.violations == ()
    assert {one.reason for one in proof.not_stated} == {"the time limit of 0 s ended after 0 worlds"}


@pytest.mark.exhaustive
def test_the_documents_of_teams_are_proved() -> None:
    with Side.parse("models", models=Teams.metadata).build() as built:
        proof = prove(built.connection, [Teams.metadata], budget=Budget(worlds=60))
    assert (proof.violations, proof.not_stated) == ((), ())


@pytest.mark.exhaustive
def test_a_table_that_the_time_limit_cut_is_not_proved(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = iter([False] * 20)
    monkeypatch.setattr(TimeLimit, "is_over", property(lambda _: next(ended, True)))
    proof = prove(built.connection, [Todos.metadata], budget=Budget(seconds=60))
    assert (proof.kept, proof.violations) == ((), ())
    assert proof.scope.worlds
    assert {one.reason for one in proof.not_stated} == {
        f"the time limit of 60 s ended after {proof.scope.worlds} worlds"
    }
