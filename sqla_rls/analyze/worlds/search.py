"""Finds families to which the sides give other access: many families in one world, by few statements.

A family that is found is tried by itself, in a world of its rows.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.verdict import Budget, Direction
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.differences import Run
from sqla_rls.analyze.worlds.families import Families, Family, together
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.scratch import Outcome, Trial, is_canceled
from sqla_rls.analyze.worlds.statements import Statement, Statements
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World

#: The families that are read, for each world of the budget.
_READ: Final = 10
#: The statements that write and the reads of one row: by families and callers.
_MOST_WRITTEN: Final = 12_000
#: The statements of one family that write, or read it.
_WRITES: Final = 4
#: The families of one world: many policies need time for each pair of rows.
_MOST_IN_ONE: Final = 256
#: The worlds of many families.
_MOST_WORLDS: Final = 16
#: The worlds that are tried again with half of their families, since these reject each other.
_MOST_HALVES: Final = 16
#: The families of which one command and direction are tried by themselves.
_MOST_AGAIN: Final = 2


@dataclass(kw_only=True)
class Search:
    """The search of one object for the callers of one role."""

    universe: Universe
    statements: Statements
    actors: Sequence[Actor]
    budget: Budget
    run: Run
    #: Whether a difference of the command in that direction is known.
    is_known: Callable[[Command, Direction], bool]
    #: Notes that statements were tried in a world, or none were, or why the world was rejected.
    note: Callable[[World, bool, str | None], None]
    families: Families = field(init=False)
    _halves: int = _MOST_HALVES
    _accepted: list[Family] = field(default_factory=list[Family])
    _written: int = 0
    _is_slow: bool = False
    _errors: set[int] = field(default_factory=set[int])

    def __post_init__(self) -> None:
        self.families = Families(self.universe)

    def trials(self) -> Iterator[Trial]:
        """Yield worlds of few families that show a difference, as those of many families say."""
        if not self.families.size:
            return
        chosen = self.families.chosen(max(self.budget.worlds * _READ, 1), _MOST_WORLDS // 2)
        made = [self.families.family(one, number) for number, one in enumerate(chosen)]
        refused = made.count(None)
        worlds = together(made, most=_MOST_WORLDS, most_in_one=_MOST_IN_ONE)
        for some in worlds:
            yield from self._read(some)
        number = min(self.budget.worlds, max(_MOST_WRITTEN // (_WRITES * len(self.actors)), 1))
        read, self._written = list(self._accepted), 0
        first = list(filter(self.families.may_write, read))[: number // 2]
        others = [one for one in read if one not in first]
        step = max(-(-len(others) // max(number - len(first), 1)), 1)
        asked = [*first, *others[::step]]
        for some in together(asked, most=_MOST_WORLDS, most_in_one=number):
            yield from self._write(some)
        self._leave_out(refused + len(read), refused + self._written)

    def _leave_out(self, read: int, written: int) -> None:
        size, name = self.families.size, self.universe.relation.name
        if not self.families.relates or (written == size and not self.families.is_cut):
            return
        sentence = (
            f"{name}: of {size} combinations of a row with the rows that decide about it, SELECT was tried "
            f"on {read}, and the other commands on {written}"
        )
        if self.families.is_cut:
            sentence += "; some of those rows weren't varied"
        if sentence not in self.universe.left_out:
            self.universe.left_out.append(sentence)

    def _read(self, some: Sequence[Family]) -> Iterator[Trial]:
        statements = self.statements.reading()
        outcomes = self._tried(_world(family.rows for family in some), statements, self.actors)
        if outcomes is None:
            if len(some) > 1 and not self._is_slow:
                yield from self._read_apart(some)
            return
        self._accepted += some
        asked = list(itertools.product(range(len(self.actors)), statements))
        for (place, statement), (before, after) in zip(asked, outcomes, strict=True):
            if before.error is not None and after.error is not None:
                self._errors.add(place)
            for direction in _directions(before, after):
                if not self.is_known("SELECT", direction):
                    yield self._shown(some, statement, self.actors[place], direction)

    def _read_apart(self, some: Sequence[Family]) -> Iterator[Trial]:
        """Read those of *some* that no constraint rejects; if these reject each other, in halves."""
        worlds = [World(rows=family.rows) for family in some]
        runs = self.run([Trial(world, ()) for world in worlds], self.actors[:1])
        found = []
        for family, world, before, after in zip(some, worlds, *runs, strict=True):
            self.note(world, False, before.rejected or after.rejected)
            if not (before.rejected or after.rejected):
                found.append(family)
        if found and len(found) < len(some):
            yield from self._read(found)
        elif found and self._halves:
            self._halves -= 1
            middle = len(found) // 2
            for half in (found[:middle], found[middle:]):
                yield from self._read(half)

    def _shown(
        self, some: Sequence[Family], statement: Statement, actor: Actor, direction: Direction
    ) -> Trial:
        """Return a world of few families in which *statement*, which reads all rows, shows the difference."""

        def differs(families: Sequence[Family]) -> bool:
            outcomes = self._tried(_world(one.rows for one in families), [statement], [actor])
            return direction in _directions(*(outcomes or [(Outcome(), Outcome())])[0])

        while len(some) > 1:
            middle = len(some) // 2
            half = next((one for one in (some[:middle], some[middle:]) if differs(one)), None)
            if half is None:
                some = _needed(some, differs)
                break
            some = half
        some = self._renumbered(some, differs)
        one = some[0]
        if len(some) > 1:
            rows = [(each, each.row) for each in some if each.row is not None]
            reads = [(each, read) for each, row in rows for read in self.statements.by_key(row)[:1]]
            world = _world(each.rows for each in some)
            outcomes = self._tried(world, [read for _, read in reads], [actor]) if reads else None
            for (each, _), outcome in zip(reads, outcomes or (), strict=outcomes is not None):
                if direction in _directions(*outcome):
                    one = each
                    break
        return self._alone(one, some)

    def _write(self, some: Sequence[Family]) -> Iterator[Trial]:
        rows = [(family, family.row) for family in some if family.row is not None]
        inserted = [(one, each) for one, row in rows for each in self.statements.inserting(row)]
        yield from self._each(some, inserted, is_new=True)
        self._written += len(some)
        changed = [
            (family, one)
            for family, row in rows
            for one in self.statements.by_key(row)
            if one.command != "SELECT" or self._errors
        ]
        yield from self._each(some, changed)
        moved = [(family, one) for family in some[1:] for one in self._moving(some[0], family)]
        yield from self._each(some, moved, moves=some[0])

    def _moving(self, family: Family, other: Family) -> list[Statement]:
        """Return the UPDATE that gives the row of *family* the references of that of *other*."""
        if family.row is None or other.row is None:
            return []
        names = [name for name in self.families.references if name in other.row.values]
        return self.statements.moving(family.row, {name: other.row.values[name] for name in names})

    def _each(
        self,
        some: Sequence[Family],
        asked: Sequence[tuple[Family, Statement]],
        *,
        is_new: bool = False,
        moves: Family | None = None,
    ) -> Iterator[Trial]:
        """Try statements that are about one family each; *moves* is the family whose row they change."""
        asked = [one for one in asked if not self._all_known(one[1].command)]
        if not asked:
            return

        def world(families: Sequence[Family]) -> World:
            return _world(one.before if is_new else one.rows for one in families)

        outcomes = self._tried(world(some), [statement for _, statement in asked], self.actors)
        shown: Counter[tuple[Command, Direction]] = Counter()
        for (actor, (family, statement)), (before, after) in zip(
            itertools.product(self.actors, asked), outcomes or (), strict=outcomes is not None
        ):
            for direction in _directions(before, after):
                difference = statement.command, direction
                if shown[difference] == _MOST_AGAIN or self.is_known(*difference):
                    continue
                shown[difference] += 1
                fixed = [family] if moves is None else [moves, family]

                def differs(
                    families: Sequence[Family],
                    statement: Statement = statement,
                    actor: Actor = actor,
                    direction: Direction = direction,
                ) -> bool:
                    found = self._tried(world(families), [statement], [actor])
                    return direction in _directions(*(found or [(Outcome(), Outcome())])[0])

                needed = _needed(some, differs, fixed)
                if is_new:
                    assert family.row is not None
                    yield Trial(world(needed), [statement])
                elif moves is not None:
                    yield Trial(World.of(world(needed).rows, moves.row), [statement])
                else:
                    yield self._alone(family, needed)

    def _alone(self, family: Family, beside: Sequence[Family]) -> Trial:
        row = family.row
        keyed = [] if row is None else self.statements.by_key(row)
        rows = _world(one.rows for one in beside).rows
        return Trial(World.of(rows, row), list(dict.fromkeys((*self.statements.on(row), *keyed))))

    def _renumbered(
        self, some: Sequence[Family], differs: Callable[[Sequence[Family]], bool]
    ) -> Sequence[Family]:
        """Return *some* with the first keys, which are the shortest, if they differ in the same way."""
        found = [self.families.family(one.choices, number) for number, one in enumerate(some)]
        families = [one for one in found if one is not None]
        return families if len(families) == len(some) and differs(families) else some

    def _tried(
        self, world: World, statements: Sequence[Statement], actors: Sequence[Actor]
    ) -> list[tuple[Outcome, Outcome]] | None:
        """Return the outcomes of both sides, for each caller all statements; None: rejected."""
        if self._is_slow:
            return None
        try:
            (before,), (after,) = self.run([Trial(world, statements)], actors)
        except DBAPIError as error:
            if not is_canceled(error):
                raise
            self._is_slow = True
            return None
        self.note(world, bool(statements), before.rejected or after.rejected)
        if before.rejected or after.rejected:
            return None
        number = len(actors) * len(statements)
        return [(before.outcome(place), after.outcome(place)) for place in range(number)]

    def _all_known(self, command: Command) -> bool:
        return self.is_known(command, "opens") and self.is_known(command, "closes")


def _world(rows: Iterable[Sequence[Row]]) -> World:
    return World(rows=tuple(dict.fromkeys(itertools.chain.from_iterable(rows))))


def _directions(before: Outcome, after: Outcome) -> Iterator[Direction]:
    if after.permits_more_than(before):
        yield "opens"
    if before.permits_more_than(after):
        yield "closes"


def _needed(
    some: Sequence[Family], differs: Callable[[Sequence[Family]], bool], fixed: Sequence[Family] = ()
) -> list[Family]:
    """Return the *fixed* families, and those of *some* without which there is no difference."""
    others = [one for one in some if one not in fixed]
    if fixed and differs(fixed):
        return list(fixed)
    size = len(others)
    while size > 1:
        size = (size + 1) // 2
        place = 0
        while place < len(others):
            rest = others[:place] + others[place + size :]
            if differs([*fixed, *rest]):
                others = rest
            else:
                place += size
    return [*fixed, *others]
