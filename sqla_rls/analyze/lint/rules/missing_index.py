"""No index leads with the column by which a policy finds the rows.

A query under the policy reads the whole table. The rule creates the index on generated rows, and
measures the gain. A composite index that leads with the column serves as well. One that has it in a
later place mostly doesn't.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import slow


@rule(
    group="speed",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, made_at timestamptz);
        CREATE INDEX docs_owner ON docs (owner, made_at);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database, "missing_index", "No index of {object} leads with {column}, which a policy compares."
    )
