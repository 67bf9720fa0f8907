"""The documents of teams, in examples/teams: a policy joins them with shares by a key of two columns."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.sides import Side, build_sides
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.compare import compare_databases

pytestmark = [pytest.mark.one_postgres, pytest.mark.exhaustive]

WITHOUT_CORRELATION = """
ALTER POLICY readers ON documents USING (
  (SELECT auth.user_id()) = author OR team_id = ANY (ARRAY(SELECT my_teams())) OR is_public
  OR EXISTS (SELECT FROM shares WHERE (SELECT auth.user_id()) = shares.user_id))
"""


def test_a_share_that_shows_another_document_opens_it() -> None:
    before, after = (Side.parse("models", models="teams.models:Base") for _ in range(2))
    with build_sides(before, after) as (first, second):
        second.connection.exec_driver_sql(WITHOUT_CORRELATION)
        second.connection.commit()

        found = compare_databases(first.connection, second.connection, budget=Budget())

    opened = {(one.object, one.role, one.command) for one in found.opens}
    assert ("public.documents", "authenticated", "SELECT") in opened
