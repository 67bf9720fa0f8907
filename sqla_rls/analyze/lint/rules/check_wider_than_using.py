"""WITH CHECK of a policy admits rows that its USING rejects.

A policy for ALL, or for UPDATE, has USING for the rows that exist, and WITH CHECK for new ones. If WITH
CHECK is wider, a caller writes rows that belong to someone else: a forged message in the name of another
user, for example. If that is meant, separate policies for INSERT and UPDATE say so.

Small worlds decide: the finding comes with a row that WITH CHECK admits and USING rejects.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Remedy
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK ((SELECT auth.user_id()) IS NOT NULL);
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs TO authenticated
          USING (owner_id = (SELECT auth.user_id())) WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        if role not in database.roles_with_privileges(name, "INSERT", "UPDATE"):
            continue
        for first, case in reach.once("check-wider-than-using", _wider):
            policy = reach.policy(first) or first
            yield Finding(
                object=name,
                kind="table",
                policy=policy,
                role=role,
                text=f"WITH CHECK of policy {policy} on {name} admits rows that its USING rejects.",
                evidence=[reach.evidence(case, "{who} writes {row}, which USING rejects")],
                remedy=Remedy(
                    sql=f"ALTER POLICY {database.quoted(policy)} ON {name} WITH CHECK (…);",
                    python="leave out with_check=: then using= holds for new rows, too",
                    text="Write the condition of USING.",
                ),
            )


def _wider(reach: Reach) -> list[tuple[str, Case]]:
    """Return the policies, each with a row that its WITH CHECK admits and its USING rejects."""
    found: list[tuple[str, Case]] = []
    for policy in reach.relation.policies:
        using, check_ = (policy.name, "using"), (policy.name, "check")
        if not policy.permissive or using not in reach.answers or check_ not in reach.answers:
            continue
        parts = ["insert", "update_check"] if policy.command == "ALL" else ["update_check"]
        for case in reach.cases(reach.identified):
            is_written = any(reach.is_true(part, case) for part in parts)  # type: ignore[arg-type]
            if is_written and reach.is_true(check_, case) and not reach.is_true(using, case):
                found.append((policy.name, case))
                break
    return found
