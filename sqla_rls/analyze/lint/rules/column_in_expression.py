"""A policy compares an expression of a column, and the index has the column alone.

An index on `owner` can't find `owner::text` or `lower(owner)`. Compare the column itself, or create
an index on the expression. The rule proposes a cast of the other side only if each caller still
gets an answer: `sub` may be a text that isn't a uuid.
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
        CREATE TABLE docs (id int PRIMARY KEY, owner uuid NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner::text = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner uuid NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = (SELECT auth.uid()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database,
        "column_in_expression",
        "The policies of {object} compare an expression of a column, which no index has.",
    )
