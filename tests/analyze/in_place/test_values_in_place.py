"""Values that few rows have: a verdict knows those that a policy names."""

from __future__ import annotations

import pytest

from tests.support.in_place import Databases, decided, run

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

#: The type of a column, a policy before and after, and the verdict.
POLICIES = {
    "no number": ("float8", "v < 10", "v < 10 OR v = 'NaN'", "opens"),
    "no number among numerics": ("numeric", "v > 5", "v > 5 AND v < 'NaN'", "closes"),
    "without an end": ("timestamptz", "v > now()", "v > now() AND v < 'infinity'", "closes"),
    "an end": ("date", "v < current_date", "v < current_date AND isfinite(v)", "closes"),
    "spaces": ("text", "v = 'ab'", "rtrim(v) = 'ab'", "opens"),
    "a place": ("text", "position('adm' IN v) = 1", "position('adm' IN v) > 0", "opens"),
    "a document": ("jsonb", """v @> '{"a": 1}'""", """v @> '{"a": 1, "b": 2}'""", "closes"),
    "a path": ("jsonb", "v #>> '{a,b}' = 'x'", "v #>> '{a,b}' = 'x' OR v #>> '{a,c}' = 'x'", "opens"),
    "a prefix of the caller": (
        "text",
        "v = auth.user_id()",
        "v = auth.user_id() OR v = 'user:' || auth.user_id()",
        "opens",
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_value_that_a_policy_names_decides(databases: Databases, name: str) -> None:
    type_, old, new, expected = POLICIES[name]
    setup = f"""
        CREATE TABLE noted (id int PRIMARY KEY, v {type_}); ALTER TABLE noted ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON noted TO reader; CREATE POLICY n ON noted TO reader USING (%s)
    """
    with databases.changed(setup % new) as sides:
        run(sides[0], setup % old)

        found = decided(*sides)

    assert {one.verdict for one in found.changes if (one.object, one.role) == ("public.noted", "reader")} == {
        expected
    }
