"""Functions that look at a part of a text hide no opening of another column."""

from __future__ import annotations

import pytest

from tests.support.in_place import Databases, decided, run

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

ME = "(SELECT auth.user_id())"
TABLES = """
CREATE TABLE notes (id int PRIMARY KEY, team int NOT NULL, owner text NOT NULL, email text NOT NULL,
                    state text NOT NULL, kind text NOT NULL, code text NOT NULL);
CREATE TABLE teams (team int, user_id text, role text NOT NULL, PRIMARY KEY (team, user_id));
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON notes, teams TO reader;
"""
IN_TEAM = f"EXISTS (SELECT FROM teams AS t WHERE t.team = notes.team AND t.user_id = {ME} AND t.role IN (%s))"
#: Policies; one name more in the list opens.
POLICIES = {
    "a domain": "state IN (%s) AND split_part(email, '@', 2) = 'x.com'",
    "a domain of two kinds": (
        f"owner = {ME} AND split_part(email, '@', 2) = 'x.com' AND kind IN ('a', 'b') AND state IN (%s)"
    ),
    "a folder": f"state IN (%s) AND kind = 'a' AND split_part(code, '/', 2) = {ME}",
    "a place": "state IN (%s) AND kind = 'a' AND substr(code, 4, 2) = 'de'",
    "capitals": f"lower(email) = lower({ME}) AND kind = 'a' AND state IN (%s)",
    "a prefix": f"owner = {ME} AND starts_with(code, 'de-') AND state IN (%s)",
    "no spaces": f"owner = {ME} AND kind = 'a' AND code = 'x' AND strpos(email, ' ') = 0 AND state IN (%s)",
    "members": f"{IN_TEAM} AND lower(code) <> 'secret'",
    "members, and a kind": f"{IN_TEAM} AND kind IN ('a', 'b') AND left(code, 2) = 'de'",
    "members, and a part of the caller": f"{IN_TEAM} AND kind <> 'a' AND split_part({ME}, '|', 2) = ''",
}


def verdicts(databases: Databases, before: str, after: str) -> set[str]:
    """Return the verdicts of *notes* for the reader, with one policy before and after."""
    policy = f"{TABLES} CREATE POLICY n ON notes TO reader USING (%s)"
    with databases.changed(policy % after) as sides:
        run(sides[0], policy % before)
        found = decided(*sides, worlds=60)
    return {one.verdict for one in found.changes if (one.object, one.role) == ("public.notes", "reader")}


@pytest.mark.parametrize("name", POLICIES)
def test_one_name_more_opens(databases: Databases, name: str) -> None:
    policy = POLICIES[name]

    assert verdicts(databases, policy % "'first'", policy % "'first', 'second'") == {"opens"}


@pytest.mark.parametrize(
    "part", ["left(email, 5)", "lower(email)", "split_part(email, '0', 1)", "substr(email, 1, 5)"]
)
def test_a_part_in_place_of_the_text_opens(databases: Databases, part: str) -> None:
    others = f"kind = 'a' AND state = 'b' AND code = 'c' AND owner = {ME}"

    assert verdicts(databases, f"email = 'alice' AND {others}", f"{part} = 'alice' AND {others}") == {"opens"}
