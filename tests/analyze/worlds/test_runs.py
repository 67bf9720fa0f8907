"""A comparison keeps to its budget, gives the same output each time, and leaves no row."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds import compare, scratch
from sqla_rls.analyze.worlds.differences import smallest
from sqla_rls.analyze.worlds.limit import TimeLimit
from tests.support.worlds import Sides, verdicts


@pytest.mark.exhaustive
def test_an_opening_counts_though_the_closing_of_the_same_command_varies(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def varies(found: Any, direction: Any, run: Any, **options: Any) -> Any:
        return None if direction == "closes" else smallest(found, direction, run, **options)

    monkeypatch.setattr(compare, "smallest", varies)
    change = "ALTER POLICY mine ON docs USING (user_id = auth.user_id());"
    with sides.compared(change, budget=Budget()) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == "opens"
        reasons = {(one.object, one.role, one.command): one.reason for one in found.unknown}
        assert reasons["public.docs", "reader", "SELECT"] == "the results vary from run to run"


@pytest.mark.exhaustive
def test_a_policy_may_take_long_in_many_worlds(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "STATEMENT_TIMEOUT", 1_500)
    monkeypatch.setattr(scratch, "_MOST_AT_ONCE", 1)
    change = "ALTER POLICY own ON drafts USING (pg_sleep(0.05) IS NOT NULL);"
    setup = "ALTER POLICY own ON drafts USING (pg_sleep(0.05) IS NOT NULL AND is_me(user_id));"
    with sides.compared(change, setup=setup) as (found, *_):
        assert not found.unknown
        assert verdicts(found)["public.drafts", "reader", "SELECT"] == "opens"


@pytest.mark.exhaustive
def test_the_same_input_gives_the_same_output(sides: Sides) -> None:
    change = (
        "DROP POLICY mine ON docs; CREATE POLICY mine ON docs TO reader USING (user_id = auth.user_id());"
    )

    with (
        sides.compared(change, budget=Budget()) as (first, *_),
        sides.compared(change, budget=Budget()) as (second, *_),
    ):
        assert first == second
        assert {one.verdict for one in first.changes} == {"both"}


@pytest.mark.exhaustive
def test_a_small_budget_says_what_it_leaves_out(sides: Sides) -> None:
    with sides.compared("DROP POLICY not_secret ON docs;", budget=Budget(worlds=5)) as (found, *_):
        assert any("5 worlds were tried" in one for one in found.scope.left_out)


@pytest.mark.exhaustive
def test_without_time_nothing_is_decided(sides: Sides) -> None:
    change = "ALTER POLICY mine ON docs USING (true);"
    with sides.compared(change, budget=Budget(seconds=0)) as (found, *_):
        assert found.changes == ()
        assert {one.reason for one in found.unknown} == {"the time limit of 0 s ended after 0 worlds"}
        assert "public.docs: the time limit of 0 s ended after 0 worlds" in found.scope.left_out


@pytest.mark.exhaustive
def test_no_row_stays(sides: Sides) -> None:
    with sides.compared("ALTER TABLE docs DISABLE ROW LEVEL SECURITY;") as (found, before, after):
        assert found.opens
        for connection in (before, after):
            assert connection.scalar(text("SELECT count(*) FROM docs")) == 0


@pytest.mark.exhaustive
def test_the_plan_of_a_function_keeps_no_caller(sides: Sides) -> None:
    setup = """
    CREATE FUNCTION subject() RETURNS text LANGUAGE sql IMMUTABLE
      AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
    CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.subject(); END';
    CREATE TABLE notes (id int PRIMARY KEY, user_id text);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    GRANT SELECT ON notes TO reader;
    CREATE POLICY own ON notes TO reader USING ((SELECT auth.user_id()) = user_id);
    """

    with sides.compared("ALTER POLICY own ON notes USING (kept() = user_id);", setup=setup) as (found, *_):
        assert not found.unknown
        assert verdicts(found) == {}


@pytest.mark.exhaustive
def test_a_second_attempt_without_much_time_takes_no_place_of_the_first(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimeLimit, "share", lambda self, parts: 0.5)
    setup = "ALTER POLICY own ON drafts USING (pg_sleep(0.02) IS NOT NULL AND is_me(user_id));"
    change = "ALTER POLICY own ON drafts USING (is_me(user_id) AND pg_sleep(0.02) IS NOT NULL);"
    with sides.compared(change, setup=setup, budget=Budget(seconds=60)) as (found, *_):
        (reason,) = {one.reason for one in found.unknown}
        assert reason.startswith("the time limit of 60 s ended after ")
        assert f"public.drafts: {reason}" in found.scope.left_out
