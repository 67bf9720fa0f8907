"""A world in which a statement does more on one side, in words and as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqla_rls.analyze.verdict import Counterexample, Direction
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.pools import Actor, names_another
from sqla_rls.analyze.worlds.statements import Statement
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World

VERBS: Final[Mapping[Command, str]] = {
    "SELECT": "read",
    "INSERT": "insert",
    "UPDATE": "update",
    "DELETE": "delete",
}


#: More than the claims and settings of any caller are long.
_NAMES_ANOTHER: Final = 1_000_000


def counterexample(
    universe: Universe,
    world: World,
    actor: Actor,
    statement: Statement,
    outcomes: tuple[str, str],
    direction: Direction,
) -> Counterexample:
    """Return the counterexample of *statement*, with its outcomes before and after."""
    shown = world.row
    can = "can" if direction == "opens" else "can no longer"
    if statement.command == "INSERT" or (shown is None and statement.command != "SELECT"):
        sentence = f"{actor.text} {can} run {statement.text}"
    else:
        about = universe.relation.name if shown is None else row_in_words(universe, shown)
        sentence = f"{actor.text} {can} {VERBS[statement.command]} {about}"
    others = [row_in_words(universe, row) for row in world.rows]
    sentence += f", with {', '.join(others)}" if others else ""
    return Counterexample(
        claims=actor.claims,
        settings=actor.settings,
        rows=world.values_by_relation,
        statement=statement.text,
        before=outcomes[0],
        after=outcomes[1],
        text=sentence,
    )


def row_in_words(universe: Universe, row: Row) -> str:
    """Return the row with its key and the columns that decide."""
    relation = universe.schema.relations[row.relation]
    key = relation.keys[0] if relation.keys else ()
    names = [
        name
        for name in row.values
        if name in key or name in universe.deciding.get(row.relation, ()) or not key
    ]
    inner = ", ".join(f"{name}={_value(row.values[name])}" for name in names)
    return f"{row.relation}({inner})"


def _value(value: Any) -> str:
    return "NULL" if value is None else str(value)


def size_of(actor: Actor) -> int:
    """Return a number that is less for callers with fewer claims and settings.

    It is greater for each caller whose claims name another role than the caller has.
    """
    size = len(repr((actor.claims or {}, actor.settings))) + (actor.claims is not None)
    return size + _NAMES_ANOTHER * names_another(actor)
