"""The small worlds of a relation: combinations of few rows, with a row in question.

The same input gives the same worlds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any, Final

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.samples import (
    compatible,
    fits,
    granting_least,
    is_first_of_its_kind,
    related,
    sampled,
)
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.universe import Universe, is_foreign, reads_itself
from sqla_rls.analyze.worlds.world import Row, Values, World

#: The worlds that each number of rows has, if there are as many.
_LEAST: Final = 16
#: The worlds of a context that is one of a sample.
_ROWS_OF_A_SAMPLE: Final = 5
#: The worlds that have the rows to which a new row refers, and nothing else.
_MOST_PARENTS: Final = 6
#: The number of a key that no other row has.
_A_KEY_APART: Final = 7


def generate_worlds(universe: Universe, budget: Budget) -> Iterator[World]:
    """Yield worlds by their number of rows, each with the row in question or without it.

    Those that differ from an earlier one only in that two values changed places come last.
    """
    postponed: list[World] = []
    for world in _Generator(universe).worlds(budget):
        if is_first_of_its_kind(world):
            yield world
        else:
            postponed.append(world)
    yield from postponed


def smaller_worlds(universe: Universe, world: World) -> Iterator[World]:
    """Yield the worlds with one row less, and the rows that foreign keys need."""
    for place in range(len(world.rows)):
        kept = [row for number, row in enumerate(world.rows) if number != place]
        completed = universe.complete(kept if world.row is None else [*kept, world.row])
        if completed is not None and len(completed) < len(world.all_rows):
            yield World.of(completed, world.row)


@dataclass
class _Generator:
    universe: Universe

    @property
    def relation(self) -> Relation:
        return self.universe.relation

    @property
    def schema(self) -> Schema:
        return self.universe.schema

    def worlds(self, budget: Budget) -> Iterator[World]:
        for context, row in self._pairs(budget):
            completed = self.universe.complete(context if row is None else (*context, row))
            if completed is not None:
                yield World.of(completed, row)

    def _pairs(self, budget: Budget) -> Iterator[tuple[tuple[Row, ...], Row | None]]:
        """Yield the rows of other tables that a world has, fewer first, with each row in question.

        A size that has more worlds than half of those that are left gets a sample.
        """
        own = self.universe.rows.get(self.relation.name, ()) if self.relation.has_rows else ()
        questions: tuple[Row | None, ...] = (None, *own)
        is_read = self.relation.is_view or reads_itself(self.schema, self.relation)
        others = [
            row
            for name, rows in self.universe.rows.items()
            if name != self.relation.name or is_read
            for row in rows
        ]
        yield from (((), row) for row in questions)
        random = Random(0)  # noqa: S311 # the same worlds each time
        full = compatible(others, self.schema)
        few: list[tuple[tuple[Row, ...], Row | None]] = [(parents, None) for parents in self._parents_of(own)]
        few += self._of_one_table(full, questions, random)
        yield from few
        if len(full) > 1:
            yield from ((full, row) for row in questions if row not in full)
        left = budget.worlds - 2 * len(questions) - len(few)
        largest = min(len(others), budget.rows * max(len(self.universe.rows), 1))
        for size in range(1, largest + 1):
            share = left if size == largest else max(left // 2, _LEAST)
            pairs = self._of_size(size, share, others, questions, budget.rows, random)
            yield from pairs
            left -= len(pairs)
            if left <= 0 and size < largest:
                self._leave_out(size + 1, largest)
                break
        if not is_read:
            # An error that one row raises hides the others.
            some = list(itertools.permutations(own, 2))
            yield from (((first,), second) for first, second in random.sample(some, min(len(some), _LEAST)))

    def _parents_of(self, rows: Sequence[Row]) -> Sequence[tuple[Row, ...]]:
        """Return the rows that foreign keys need before one of *rows* can be inserted."""
        found: dict[tuple[Row, ...], None] = {}
        for row in rows:
            completed = self.universe.complete((row,), new=row) or ()
            if len(completed) > 1:
                found[tuple(one for one in completed if one != row)] = None
        return list(found)[:_MOST_PARENTS]

    def _of_one_table(
        self, full: Sequence[Row], questions: Sequence[Row | None], random: Random
    ) -> Iterator[tuple[tuple[Row, ...], Row | None]]:
        """Yield all rows of one table: what one condition alone permits."""
        tables = dict.fromkeys(row.relation for row in full)
        for name in tables if len(tables) > 1 else ():
            context = tuple(row for row in full if row.relation == name)
            rows = dict.fromkeys((None, *self._asked(questions[1:], context, random)))
            yield from ((context, row) for row in rows if row not in context)

    def _of_size(
        self,
        size: int,
        share: int,
        others: Sequence[Row],
        questions: Sequence[Row | None],
        most_rows: int,
        random: Random,
    ) -> list[tuple[tuple[Row, ...], Row | None]]:
        if math.comb(len(others), size) * len(questions) <= share:
            contexts = [one for one in itertools.combinations(others, size) if fits(one, most_rows)]
            return [(one, row) for one in contexts for row in questions if row not in one]
        self._leave_out(size, min(len(others), most_rows * max(len(self.universe.rows), 1)))
        asked = questions[1:] if len(questions) > 1 else questions
        some = sampled(others, size, max(share // min(_ROWS_OF_A_SAMPLE, len(questions)), 1), random)
        found: list[tuple[tuple[Row, ...], Row | None]] = []
        for context in some:
            if fits(context, most_rows):
                rows = self._asked(asked, context, random)
                found += [(context, row) for row in dict.fromkeys((None, *rows)) if row not in context]
        return found

    def _asked(self, rows: Sequence[Row | None], context: Sequence[Row], random: Random) -> list[Row | None]:
        """Return some rows in question for *context*: one that grants least, then related ones."""
        found: list[Row | None] = []
        for wanted in self._least:
            least = next((row for row in rows if row is not None and _has(row, wanted)), None)
            if least is not None:
                found += [self._apart(least, context), *self._connected(least, context)]
        some = related(rows, context, _ROWS_OF_A_SAMPLE, random)
        return list(dict.fromkeys((*found, *some)))[: _ROWS_OF_A_SAMPLE - 1]

    @cached_property
    def _least(self) -> list[Values]:
        """What a row of the relation in question has that grants little by itself; also with NULLs."""
        pools = self.universe.pools
        columns = {
            name: column
            for name, column in self.relation.columns.items()
            if name in self.universe.deciding[self.relation.name] and column.generated is None
        }
        least = {name: granting_least(pools.values(column)) for name, column in columns.items()}
        nulls = {name: None for name, column in columns.items() if pools.may_need_null(column)}
        return [{**least, **nulls}, least] if nulls else [least]

    def _apart(self, row: Row, context: Sequence[Row]) -> Row:
        """Return *row* with keys of its own, that no row of *context* has or refers to."""
        relation = self.schema.relations[row.relation]
        used = {repr(value) for other in context for value in other.values.values()}
        values = dict(row.values)
        for name in (name for key in relation.keys for name in key if not is_foreign(relation, name)):
            column = relation.columns[name]
            if column.category in "NU" and name in values:
                candidates = [
                    self.universe.pools.distinct(column, _A_KEY_APART),
                    *self.universe.pools.values(column),
                ]
                candidates += [_A_KEY_APART] if column.category == "N" else []
                values[name] = next((one for one in candidates if repr(one) not in used), values[name])
        return Row(row.relation, values)

    def _connected(self, row: Row, context: Sequence[Row]) -> list[Row]:
        """Return *row* with the keys by which foreign keys connect it to rows of *context*.

        A row of a tree is connected twice: as the parent of others, with no parent itself, and as a child.
        """
        relation = self.schema.relations[row.relation]
        values, parent, child = dict(row.values), dict[str, Any](), dict[str, Any]()
        for other in context:
            is_own = other.relation == row.relation
            for key in self.schema.relations[other.relation].foreign_keys:
                if key.target == row.relation:
                    found = _matched(key.target_columns, other, key.columns)
                    (parent if is_own else values).update(found)
            for key in relation.foreign_keys:
                if key.target == other.relation:
                    found = _matched(key.columns, other, key.target_columns)
                    (child if is_own else values).update(found)
        tops = dict.fromkeys(name for name in child if not relation.columns[name].not_null)
        return [Row(row.relation, values | tops | parent), Row(row.relation, values | child)]

    def _leave_out(self, size: int, largest: int) -> None:
        text = (
            f"{self.relation.name}: of the worlds with {size} to {largest} rows in the tables that are "
            "read inside, only a sample was tried"
        )
        if not any(one.startswith(f"{self.relation.name}: of the worlds") for one in self.universe.left_out):
            self.universe.left_out.append(text)


def _matched(ours: Sequence[str], other: Row, theirs: Sequence[str]) -> dict[str, Any]:
    """Return the values of columns *ours* that are those of *theirs* in *other*; nothing if one is NULL."""
    wanted = [other.values.get(name) for name in theirs]
    return {} if None in wanted else dict(zip(ours, wanted, strict=True))


def _has(row: Row, values: Values) -> bool:
    return all(row.values.get(name) == value for name, value in values.items())
