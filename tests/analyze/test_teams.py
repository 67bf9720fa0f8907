"""Openings in the policies of ``examples/teams``, each of which one small world shows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from sqla_rls.analyze.sides.side import Side, build_sides
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.compare import compare_databases

pytestmark = [pytest.mark.long, pytest.mark.one_postgres]

_READERS = """ALTER POLICY readers ON documents USING (
    (SELECT auth.user_id()) = author OR team_id = ANY (ARRAY(SELECT my_teams())) OR is_public
    OR EXISTS (SELECT FROM shares WHERE {}))"""
_USING = "SELECT policyname, qual FROM pg_policies WHERE policyname IN ('readers', 'editors')"
OPENINGS: dict[str, tuple[str, set[tuple[str, str, str]]]] = {
    # The shares of others are hidden from the caller, and the author is the one who shares a document.
    "the same": (_READERS.format("shares.document_id = documents.id"), set()),
    "a share of another document": (
        _READERS.format("shares.user_id = auth.user_id()"),
        {("public.documents", "authenticated", "SELECT")},
    ),
    "an editor of any kind": (
        "ALTER POLICY editors ON documents USING (team_id = ANY (ARRAY(SELECT my_teams())))",
        {("public.documents", "authenticated", "UPDATE")},
    ),
    "the trash": (
        "DROP POLICY trash ON documents",
        {
            *(("public.documents", role, "SELECT") for role in ("anonymous", "authenticated", "support")),
            # UPDATE by key changes rows that the caller may read.
            ("public.documents", "authenticated", "UPDATE"),
        },
    ),
}


def test_one_changed_policy_opens_what_it_should_not(
    subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    side = Side.parse("models", models="teams.models:Base")
    with build_sides(side, side) as (before, after):
        restored = [
            f"ALTER POLICY {name} ON documents USING ({using})"
            for name, using in after.connection.execute(text(_USING))
        ]
        for name, (change, expected) in OPENINGS.items():
            for statement in (*restored, change):
                after.connection.exec_driver_sql(statement)
            after.connection.commit()
            # Autogenerate tries 60 worlds.
            for worlds in (60, 200) if name == "a share of another document" else (200,):
                with subtests.test(name, worlds=worlds):
                    budget = Budget(worlds=worlds)
                    found = compare_databases(before.connection, after.connection, budget=budget)
                    assert found.unknown == ()
                    assert {(one.object, one.role, one.command) for one in found.changes} == expected
