"""Each caller of a role changes or deletes each row of a table.

A policy such as `USING (true)` for UPDATE, DELETE or ALL gives each row to each caller. Small worlds decide:
the policies are evaluated for several callers, on rows whose values differ in each column that the policies
name. UPDATE and DELETE need a policy that shows the row, too. For INSERT, the finding is an info: rows of a
form may come from anyone.

A policy such as `auth.role() = 'authenticated'` admits the callers of a role whose claim `role` names that
role. On Supabase these are all of its callers, so they count as each caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.lint.callers import compare_with_caller
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding, Level
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule

_PARTS: Final[Mapping[Part, str]] = {"insert": "INSERT", "update": "UPDATE", "delete": "DELETE"}
_VERBS: Final = {"INSERT": "inserts", "UPDATE": "changes", "DELETE": "deletes"}


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (true);
        CREATE POLICY edit ON docs FOR DELETE TO authenticated USING ((SELECT auth.user_id()) IS NOT NULL);
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (true);
        CREATE POLICY edit ON docs FOR DELETE TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        name, role = reach.relation.name, reach.role
        for part, command in _PARTS.items():
            if role not in database.roles_with_privileges(name, command):
                continue
            found = reach.once(("everyone-writes", part), partial(_open, part=part))
            whose = ""
            if found is None and reach.named_by_claim(role):
                found = reach.once(("everyone-writes", part, role), partial(_open, part=part, claim=role))
                whose = ", which their claim role names,"
            if found is None:
                continue
            case, policy = found[0], reach.policy(found[1])
            level: Level = "info" if command == "INSERT" else "error"
            yield Finding(
                object=name,
                kind="table",
                policy=policy,
                role=role,
                command=command,
                level="info" if database.is_intended(reach.relation, command, role) else level,
                text=f"Each caller of role {role}{whose} {_VERBS[command]} each row of {name}.",
                evidence=[reach.evidence(case, f"{{who}} {_VERBS[command]} {{row}}")],
                remedy=compare_with_caller(database, name, policy, command),
            )


def _open(reach: Reach, part: Part, claim: str | None = None) -> tuple[Case, str | None] | None:
    """Return a case, and the policy that admits all rows by itself, if each caller writes each row.

    With *claim*, the callers are those whose claim ``role`` is that.
    """
    # A statement without WHERE and RETURNING needs no SELECT.
    needed: list[Part] = {
        "insert": ["insert"],
        "update": ["update", "update_check"],
        "delete": ["delete"],
    }[part]  # type: ignore[assignment] # a literal of parts
    callers = (reach.identified or reach.actors) if claim is None else reach.named_by_claim(claim)
    cases = list(reach.cases(callers))
    if not cases or not all(reach.is_true(one, case) for case in cases for one in needed):
        return None
    side = "check" if part == "insert" else "using"
    policies = (
        policy.name
        for policy in reach.relation.policies
        if policy.permissive
        and policy.command in ("ALL", _PARTS[part])
        and (key := (policy.name, side if (policy.name, side) in reach.answers else "using")) in reach.answers
        and all(reach.is_true(key, case) for case in cases)
    )
    return cases[-1], next(policies, None)
