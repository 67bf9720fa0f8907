"""Worlds in which a statement does more on one side, and the smallest of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sqla_rls.analyze.verdict import Direction
from sqla_rls.analyze.worlds.counterexamples import size_of
from sqla_rls.analyze.worlds.generate import smaller_worlds
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.scratch import Outcome, Trial, Tried
from sqla_rls.analyze.worlds.statements import Statement
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World

#: Tries statements on both sides.
Run: TypeAlias = Callable[[Sequence[Trial], Sequence[Actor]], tuple[list[Tried], list[Tried]]]

#: The worlds between two runs of a counterexample.
_BETWEEN: Final = 4


@dataclass(slots=True)
class Difference:
    """A world in which a statement does more on one side."""

    universe: Universe
    world: World
    actor: Actor
    statement: Statement
    outcomes: tuple[Outcome, Outcome]


def smallest(
    found: Difference, direction: Direction, run: Run, *, is_late: Callable[[], bool] = lambda: False
) -> Difference | None:
    """Leave out rows and claims as long as the difference stays; None: it doesn't come again.

    Args:
        found: a difference.
        direction: the side on which the statement does more.
        run: tries statements on both sides.
        is_late: whether there is time only for trying the difference again.
    """
    current = again(found, found.world, found.actor, direction, run)
    if current is None:
        return None
    for actor in found.universe.pools.actors([found.actor.role]):
        if is_late():
            break
        if size_of(actor) < size_of(current.actor):
            simpler = again(current, current.world, actor, direction, run)
            if simpler is not None:
                current = simpler
                break
    shrunk = True
    while shrunk:
        shrunk = False
        for world in smaller_worlds(found.universe, current.world):
            if is_late():
                break
            simpler = again(current, world, current.actor, direction, run)
            if simpler is not None:
                current, shrunk = simpler, True
                break
    # A result may depend on the moment, or on chance, or on a counter, which goes on in another world.
    between = itertools.islice(smaller_worlds(found.universe, current.world), _BETWEEN)
    for worlds in ([], *([world] for world in between)):
        for world in worlds:
            run([Trial(world, [current.statement])], [current.actor])
        repeated = again(current, current.world, current.actor, direction, run)
        if repeated is None or repeated.outcomes != current.outcomes:
            return None
    return current


def again(found: Difference, world: World, actor: Actor, direction: Direction, run: Run) -> Difference | None:
    """Try the statement in *world* as *actor*; None: without that difference."""
    (before,), (after,) = run([Trial(world, [found.statement])], [actor])
    if before.rejected or after.rejected:
        return None
    old, new = before.outcome(0), after.outcome(0)
    if not is_comparable(world, found.statement, old, new):
        return None
    differs = new.permits_more_than(old) if direction == "opens" else old.permits_more_than(new)
    return replace(found, world=world, actor=actor, outcomes=(old, new)) if differs else None


def is_comparable(world: World, statement: Statement, old: Outcome, new: Outcome) -> bool:
    """Return whether the outcomes are about the row in question.

    They aren't if one of several rows undid the statement.
    """
    return world.is_alone or not statement.reaches_all or not (old.is_rejected or new.is_rejected)
