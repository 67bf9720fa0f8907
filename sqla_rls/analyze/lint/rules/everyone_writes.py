"""Each caller of a role changes or deletes each row of a table.

A policy such as `USING (true)` for UPDATE, DELETE or ALL gives each row to each caller. Small worlds decide:
the policies are evaluated for several callers, on rows whose values differ in each column that the policies
name. UPDATE and DELETE need a policy that shows the row, too. For INSERT, the finding is an info: rows of a
form may come from anyone.

A condition such as `id > 0` or `body IS NOT NULL` is true of as good as each row. The rule leaves out rows
with NULL, an empty text and the like, as [everyone-reads](everyone-reads.md) does. The finding says so. It is
a warning if rows with owners are among them, and an info if the column may be a state, such as `expired_at`.

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
from sqla_rls.analyze.lint.reach import Opening, Reach, Reaches, opening
from sqla_rls.analyze.lint.rule import rule

_PARTS: Final[Mapping[Part, str]] = {"insert": "INSERT", "update": "UPDATE", "delete": "DELETE"}
_DENIED: Final = {
    "INSERT": "doesn't insert",
    "UPDATE": "doesn't change",
    "DELETE": "doesn't delete",
}
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
            rows, policy = found[0], reach.policy(found[1])
            evidence = [reach.evidence(rows.case, f"{{who}} {_VERBS[command]} {{row}}")]
            if rows.denied is not None:
                evidence.append(reach.evidence(rows.denied, f"{{who}} {_DENIED[command]} {{row}}"))
            yield Finding(
                object=name,
                kind="table",
                policy=policy,
                role=role,
                command=command,
                level="info"
                if database.is_intended(reach.relation, command, role)
                else _level(rows, command),
                text=f"Each caller of role {role}{whose} {_VERBS[command]} each row of {name}{rows.text}.",
                evidence=evidence,
                remedy=compare_with_caller(database, name, policy, command),
            )


def _level(rows: Opening, command: str) -> Level:
    if command == "INSERT":
        return "info"
    if rows.is_whole or rows.names_owner:
        return "error"
    # All callers may delete rows that have expired, for example.
    return "info" if rows.may_be_state else "warning"


def _open(reach: Reach, part: Part, claim: str | None = None) -> tuple[Opening, str | None] | None:
    """Return the rows, and the policy that admits them by itself, if each caller writes as good as each row.

    With *claim*, the callers are those whose claim ``role`` is that.
    """
    # A statement without WHERE and RETURNING needs no SELECT.
    needed: list[Part] = {
        "insert": ["insert"],
        "update": ["update", "update_check"],
        "delete": ["delete"],
    }[part]  # type: ignore[assignment] # a literal of parts
    callers = (reach.identified or reach.actors) if claim is None else reach.named_by_claim(claim)
    rows = opening(reach, list(reach.cases(callers)), needed)
    if rows is None:
        return None
    side = "check" if part == "insert" else "using"
    policies = (
        policy.name
        for policy in reach.relation.policies
        if policy.permissive
        and policy.command in ("ALL", _PARTS[part])
        and (key := (policy.name, side if (policy.name, side) in reach.answers else "using")) in reach.answers
        and all(reach.is_true(key, case) for case in rows.cases)
    )
    return rows, next(policies, None)
