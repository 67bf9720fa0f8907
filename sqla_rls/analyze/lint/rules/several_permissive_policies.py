"""Several permissive policies of one command make each other slow.

Postgres joins the permissive policies of a command with OR. An index finds the rows only if it
finds those of each policy. The rule measures that: it is silent about several policies that are
fast together. It names a policy whose rows another one admits as well, and a policy that is fast
alone, and slow with the others.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.lint.speed import slow, unsolved

_TABLE = """
        CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, label text);
        CREATE INDEX docs_owner ON docs (owner);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
"""


@rule(
    group="speed",
    level="warning",
    failing=f"""
{_TABLE}
        CREATE POLICY drafts ON docs FOR SELECT TO authenticated
          USING (label LIKE (SELECT auth.jwt() ->> 'draft'));
    """,
    clean=f"""
{_TABLE}
        CREATE INDEX docs_label ON docs (label);
        CREATE POLICY drafts ON docs FOR SELECT TO authenticated
          USING (label = (SELECT auth.jwt() ->> 'draft'));
    """,
)
def check(database: Database) -> Iterator[Finding]:
    yield from slow(
        database,
        "several_permissive_policies",
        "Another permissive policy of {object} admits the rows of {policy}, which makes both slow.",
    )
    yield from unsolved(
        database,
        "several_permissive_policies",
        "Policy {policy} of {object} is fast alone, and slow with the other permissive policies.",
        Remedy(
            text=(
                "Create an index for the condition of each policy, or give the other policies roles of their "
                "own: ALTER POLICY … TO …"
            )
        ),
    )
