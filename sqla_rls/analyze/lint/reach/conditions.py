"""The conditions of row security, and of each policy, as SQL."""

from __future__ import annotations

from collections.abc import Callable

from sqla_rls.analyze.in_place.conditions import PARTS, Denied, Part
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.worlds.objects import Relation


def conditions_of(
    database: Database,
    relation: Relation,
    role: str,
    of_part: Callable[[Part], str],
    spelled: Callable[[str, str], str],
) -> dict[Part | tuple[str, str], str]:
    """Return the conditions of each part, and of each policy, as SQL."""
    found: dict[Part | tuple[str, str], str] = {}
    for part in PARTS:
        try:
            found[part] = of_part(part)
        except Denied:
            found[part] = "false"
    for policy in database.policies_of(relation, role):
        for side, sql in (("using", policy.using), ("check", policy.check)):
            if sql is not None:
                try:
                    found[policy.name, side] = spelled(relation.name, sql)
                except Denied:
                    found[policy.name, side] = "false"
    return found
