"""Changes of conditions inside conditions, whose tables foreign keys link, or none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqla_rls.analyze.worlds.compare import compare_databases
from tests.analyze.cases.case import Case, Verdict
from tests.analyze.cases.scratch import Servers

pytestmark = [pytest.mark.one_postgres, pytest.mark.exhaustive]

ME = "(SELECT auth.user_id())"
TABLES = """
CREATE TABLE orgs (id int PRIMARY KEY, archived boolean NOT NULL, owner text);
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL{orgs}, source_id int, status text NOT NULL);
CREATE TABLE members (org_id int NOT NULL{orgs}, project_id int, user_id text NOT NULL, role text NOT NULL,
  deleted_at timestamptz, PRIMARY KEY (org_id, user_id));
CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL{projects}, org_id int, author text);
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON orgs, projects, members TO authenticated;
GRANT SELECT ON tasks TO authenticated;
CREATE POLICY nested ON tasks TO authenticated USING ({nested});
"""
KEYS = {"orgs": " REFERENCES orgs", "projects": " REFERENCES projects"}
NO_KEYS = {"orgs": "", "projects": ""}
NESTED = f"""
EXISTS (SELECT FROM projects p WHERE p.id = tasks.project_id
  AND EXISTS (SELECT FROM orgs o WHERE o.id = p.org_id AND NOT o.archived
    AND EXISTS (SELECT FROM members m WHERE m.org_id = o.id AND m.user_id = {ME} AND m.role = 'admin')))
"""
#: A part of the condition, that in its place, and the verdict.
CHANGES: dict[str, tuple[str, str, Verdict]] = {
    "the role": ("'admin'", "'owner'", "both"),
    "a role more": ("m.role = 'admin'", "m.role IN ('admin', 'owner')", "opens"),
    "a flag without NOT": ("NOT o.archived", "o.archived", "both"),
    "no flag": ("AND NOT o.archived", "", "opens"),
    "a status more": ("tasks.project_id\n", "tasks.project_id AND p.status = 'open'\n", "closes"),
    "deleted members": ("m.role = 'admin'", "m.role = 'admin' AND m.deleted_at IS NULL", "closes"),
    "another column of the table inside": ("m.org_id = o.id", "m.project_id = o.id", "both"),
    "another column of the table around": ("o.id = p.org_id", "o.id = p.source_id", "both"),
    "the key of the table around": ("o.id = p.org_id", "o.id = p.id", "both"),
    "the row in question": ("m.org_id = o.id", "m.org_id = tasks.org_id", "both"),
    "a table between them": ("m.org_id = o.id", "m.org_id = p.id", "both"),
    "a link is missing": ("o.id = p.org_id AND", "", "opens"),
    "another person": (f"m.user_id = {ME}", "m.user_id = o.owner", "both"),
    "OR": ("m.role = 'admin'", "m.role = 'admin' OR o.owner = " + ME, "opens"),
    "NOT EXISTS": ("NOT o.archived\n    AND EXISTS", "NOT o.archived\n    AND NOT EXISTS", "both"),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers.start() as found:
        yield found


@pytest.mark.parametrize("keys", [NO_KEYS, KEYS], ids=["without foreign keys", "with foreign keys"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_inside_is_found(servers: Servers, keys: dict[str, str], name: str) -> None:
    old, new, verdict = CHANGES[name]
    assert NESTED.count(old) == 1
    case = Case(
        name=name,
        before=TABLES.format(**keys, nested=NESTED),
        after=f"ALTER POLICY nested ON tasks USING ({NESTED.replace(old, new)})",
        rows={},
    )

    with servers.sides(case) as (before, after):
        found = compare_databases(before, after)

    assert [(one.object, one.command, one.verdict) for one in found.changes] == [
        ("public.tasks", "SELECT", verdict)
    ]
