"""Postgres calls a function of a policy for each row.

Postgres evaluates a subquery without columns once for each statement. It evaluates a function
beside a column for each row that no index has found. `(SELECT auth.user_id() = owner)` is a
subquery with a column: it runs for each row, too, and no index can help.

The rule measures each policy on generated rows. It is silent where an index finds the rows. A
function with columns as arguments has no faster form. Write a function that returns the keys of the
caller, and compare the column with them.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import slow, unsolved


@rule(
    group="speed",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING ((SELECT auth.user_id() = owner));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING ((SELECT auth.user_id()) = owner);
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database, "function_per_row", "Policy {policy} calls a function for each row of {object}."
    )
    yield from unsolved(
        database,
        "function_per_row",
        "The policies of {object} call {calls} for each row.",
        Remedy(
            text=(
                "Write a function that returns the keys of the caller's rows, and compare the column: "
                "column = ANY (ARRAY(SELECT my_keys()))"
            )
        ),
    )
