"""Functions that say IMMUTABLE: in a policy, a plan keeps their result; in a column, nothing does."""

from __future__ import annotations

import pytest

from tests.analyze.lint.examples import OWN, Examples, shown

NOTES = """
CREATE FUNCTION plain(value text) RETURNS text LANGUAGE sql STABLE AS 'SELECT lower(value)';
CREATE FUNCTION wrapped(value text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT public.plain(value)';
CREATE TABLE notes (id int PRIMARY KEY, owner_id text NOT NULL, body text, search text {column});
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON notes TO authenticated;
CREATE POLICY own ON notes FOR SELECT TO authenticated USING ({using});
"""


@pytest.mark.exhaustive
def test_a_function_of_a_generated_column_is_no_function_of_a_policy(examples: Examples) -> None:
    sql = NOTES.format(column="GENERATED ALWAYS AS (wrapped(body)) STORED", using=OWN)
    assert shown(examples.look(sql, select=["frozen-caller"])) == []


@pytest.mark.exhaustive
def test_a_function_inside_another_function_of_a_policy_is_found(examples: Examples) -> None:
    mine = (
        "CREATE FUNCTION mine(x text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT public.wrapped(x) = x';"
    )
    using = f"{OWN} AND mine(body)"
    found = examples.look(
        NOTES.replace("CREATE TABLE", f"{mine} CREATE TABLE").format(column="", using=using),
        select=["frozen-caller"],
    )
    assert shown(found) == ["error frozen-caller public.wrapped(text)"]
