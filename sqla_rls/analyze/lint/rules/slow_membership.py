"""A policy looks up a membership in a way that no index of the table can use.

`org_id IN (SELECT …)` and `EXISTS (…)` are conditions on each row. `org_id = ANY (ARRAY(SELECT …))`
reads the memberships of the caller once, and an index on `org_id` finds the rows. The rule proposes
that form only if small worlds show that it admits the same rows.
"""

# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import slow

_TABLES = """
        CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        CREATE INDEX docs_org_id ON docs (org_id);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON members, docs TO authenticated;
"""


@rule(
    group="speed",
    level="warning",
    failing=f"""
{_TABLES}
        CREATE POLICY team ON docs FOR SELECT TO authenticated
          USING (org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())));
    """,
    clean=f"""
{_TABLES}
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (
          org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))));
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database, "slow_membership", "Policy {policy} looks for a membership of each row of {object}."
    )
