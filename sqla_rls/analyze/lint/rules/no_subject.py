"""A caller without a subject reaches rows that callers with one don't.

In `auth.user_id() IS NULL OR owner_id = auth.user_id()`, the first part is true for each request without a
token, or with a token that lacks the claim. A comparison by IS NOT DISTINCT FROM, or a default such as
`coalesce(claim, 'admin')`, opens rows in the same way. NULL must deny: compare with `=` only.

Small worlds decide: the finding comes with a row that a caller without a subject reaches, and callers with a
subject don't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.lint.callers import compare_with_caller
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.reach import Case, Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.pools import SUBJECTS, Actor

_PARTS: Final[Mapping[Part, str]] = {
    "select": "SELECT",
    "insert": "INSERT",
    "update": "UPDATE",
    "delete": "DELETE",
}
_SUBJECTS: Final = frozenset(one for pair in SUBJECTS.values() for one in pair)
_VERBS: Final = {"SELECT": "reads", "INSERT": "inserts", "UPDATE": "changes", "DELETE": "deletes"}


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated
          USING ((SELECT auth.user_id()) IS NULL OR owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for reach in Reaches.of(database).all():
        for part, command in _PARTS.items():
            if reach.role not in database.roles_with_privileges(reach.relation.name, command):
                continue
            found = reach.once(("no-subject", part), partial(_opened, part=part))
            if found is None:
                continue
            case, policy = found[0], reach.policy(found[1])
            name = reach.relation.name
            yield Finding(
                object=name,
                kind="table",
                policy=policy,
                role=reach.role,
                command=command,
                text=(
                    f"A caller of role {reach.role} without a subject {_VERBS[command]} rows of {name} that "
                    "a caller with a subject doesn't reach."
                ),
                evidence=[reach.evidence(case, f"{{who}} {_VERBS[command]} {{row}}")],
                remedy=compare_with_caller(database, name, policy, command),
            )


def _opened(reach: Reach, part: Part) -> tuple[Case, str | None] | None:
    """Return a case that a caller without a subject reaches, and the policy that admits it.

    A caller with a subject, and nothing else, doesn't reach it; or no caller with a setting does.
    """
    worlds = reach.context_free()
    identified = list(reach.cases(reach.identified))
    if not identified:
        return None
    reached = {one.place[1] for one in identified if reach.is_true(part, one)}
    denied = {
        one.place[1]
        for one in identified
        # An error is no answer.
        if _is_plain(one.actor) and reach.answers[part][one.place[0]][one.place[1]] is False
    }
    for case in reach.cases(reach.unidentified):
        world = case.place[1]
        # A setting is empty after a transaction: no row means to be of an empty name.
        if "" in case.row.values.values() and all(any(one.actor.settings.values()) for one in identified):
            continue
        if world in worlds and (world in denied or world not in reached) and reach.is_true(part, case):
            return case, _admitting(reach, part, case)
    alone = list(reach.cases(reach.unidentified))
    refused = [one for one in identified if not reach.is_true(part, one)]
    # A list of the subjects that are refused admits callers without one to each row.
    if alone and refused and all(reach.is_true(part, one) for one in alone):
        case = next(one for one in alone if one.place[1] == refused[0].place[1])
        return case, _admitting(reach, part, case)
    return None


def _is_plain(actor: Actor) -> bool:
    """Return whether *actor* has a subject that no policy names, and nothing else."""
    subject = (actor.claims or {}).get("sub")
    return actor.claims == {"sub": subject} and not actor.settings and subject in _SUBJECTS


def _admitting(reach: Reach, part: Part, case: Case) -> str | None:
    for policy in reach.relation.policies:
        if policy.permissive and policy.command in ("ALL", _PARTS[part]):
            side = "check" if part == "insert" and policy.check is not None else "using"
            if (policy.name, side) in reach.answers and reach.is_true((policy.name, side), case):
                return policy.name
    return None
