"""The small worlds of a relation: values that its policies can tell apart, rows of them, and callers.

The same input gives the same worlds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from random import Random
from typing import Any, Final

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.vocabulary import Vocabulary, read_expression
from sqla_rls.analyze.worlds.pools import SUBJECTS, Pools, Shared
from sqla_rls.analyze.worlds.schema import ForeignKey, Relation, Schema

#: The most rows of one table that worlds are made of.
MOST_ROWS: Final = 24
_CALLER: Final = frozenset(caller for caller, _ in SUBJECTS.values())
#: The worlds that each number of rows has, if there are as many.
_LEAST: Final = 16
#: The worlds of a context that is one of a sample.
_ROWS_OF_A_SAMPLE: Final = 5
#: The worlds that have the rows to which a new row refers, and nothing else.
_MOST_PARENTS: Final = 6
#: The number of a key that no other row has.
_A_KEY_APART: Final = 7
#: The parts of a definition whose columns decide about access.
_DECIDING: Final = ("policy", "query", "body", "trigger")

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the relation of that name."""

    relation: str
    values: Values
    #: Rows with the same values, or with the same but for a key that decides nothing.
    copy: int = 0
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Worlds are made of few rows, which are asked for it many times.
        object.__setattr__(self, "_hash", hash((self.relation, repr(self.values), self.copy)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A few rows, in an order in which they can be inserted."""

    #: The rows of the tables that are read inside, with those that foreign keys need.
    rows: tuple[Row, ...]
    #: The row in question, the last; None for a view, and where it is inserted.
    row: Row | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the row in question is the only one in its table."""
        return self.row is None or all(row.relation != self.row.relation for row in self.rows)

    @property
    def all_rows(self) -> tuple[Row, ...]:
        return self.rows if self.row is None else (*self.rows, self.row)


@dataclass(kw_only=True)
class Universe:
    """The rows and values that the worlds of *relation* are made of."""

    relation: Relation
    schema: Schema
    pools: Pools
    #: The columns that decide about access, of each relation that is read.
    deciding: Mapping[str, frozenset[str]]
    rows: Mapping[str, tuple[Row, ...]]
    #: What the budget leaves out.
    left_out: list[str] = field(default_factory=list)
    #: The numbers of the parents that are made for rows, by their keys.
    _parents: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    @classmethod
    def of(
        cls,
        relation: Relation,
        schema: Schema,
        shared: Shared,
        accepts: Callable[[str, str], bool],
        *,
        varies_checked: bool = False,
    ) -> Universe:
        """Make the universe of *relation*.

        Args:
            relation: the table or view in question.
            schema: what both sides refer to.
            shared: what both sides mention.
            accepts: asks Postgres whether a text is a value of a type.
            varies_checked: vary the columns of constraints, too.
        """
        read = schema.reads(relation.name)
        parts = (*_DECIDING, "constraint") if varies_checked else _DECIDING
        deciding = {name: _deciding(schema, read, name, parts) for name in sorted(read)}
        pools = Pools.of(relation, schema, shared, deciding, accepts)
        self = cls(relation=relation, schema=schema, pools=pools, deciding=deciding, rows={})
        self.rows = {
            name: self._rows(schema.relations[name]) for name in deciding if schema.relations[name].has_rows
        }
        return self

    @classmethod
    def nothing(cls, relation: Relation, schema: Schema) -> Universe:
        """Return the universe of a relation in which no row can be made."""
        pools = Pools(vocabulary=Vocabulary(), kinds=(), accepts=lambda _type, _text: False)
        return cls(relation=relation, schema=schema, pools=pools, deciding={}, rows={})

    def worlds(self, budget: Budget) -> Iterator[World]:
        """Yield worlds by their number of rows, each with the row in question or without it.

        Those that differ from an earlier one only in that two values changed places come last.
        """
        postponed: list[World] = []
        for world in self._worlds(budget):
            if _is_first_of_its_kind(world):
                yield world
            else:
                postponed.append(world)
        yield from postponed

    def _worlds(self, budget: Budget) -> Iterator[World]:
        for context, row in self._pairs(budget):
            completed = self.complete(context if row is None else (*context, row))
            if completed is not None:
                yield World(rows=tuple(each for each in completed if each != row), row=row)

    def smaller(self, world: World) -> Iterator[World]:
        """Yield the worlds with one row less, and the rows that foreign keys need."""
        for place in range(len(world.rows)):
            kept = [row for number, row in enumerate(world.rows) if number != place]
            completed = self.complete(kept if world.row is None else [*kept, world.row])
            if completed is not None and len(completed) < len(world.all_rows):
                yield replace(world, rows=tuple(row for row in completed if row != world.row))

    def _pairs(self, budget: Budget) -> Iterator[tuple[tuple[Row, ...], Row | None]]:
        """The rows of other tables that a world has, fewer first, with each row in question.

        A size that has more worlds than half of those that are left gets a sample.
        """
        own = self.rows.get(self.relation.name, ()) if self.relation.has_rows else ()
        questions: tuple[Row | None, ...] = (None, *own)
        reads_itself = self.relation.is_view or _reads_itself(self.schema, self.relation)
        universe = [
            row
            for name, rows in self.rows.items()
            if name != self.relation.name or reads_itself
            for row in rows
        ]
        yield from (((), row) for row in questions)
        random = Random(0)  # noqa: S311 # the same worlds each time
        full = _compatible(universe, self.schema)
        few: list[tuple[tuple[Row, ...], Row | None]] = [(parents, None) for parents in self._parents_of(own)]
        few += self._of_one_table(full, questions, random)
        yield from few
        if len(full) > 1:
            yield from ((full, row) for row in questions if row not in full)
        left = budget.worlds - 2 * len(questions) - len(few)
        largest = min(len(universe), budget.rows * max(len(self.rows), 1))
        for size in range(1, largest + 1):
            share = left if size == largest else max(left // 2, _LEAST)
            pairs = self._of_size(size, share, universe, questions, budget.rows, random)
            yield from pairs
            left -= len(pairs)
            if left <= 0 and size < largest:
                self._leave_out(size + 1, largest)
                break
        if not reads_itself:
            # An error that one row raises hides the others.
            some = list(itertools.permutations(own, 2))
            yield from (((first,), second) for first, second in random.sample(some, min(len(some), _LEAST)))

    def _parents_of(self, rows: Sequence[Row]) -> Sequence[tuple[Row, ...]]:
        """The rows that foreign keys need before one of *rows* can be inserted."""
        found: dict[tuple[Row, ...], None] = {}
        for row in rows:
            completed = self.complete((row,)) or ()
            if len(completed) > 1:
                found[tuple(one for one in completed if one != row)] = None
        return list(found)[:_MOST_PARENTS]

    def _of_one_table(
        self, full: Sequence[Row], questions: Sequence[Row | None], random: Random
    ) -> Iterator[tuple[tuple[Row, ...], Row | None]]:
        """All rows of one table: what one condition alone permits."""
        tables = dict.fromkeys(row.relation for row in full)
        for name in tables if len(tables) > 1 else ():
            context = tuple(row for row in full if row.relation == name)
            rows = dict.fromkeys((None, *self._asked(questions[1:], context, random)))
            yield from ((context, row) for row in rows if row not in context)

    def _of_size(
        self,
        size: int,
        share: int,
        universe: Sequence[Row],
        questions: Sequence[Row | None],
        most_rows: int,
        random: Random,
    ) -> list[tuple[tuple[Row, ...], Row | None]]:
        if math.comb(len(universe), size) * len(questions) <= share:
            contexts = [one for one in itertools.combinations(universe, size) if _fits(one, most_rows)]
            return [(one, row) for one in contexts for row in questions if row not in one]
        self._leave_out(size, min(len(universe), most_rows * max(len(self.rows), 1)))
        asked = questions[1:] if len(questions) > 1 else questions
        some = _sampled(universe, size, max(share // min(_ROWS_OF_A_SAMPLE, len(questions)), 1), random)
        found: list[tuple[tuple[Row, ...], Row | None]] = []
        for context in some:
            if _fits(context, most_rows):
                rows = self._asked(asked, context, random)
                found += [(context, row) for row in dict.fromkeys((None, *rows)) if row not in context]
        return found

    def _asked(self, rows: Sequence[Row | None], context: Sequence[Row], random: Random) -> list[Row | None]:
        """Some rows in question for *context*: the one that grants least, then those that are related."""
        least = next((row for row in rows if row is not None and self._grants_least(row)), None)
        found = [] if least is None else [self._apart(least, context), self._connected(least, context)]
        related = _related(rows, context, _ROWS_OF_A_SAMPLE, random)
        return list(dict.fromkeys((*found, *related)))[: _ROWS_OF_A_SAMPLE - 1]

    def _grants_least(self, row: Row) -> bool:
        return all(row.values.get(name) == value for name, value in self._least.items())

    @cached_property
    def _least(self) -> Values:
        """What the row of the relation in question has that grants little by itself."""
        return {
            name: _granting_least(self.pools.values(self.relation, column))
            for name, column in self.relation.columns.items()
            if name in self.deciding[self.relation.name] and column.generated is None
        }

    def _apart(self, row: Row, context: Sequence[Row]) -> Row:
        """Return *row* with keys of its own, that no row of *context* has or refers to."""
        relation = self.schema.relations[row.relation]
        used = {repr(value) for other in context for value in other.values.values()}
        values = dict(row.values)
        for name in (name for key in relation.keys for name in key if not self._is_foreign(relation, name)):
            column = relation.columns[name]
            if column.category in "NU" and name in values:
                candidates = [self.pools.distinct(column, _A_KEY_APART), *self.pools.values(relation, column)]
                candidates += [_A_KEY_APART] if column.category == "N" else []
                values[name] = next((one for one in candidates if repr(one) not in used), values[name])
        return Row(row.relation, values)

    def _connected(self, row: Row, context: Sequence[Row]) -> Row:
        """Return *row* with the keys by which foreign keys connect it to rows of *context*."""
        values = dict(row.values)
        own_keys = self.schema.relations[row.relation].foreign_keys
        for other in context:
            connections = [
                (key.columns, key.target_columns)
                for key in self.schema.relations[other.relation].foreign_keys
                if key.target == row.relation
            ] + [(key.target_columns, key.columns) for key in own_keys if key.target == other.relation]
            for theirs, ours in connections:
                wanted = [other.values.get(name) for name in theirs]
                if None not in wanted:
                    values.update(zip(ours, wanted, strict=True))
        return Row(row.relation, values)

    def _leave_out(self, size: int, largest: int) -> None:
        text = (
            f"{self.relation.name}: of the worlds with {size} to {largest} rows in the tables that are "
            "read inside, only a sample was tried"
        )
        if not any(one.startswith(f"{self.relation.name}: of the worlds") for one in self.left_out):
            self.left_out.append(text)

    def _rows(self, relation: Relation) -> tuple[Row, ...]:
        varied = [
            (name, self.pools.values(relation, column))
            for name, column in relation.columns.items()
            if name in self.deciding[relation.name] and column.generated is None
        ]
        size = math.prod(len(values) for _, values in varied)
        if size <= MOST_ROWS:
            chosen = list(itertools.product(*(values for _, values in varied)))
        else:
            self.left_out.append(f"{relation.name}: {MOST_ROWS} of {size} possible rows were tried")
            is_asked = relation.name == self.relation.name
            chosen = _spread(
                [values for _, values in varied],
                MOST_ROWS,
                grants=not is_asked or _reads_itself(self.schema, relation),
            )
        names = [name for name, _ in varied]
        rows = [
            Row(relation.name, self._filled(relation, dict(zip(names, values, strict=True)), number))
            for number, values in enumerate(chosen, 1)
        ]
        if self.pools.counts_rows and (relation != self.relation or not self.relation.has_rows):
            numbers = itertools.count(1000)
            rows += [
                one
                for row in rows
                for copy in (1, 2)
                for one in self._copied(relation, row, copy, next(numbers))
            ]
        return tuple(dict.fromkeys(rows))

    def _copied(self, relation: Relation, row: Row, copy: int, number: int) -> Iterator[Row]:
        """The row again, with other values where a key needs them."""
        values, deciding = dict(row.values), self.deciding[relation.name]
        for key in relation.keys:
            free = [name for name in key if name not in deciding and not self._is_foreign(relation, name)]
            if not free:
                return
            for name in free:
                values[name] = self.pools.distinct(relation.columns[name], number)
        yield Row(relation.name, values, copy)

    def _filled(self, relation: Relation, given: Values, number: int) -> Values:
        """Give each other column one value; keys that decide nothing are distinct."""
        distinct = {name for key in relation.keys if not given.keys() & set(key) for name in key}
        values: dict[str, Any] = {}
        for name, column in relation.columns.items():
            if column.generated is not None:
                continue
            if name in given:
                values[name] = given[name]
            elif name in distinct and not self._is_foreign(relation, name):
                values[name] = self.pools.distinct(column, number)
            else:
                values[name] = self.pools.filler(relation, column)
        return values

    @staticmethod
    def _is_foreign(relation: Relation, name: str) -> bool:
        return any(name in key.columns for key in relation.foreign_keys)

    def complete(self, rows: Sequence[Row]) -> tuple[Row, ...] | None:
        """Add the rows that the foreign keys of *rows* need, and sort them; None if there is no such row."""
        found = list(dict.fromkeys(rows))
        waiting = list(found)
        while waiting:
            row = waiting.pop()
            relation = self.schema.relations[row.relation]
            for key in relation.foreign_keys:
                wanted = tuple(row.values.get(name) for name in key.columns)
                if any(value is None for value in wanted) or _has(found, key, wanted, self.schema):
                    continue
                parent = self._parent(key, wanted)
                if parent is None or len(found) > 50:
                    return None
                found.append(parent)
                waiting.append(parent)
        return _sorted(found, self.schema)

    def _parent(self, key: ForeignKey, wanted: tuple[Any, ...]) -> Row | None:
        relation = self.schema.relations[key.target]
        for row in self.rows.get(key.target, ()):
            if tuple(row.values.get(name) for name in key.target_columns) == wanted:
                return row
        given = dict(zip(key.target_columns, wanted, strict=True))
        # Two parents differ in their other keys, too.
        known = self._parents.setdefault(key.target, {})
        place = known.setdefault(repr(wanted), len(known))
        values = self._filled(relation, given, MOST_ROWS + place if place else 1)
        return Row(key.target, values) if relation.has_rows else None


def _deciding(schema: Schema, read: frozenset[str], name: str, parts: Sequence[str]) -> frozenset[str]:
    sources = read | {one for each in read for one in schema.calls(each)}
    found = {
        edge.column
        for source in sources
        for edge in schema.edges.get(source, ())
        if edge.reads == name and edge.column is not None and edge.part in parts
    }
    columns = schema.relations[name].columns
    for column in list(found & columns.keys()):
        if (expression := columns[column].generated) is not None:
            found |= read_expression(expression).names & columns.keys()
    return frozenset(found)


def _reads_itself(schema: Schema, relation: Relation) -> bool:
    """Whether other rows of the relation decide about access to a row of it."""
    others = (schema.reads(relation.name) | schema.calls(relation.name)) - {relation.name}
    if any(
        edge.reads == relation.name and edge.part in _DECIDING
        for other in others
        for edge in schema.edges.get(other, ())
    ):
        return True
    own = (relation.schema, relation.relname)
    return any(
        own in read_expression(expression).relations
        for policy in relation.policies
        for expression in (policy.using, policy.check)
        if expression is not None
    )


def _is_first_of_its_kind(world: World) -> bool:
    """Whether 2 comes after 1, as numbers and among the numbers of keys."""
    rows = world.rows if world.row is None else (world.row, *world.rows)
    values = [value for row in rows for value in row.values.values() if type(value) is int]
    return 2 not in values or (1 in values and values.index(1) < values.index(2))


def _compatible(rows: Sequence[Row], schema: Schema) -> tuple[Row, ...]:
    """As many of *rows* as no two have the same key, or refer to different rows of the same key."""
    seen: set[tuple[str, tuple[str, ...], str]] = set()
    referred: dict[tuple[str, tuple[str, ...], str], str] = {}
    found = []
    for row in rows:
        keys = {
            (row.relation, key, repr([row.values.get(name) for name in key]))
            for key in schema.relations[row.relation].keys
        }
        refers = dict(_referred(row, schema))
        if not keys & seen and all(referred.get(key, wanted) == wanted for key, wanted in refers.items()):
            seen |= keys
            referred |= refers
            found.append(row)
    return tuple(found)


def _referred(row: Row, schema: Schema) -> Iterator[tuple[tuple[str, tuple[str, ...], str], str]]:
    """Yield each key of the rows that *row* refers to, with all values that it asks of them."""
    for foreign in schema.relations[row.relation].foreign_keys:
        wanted = {
            name: row.values.get(own)
            for own, name in zip(foreign.columns, foreign.target_columns, strict=True)
        }
        if foreign.target not in schema.relations or None in wanted.values():
            continue
        for key in schema.relations[foreign.target].keys:
            if set(key) <= wanted.keys():
                yield (foreign.target, key, repr([wanted[name] for name in key])), repr(wanted)


def _fits(rows: Sequence[Row], most: int) -> bool:
    names = [row.relation for row in rows]
    return all(names.count(name) <= most for name in set(names))


def _related(
    rows: Sequence[Row | None], context: Sequence[Row], number: int, random: Random
) -> list[Row | None]:
    """Some of *rows*: half of those that have most values in common with *context*, and half of all."""
    shuffled = random.sample(rows, len(rows))
    values = {one for row in context for one in _spelled(row) if one != "None"}

    def shared(row: Row | None) -> int:
        return 0 if row is None else -sum(one in values for one in _spelled(row))

    closest = sorted(shuffled, key=shared)[: (number + 1) // 2]
    return [*closest, *(row for row in shuffled if row not in closest)][:number]


@lru_cache(1000)
def _spelled(row: Row) -> tuple[str, ...]:
    return tuple(map(repr, row.values.values()))


def _is_the_callers(row: Row) -> bool:
    return any(value in _CALLER for value in row.values.values() if isinstance(value, str))


def _sampled(rows: Sequence[Row], size: int, number: int, random: Random) -> list[tuple[Row, ...]]:
    """Some combinations: mostly of different tables, which policies join, and with a row of the caller."""
    callers = [row for row in rows if _is_the_callers(row)]
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.relation, []).append(row)
    found: dict[tuple[Row, ...], None] = {}
    for _ in range(number * 4):
        if len(found) >= number:
            break
        if len(tables) >= size and random.random() < 0.7:
            chosen = [random.choice(tables[name]) for name in random.sample(sorted(tables), size)]
        else:
            chosen = random.sample(list(rows), size)
        if callers and random.random() < 0.7 and not any(map(_is_the_callers, chosen)):
            chosen[0] = random.choice(callers)
        found[tuple(sorted(chosen, key=rows.index))] = None
    return list(found)


def _granting_least(values: Sequence[Any]) -> Any:
    """False, or another person than the caller, if the pool has both; else the first value."""
    if any(value is True for value in values):
        return next((value for value in values if value is False), values[0])
    others = [other for caller, other in SUBJECTS.values() if caller in values and other in values]
    return others[0] if others and not isinstance(values[0], int) else values[0]


def _spread(pools: Sequence[Sequence[Any]], number: int, *, grants: bool) -> list[tuple[Any, ...]]:
    """Each value once in a row that grants little, and in one that *grants*; and a sample of the rest.

    What opens shows in a row in question that is hidden otherwise.  A row of another table often grants by
    the first values of its columns, such as the caller and a role.
    """
    bases = [tuple(map(_granting_least, pools))]
    bases += [tuple(values[0] for values in pools)] if grants else []
    variations = [[(place, value) for place, values in enumerate(pools) for value in values]] * len(bases)
    found = {repr(base): base for base in bases}
    for turns in zip(*variations, strict=True):
        for base, (place, value) in zip(bases, turns, strict=True):
            one = (*base[:place], value, *base[place + 1 :])
            found.setdefault(repr(one), one)
    random = Random(0)  # noqa: S311 # the same worlds each time
    for _ in range(number * 10):
        if len(found) >= number:
            break
        one = tuple(random.choice(values) for values in pools)
        found.setdefault(repr(one), one)
    return list(found.values())[:number]


def _has(rows: Iterable[Row], key: ForeignKey, wanted: tuple[Any, ...], schema: Schema) -> bool:
    heirs = {key.target, *schema.relations[key.target].children}
    return any(
        row.relation in heirs and tuple(row.values.get(name) for name in key.target_columns) == wanted
        for row in rows
    )


def _sorted(rows: Sequence[Row], schema: Schema) -> tuple[Row, ...]:
    """Sort *rows* so that a row comes after those that its foreign keys need."""
    names = sorted({row.relation for row in rows})
    if len(names) == 1:
        return tuple(rows)
    placed: list[str] = []
    while len(placed) < len(names):
        free = [
            name
            for name in names
            if name not in placed
            and all(
                key.target in placed or key.target == name or key.target not in names
                for key in schema.relations[name].foreign_keys
            )
        ]
        # A circle of foreign keys: any order is as good, with deferred constraints.
        placed += free or [next(name for name in names if name not in placed)]
    ordered = sorted(rows, key=lambda row: placed.index(row.relation))
    return tuple(ordered)
