"""The statements that are tried on a row, and the conditions that each sets for which row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqla_rls.analyze.in_place.conditions import Part
from sqla_rls.analyze.in_place.constraints import Constraints
from sqla_rls.analyze.in_place.evaluate import Unit
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.families import Families
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.statements import Statement, Statements
from sqla_rls.analyze.worlds.universe import MOST_ROWS, Universe
from sqla_rls.analyze.worlds.world import Values, World

#: A part of row security that must be true of the row of the unit with that number.
Need = tuple[int, Part]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A statement in a world, the privileges that it needs, and the conditions of its rows."""

    world: World
    statement: Statement
    needs: tuple[Need, ...]
    #: Parts that must raise no error for the other rows of the table.
    others: tuple[Need, ...] = ()
    selects: frozenset[str] = frozenset()
    inserts: frozenset[str] = frozenset()
    updates: frozenset[str] = frozenset()

    def has_privileges(self, profile: Profile) -> bool:
        """Return whether a role with *profile* may run the statement, whatever its rows are."""
        return (
            profile.usage
            and self.selects <= set(profile.selects)
            and self.inserts <= set(profile.inserts)
            and self.updates <= set(profile.updates)
            and (self.statement.command != "DELETE" or profile.delete)
        )


@dataclass(slots=True)
class Attempts:
    """The attempts in the worlds of one relation, and the units that they are about."""

    universe: Universe
    profiles: tuple[Profile, ...]
    constraints: Constraints
    units: list[Unit] = field(default_factory=list)
    worlds: int = 0
    #: Whether there are no more small worlds.
    is_exhausted: bool = False
    #: Why nothing can be said of a command.
    doubts: dict[Command, str] = field(default_factory=dict)

    @property
    def relation(self) -> Relation:
        return self.universe.relation

    def within(self, budget: Budget) -> list[Attempt]:
        """Return the attempts in worlds of one family, and in small worlds."""
        statements = Statements(universe=self.universe, profiles=self.profiles)
        found = list(self._in(self._worlds_of_families(statements, budget.worlds), budget.worlds))
        tried = self.worlds
        small = ((world, statements.on(world.row)) for world in generate_worlds(self.universe, budget))
        found += self._in(small, tried + budget.worlds)
        self.is_exhausted = self.worlds < tried + budget.worlds
        return found

    def _worlds_of_families(
        self, statements: Statements, most: int
    ) -> Iterator[tuple[World, Sequence[Statement]]]:
        families = Families(self.universe)
        if not families.relates and families.size <= MOST_ROWS:
            return
        chosen = families.chosen(max(most // 2, 1))
        if len(chosen) < families.size or families.is_cut:
            self.universe.left_out.append(
                f"{self.relation.name}: of {families.size} combinations of a row with the rows that decide "
                f"about it, {len(chosen)} were tried"
            )
        for number, choices in enumerate(chosen):
            family = families.family(choices, number)
            if family is not None and family.row is not None:
                yield World.of(family.rows, family.row), statements.on(family.row)
                yield World(rows=family.before), statements.inserting(family.row)

    def _in(self, worlds: Iterable[tuple[World, Sequence[Statement]]], most: int) -> Iterator[Attempt]:
        for world, statements in worlds:
            if self.worlds == most:
                break
            if not self.constraints.allow(world):
                continue
            self.worlds += 1
            rows = world.values_by_relation
            numbers = [
                self._unit(row.values, rows)
                for row in world.all_rows
                if world.row is not None and row.relation == self.relation.name
            ]
            for statement in statements:
                yield from self._attempt(world, rows, numbers, statement)

    def _unit(self, row: Values, rows: Mapping[str, Sequence[Values]]) -> int:
        self.units.append(Unit(row, rows))
        return len(self.units) - 1

    def _attempt(
        self,
        world: World,
        rows: Mapping[str, Sequence[Values]],
        numbers: Sequence[int],
        statement: Statement,
    ) -> Iterator[Attempt]:
        shape = statement.shape
        read = frozenset(shape.reads)
        if world.row is None:
            if statement.command == "INSERT":
                yield from self._insert(world, rows, statement)
            return
        # The row in question is the last.
        *rest, old = numbers
        if statement.command == "SELECT":
            yield Attempt(world, statement, ((old, "select"),), _of(rest, "select"), read)
            return
        reading: tuple[Need, ...] = ((old, "select"),) if read else ()
        others: tuple[Need, ...] = _of(rest, "select") if read else ()
        if statement.command == "DELETE":
            if self.constraints.allow_end(world, world.row.values):
                needs: tuple[Need, ...] = ((old, "delete"), *reading)
                yield Attempt(world, statement, needs, (*_of(rest, "delete"), *others), read)
            return
        assert shape.assigned is not None
        name, value = shape.assigned
        new = {**world.row.values, name: value}
        if not self.constraints.allow_change(world, world.row.values, new):
            return
        if statement.command == "INSERT" and not self.constraints.allow_proposed(world.row.values):
            return
        number = self._unit(new, rows)
        needs = ((old, "update"), (number, "update_check"), *reading)
        if read:
            needs = (*needs, (number, "select"))
        others = (*_of(rest, "update"), *others)
        if statement.command == "INSERT":
            # The row in the way is the one that would be inserted.
            needs, others = (*needs, (old, "insert")), ()
        yield Attempt(world, statement, needs, others, read, frozenset(shape.inserted), frozenset([name]))

    def _insert(
        self, world: World, rows: Mapping[str, Sequence[Values]], statement: Statement
    ) -> Iterator[Attempt]:
        given, read = statement.shape.inserted, frozenset(statement.shape.reads)
        if drawn := self._deciding_defaults(given):
            if not all(any(name in one.inserts for one in self.profiles) for name in drawn):
                self.doubts["INSERT"] = f"the default of column {drawn[0]} decides"
            # Otherwise other statements insert the column's values.
            return
        values = {**self._defaults(given), **given}
        if not self.constraints.allow_new(world, values):
            return
        number = self._unit(values, rows)
        needs: tuple[Need, ...] = ((number, "insert"),)
        yield Attempt(
            world,
            statement,
            (*needs, (number, "select")) if read else needs,
            (),
            read,
            frozenset(given),
        )

    def _deciding_defaults(self, given: Values) -> list[str]:
        deciding = self.universe.deciding[self.relation.name]
        return [
            name
            for name, column in self.relation.columns.items()
            if name not in given
            and name in deciding
            and column.default is not None
            and column.generated is None
        ]

    def _defaults(self, given: Values) -> Values:
        """Return the values of the columns that an INSERT leaves out."""
        values: dict[str, Any] = {}
        for name, column in self.relation.columns.items():
            if name in given or column.generated is not None:
                continue
            values[name] = None
            if column.identity:
                values[name] = self.universe.pools.distinct(column, 1)
            elif column.default is not None and column.needs_value:
                values[name] = self.universe.pools.filler(column)
        return values


def _of(numbers: Sequence[int], part: Part) -> tuple[Need, ...]:
    return tuple((number, part) for number in numbers)
