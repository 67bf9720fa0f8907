"""Columns of several tables have one name; policies compare one of them with the caller or a constant."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.verdict import Budget
from tests.support.worlds import Sides, verdicts

pytestmark = pytest.mark.exhaustive

ME = "(SELECT auth.user_id())::uuid"
TABLES = """
DROP VIEW seen; DROP TABLE docs;
CREATE TABLE profiles (id uuid PRIMARY KEY, is_admin boolean NOT NULL);
CREATE TABLE orgs (id uuid PRIMARY KEY, plan text NOT NULL, suspended boolean NOT NULL,
  owner_id uuid NOT NULL);
CREATE TABLE projects (id uuid PRIMARY KEY, org_id uuid NOT NULL{orgs}, archived boolean NOT NULL,
  lead_id uuid NOT NULL);
CREATE TABLE seats (id uuid PRIMARY KEY, project_id uuid NOT NULL{projects}, user_id uuid NOT NULL{profiles},
  role text NOT NULL);
CREATE TABLE docs (id uuid PRIMARY KEY, project_id uuid NOT NULL{projects}, owner uuid NOT NULL{profiles},
  deleted_at timestamptz);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs, profiles, orgs, projects, seats TO reader;
CREATE POLICY p ON docs TO reader USING ({policy});
"""
KEYS = {name: f" REFERENCES {name}" for name in ("orgs", "projects", "profiles")}
POLICY = f"""
deleted_at IS NULL AND (owner = {ME}
  OR EXISTS (SELECT FROM profiles WHERE profiles.id = {ME} AND profiles.is_admin)
  OR EXISTS (SELECT FROM seats s WHERE s.project_id = docs.project_id AND s.user_id = {ME}
    AND s.role = 'editor')
  OR EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id WHERE p.id = docs.project_id
    AND NOT p.archived AND o.plan = 'team' AND (p.lead_id = {ME} OR o.owner_id = {ME} AND NOT o.suspended)))
"""
CHANGES = {
    "the flag of an admin": (" AND profiles.is_admin", "", "opens"),
    "an owner in place of the caller": (f"profiles.id = {ME}", "profiles.id = docs.owner", "both"),
    "the role of a seat": ("\n    AND s.role = 'editor'", "", "opens"),
    "a seat in another project": ("s.project_id = docs.project_id AND ", "", "opens"),
    "archived projects": ("NOT p.archived AND ", "", "opens"),
    "another plan": ("o.plan = 'team' AND ", "", "opens"),
    "a suspended org": (" AND NOT o.suspended", "", "opens"),
    "another org": ("o.id = p.org_id", "o.id = p.id", "both"),
}


@pytest.mark.parametrize(
    "keys", [dict.fromkeys(KEYS, ""), KEYS], ids=["without foreign keys", "with foreign keys"]
)
@pytest.mark.parametrize("name", CHANGES)
def test_a_profile_with_the_callers_id_hides_no_change(sides: Sides, keys: dict[str, str], name: str) -> None:
    old, new, verdict = CHANGES[name]
    assert POLICY.count(old) == 1
    setup = TABLES.format(**keys, policy=POLICY)
    change = f"ALTER POLICY p ON docs USING ({POLICY.replace(old, new)});"
    with sides.compared(change, setup=setup, budget=Budget()) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == verdict


NUMBERED = """
DROP VIEW seen; DROP TABLE docs;
CREATE TABLE orgs (id int PRIMARY KEY, plan text NOT NULL);
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL, archived boolean NOT NULL);
CREATE TABLE docs (id int PRIMARY KEY, project_id int NOT NULL);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY; GRANT SELECT ON docs, orgs, projects, members TO reader;
CREATE POLICY p ON docs TO reader USING (EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id
  WHERE p.id = docs.project_id AND (o.id = 1 OR o.plan = 'team' AND NOT p.archived
    AND EXISTS (SELECT FROM members m WHERE m.org_id = o.id AND m.user_id = (SELECT auth.user_id())
      AND m.role = 'editor'))));
"""


@pytest.mark.parametrize("old", [" AND m.role = 'editor'", "o.plan = 'team' AND ", "m.org_id = o.id AND "])
def test_a_constant_for_the_id_of_one_table_hides_no_change(sides: Sides, old: str) -> None:
    policy = " ".join(NUMBERED.partition("USING")[2].split()).replace(old, "")
    assert policy != " ".join(NUMBERED.partition("USING")[2].split())
    with sides.compared(f"ALTER POLICY p ON docs USING {policy}", setup=NUMBERED, budget=Budget()) as (
        found,
        *_,
    ):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == "opens"
