"""Callers can't use an index, since its operator isn't leakproof.

Under row security, Postgres evaluates the policies before any condition that might reveal a hidden
row, for example by an error. So an index can serve a condition of a query only if its operator is
leakproof. Those of text, numbers, uuid and timestamptz are. Those of enums, arrays, jsonb, numeric
and full-text search aren't.

The rule runs a query by each such index as a caller and as superuser, and counts the rows that both read.
It is silent where the policies find few rows first.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import compared, lines, survey

_TABLE = """
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE INDEX docs_state ON docs (state);
        CREATE POLICY written ON docs FOR SELECT TO authenticated
          USING (body IS NOT NULL OR owner = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
"""


@rule(
    group="speed",
    level="warning",
    failing=f"""
        CREATE TYPE state AS ENUM ('open', 'done');
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text, state state NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
{_TABLE}
    """,
    clean=f"""
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text, state text NOT NULL);
        CREATE INDEX docs_owner ON docs (owner);
{_TABLE}
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for one in survey(database).unused:
        yield Finding(
            object=one.relation,
            kind="table",
            column=one.column or None,
            role=one.role,
            command="SELECT",
            text=f"Callers can't use index {one.index} of {one.relation}: its operator isn't leakproof.",
            evidence=[
                Evidence(
                    kind="plan",
                    text=(
                        f"{one.statement}: {compared(one.plan, one.fast)} without row security. As a caller: "
                        f"{lines(one.plan)}"
                    ),
                    data={"plan": one.plan.as_dict(), "fast": one.fast.as_dict()},
                )
            ],
            remedy=Remedy(
                text=(
                    "Use a type whose operators are leakproof, such as text; or search in a SECURITY DEFINER "
                    "function that filters by the caller, too"
                )
            ),
        )
