"""The rows that small worlds are made of: of values that policies can tell apart.

The same input gives the same rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqla_rls.analyze.vocabulary import Vocabulary, read_expression
from sqla_rls.analyze.worlds.objects import ForeignKey, Relation
from sqla_rls.analyze.worlds.pools import Pools
from sqla_rls.analyze.worlds.samples import spread
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.shared import ColumnOf, Join, Shared
from sqla_rls.analyze.worlds.world import Row, Values

#: The most rows of one table that worlds are made of.
MOST_ROWS: Final = 24
#: The most values of columns that one question about their constraints has.
_MOST_TRIED: Final = 64
#: The parts of a definition whose columns decide about access.
_DECIDING: Final = ("policy", "query", "body", "trigger")


@dataclass(kw_only=True)
class Universe:
    """The rows and values that the worlds of *relation* are made of."""

    relation: Relation
    schema: Schema
    pools: Pools
    #: The columns that decide about access, of each relation that is read.
    deciding: Mapping[str, frozenset[str]]
    rows: Mapping[str, tuple[Row, ...]]
    #: The columns that a definition compares with each other.
    joins: Sequence[Join] = ()
    #: The columns that definitions compare with what they know of the caller.
    callers: Collection[ColumnOf] = ()
    #: The columns that definitions compare with constants.
    named: Collection[ColumnOf] = ()
    #: Those of them whose constants are of constraints.
    constrained: Collection[ColumnOf] = ()
    #: Whether a constraint refuses these values of a table.
    refuses: Callable[[Relation, Values], bool] = lambda _relation, _values: False
    spreads_accepted: bool = True
    #: Raises an error if the time is over.
    check_time: Callable[[], None] = lambda: None
    #: What the budget leaves out.
    left_out: list[str] = field(default_factory=list)
    #: The numbers of the parents that are made for rows, by their keys.
    _parents: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    #: The values of relations that decide nothing, by their names.
    _others: dict[str, Pools] = field(default_factory=dict[str, Pools])
    #: Values of columns that decide nothing, beside others of the same constraints.
    _fillers: dict[str, Values] = field(default_factory=dict[str, Values])

    @classmethod
    def of(
        cls,
        relation: Relation,
        schema: Schema,
        shared: Shared,
        accepts: Callable[[str, str], bool],
        *,
        varies_checked: bool = False,
        refuses: Callable[[Relation, Values], bool] = lambda _relation, _values: False,
        spreads_accepted: bool = True,
    ) -> Universe:
        """Make the universe of *relation*.

        Args:
            relation: the table or view in question.
            schema: what both sides refer to.
            shared: what both sides mention.
            accepts: asks Postgres whether a text is a value of a type.
            varies_checked: vary the columns of constraints, too.
            refuses: asks Postgres whether a constraint refuses these values of a table.
            spreads_accepted: where a table has more than MOST_ROWS, ask it of each: some thousand questions.
        """
        read = schema.reads(relation.name)
        parts = (*_DECIDING, "constraint") if varies_checked else _DECIDING
        deciding = {name: _deciding(schema, read, name, parts) for name in sorted(read)}
        pools = Pools.of(relation, schema, shared, deciding, accepts)
        self = cls(
            relation=relation,
            schema=schema,
            pools=pools,
            deciding=deciding,
            rows={},
            joins=shared.joins,
            callers=shared.callers,
            named=shared.named,
            constrained=shared.constrained,
            refuses=refuses,
            spreads_accepted=spreads_accepted,
        )
        self.rows = {
            name: self._rows(schema.relations[name]) for name in deciding if schema.relations[name].has_rows
        }
        return self

    @classmethod
    def nothing(cls, relation: Relation, schema: Schema) -> Universe:
        """Return the universe of a relation in which no row can be made."""
        pools = Pools(vocabulary=Vocabulary(), kinds=(), accepts=lambda _type, _text: False)
        return cls(relation=relation, schema=schema, pools=pools, deciding={}, rows={})

    def _rows(self, relation: Relation) -> tuple[Row, ...]:
        varied = [
            (name, self.pools.values(column))
            for name, column in relation.columns.items()
            if name in self.deciding[relation.name] and column.generated is None
        ]
        names = [name for name, _ in varied]
        size = math.prod(len(values) for _, values in varied)
        if size <= MOST_ROWS:
            chosen = list(itertools.product(*(values for _, values in varied)))
        else:
            self.left_out.append(f"{relation.name}: {MOST_ROWS} of {size} possible rows were tried")
            chosen = spread(
                [values for _, values in varied],
                MOST_ROWS,
                nulls=[
                    place
                    for place, (column, _) in enumerate(varied)
                    if self.pools.may_need_null(relation.columns[column])
                ],
                grants=True,
                refuses=self._asking(relation, names),
            )
        rows = [
            Row(relation.name, self.filled(relation, dict(zip(names, values, strict=True)), number))
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

    def _asking(self, relation: Relation, names: Sequence[str]) -> Callable[[Sequence[Any]], bool]:
        if not self.spreads_accepted:
            return lambda _values: False
        known: dict[str, bool] = {}

        def refuses(values: Sequence[Any]) -> bool:
            if (spelled := repr(values)) not in known:
                known[spelled] = self.refuses(relation, dict(zip(names, values, strict=True)))
            return known[spelled]

        return refuses

    def _copied(self, relation: Relation, row: Row, copy: int, number: int) -> Iterator[Row]:
        """Yield the row again, with other values where a key needs them."""
        values, deciding = dict(row.values), self.deciding[relation.name]
        for key in relation.keys:
            free = [name for name in key if name not in deciding and not is_foreign(relation, name)]
            if not free:
                return
            for name in free:
                values[name] = self.pools.distinct(relation.columns[name], number)
        yield Row(relation.name, values, copy)

    def filled(self, relation: Relation, given: Values, number: int) -> Values:
        """Give each other column one value; keys that decide nothing are distinct."""
        pools, fillers = self._pools_of(relation), self._fillers_beside(relation, given)
        distinct = {name for key in relation.keys if not given.keys() & set(key) for name in key}
        values: dict[str, Any] = {}
        for name, column in relation.columns.items():
            if column.generated is not None:
                continue
            if name in given:
                values[name] = given[name]
            elif name in distinct and not is_foreign(relation, name):
                values[name] = pools.distinct(column, number)
            else:
                values[name] = fillers[name] if name in fillers else pools.filler(column)
        return values

    def _fillers_beside(self, relation: Relation, given: Values) -> Values:
        """Return values of the columns in constraints, which these accept beside *given*."""
        checks = [
            read_expression(one).names & relation.columns.keys()
            for one in (*relation.checks, *relation.new_checks)
        ]
        keys = {name for key in relation.keys for name in key}
        free = {
            name
            for names in checks
            for name in names - given.keys() - keys
            if relation.columns[name].generated is None and not is_foreign(relation, name)
        }
        if not free:
            return {}
        fixed = {name: value for name, value in given.items() if any(name in names for names in checks)}
        key = repr((relation.name, fixed))
        if key not in self._fillers:
            self._fillers[key] = dict(self._accepted(relation, fixed, checks, free))
        return self._fillers[key]

    def _accepted(
        self, relation: Relation, fixed: Values, checks: Sequence[Collection[str]], free: Collection[str]
    ) -> Iterator[tuple[str, Any]]:
        pools = self._pools_of(relation)
        fillers = {name: pools.filler(relation.columns[name]) for name in sorted(free)}
        if not self.refuses(relation, {**fixed, **fillers}):
            return
        for names in _linked(free, checks):
            values = [pools.values(relation.columns[name]) for name in names]
            for tried in itertools.islice(itertools.product(*values), _MOST_TRIED):
                found = dict(zip(names, tried, strict=True))
                if not self.refuses(relation, {**fixed, **found}):
                    yield from found.items()
                    break

    def _pools_of(self, relation: Relation) -> Pools:
        """Return the values of *relation*, among which are those that its constraints name."""
        if relation.name in self.deciding or not (relation.checks or relation.new_checks):
            return self.pools
        if relation.name not in self._others:
            shared = Shared.of([self.schema], relation.name)
            self._others[relation.name] = Pools.of(relation, self.schema, shared, {}, self.pools.accepts)
        return self._others[relation.name]

    def complete(self, rows: Sequence[Row], *, new: Row | None = None) -> tuple[Row, ...] | None:
        """Add the rows that the foreign keys of *rows* need, and sort them; None if there is no such row.

        Args:
            rows: the rows of a world.
            new: one of them, which needs what a new row needs.
        """
        found = list(dict.fromkeys(rows))
        waiting = list(found)
        while waiting:
            row = waiting.pop()
            relation = self.schema.relations[row.relation]
            keys = (
                (*relation.foreign_keys, *relation.new_foreign_keys) if row == new else relation.foreign_keys
            )
            for key in keys:
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
        values = self.filled(relation, given, MOST_ROWS + place if place else 1)
        return Row(key.target, values) if relation.has_rows else None


def _linked(names: Collection[str], checks: Sequence[Collection[str]]) -> Iterator[list[str]]:
    """Yield *names* in groups: two are in one group if a check names both, also by way of others."""
    left = set(names)
    while left:
        found = [min(left)]
        for one in found:
            left.discard(one)
            near = {other for check in checks if one in check for other in check} & left
            left -= near
            found += sorted(near)
        yield found


def _deciding(schema: Schema, read: frozenset[str], name: str, parts: Sequence[str]) -> frozenset[str]:
    sources = read | {one for each in read for one in schema.calls(each)}
    found = {
        edge.column
        for source in sources
        for edge in schema.edges.get(source, ())
        if edge.reads == name and edge.column is not None and edge.part in parts
    }
    columns = schema.relations[name].columns
    # Postgres gives the system columns their values.
    found &= columns.keys()
    for column in list(found):
        if (expression := columns[column].generated) is not None:
            found |= read_expression(expression).names & columns.keys()
    return frozenset(found)


def reads_itself(schema: Schema, relation: Relation) -> bool:
    """Return whether other rows of the relation decide about access to a row of it."""
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


def _has(rows: Iterable[Row], key: ForeignKey, wanted: tuple[Any, ...], schema: Schema) -> bool:
    heirs = {key.target, *schema.relations[key.target].children}
    return any(
        row.relation in heirs and tuple(row.values.get(name) for name in key.target_columns) == wanted
        for row in rows
    )


def _sorted(rows: Sequence[Row], schema: Schema) -> tuple[Row, ...]:
    """Sort *rows* so that a row comes after those that its foreign keys need."""
    names = sorted({row.relation for row in rows})
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
    waiting = sorted(rows, key=lambda row: placed.index(row.relation))
    if any(key.target == name for name in names for key in schema.relations[name].foreign_keys):
        return tuple(_parents_first(waiting, schema))
    return tuple(waiting)


def _parents_first(rows: Sequence[Row], schema: Schema) -> Iterator[Row]:
    """Yield each row after those of the same table to which it refers."""
    waiting = list(rows)
    while waiting:
        row = next((one for one in waiting if not _refers(one, waiting, schema)), waiting[0])
        waiting.remove(row)
        yield row


def _refers(row: Row, others: Sequence[Row], schema: Schema) -> bool:
    """Return whether a foreign key of *row* refers to another row of its table."""
    return any(
        _has([one for one in others if one.relation == row.relation and one != row], key, wanted, schema)
        for key in schema.relations[row.relation].foreign_keys
        if key.target == row.relation
        and None not in (wanted := tuple(row.values.get(name) for name in key.columns))
    )


def is_foreign(relation: Relation, name: str) -> bool:
    """Return whether the column is part of a foreign key."""
    return any(name in key.columns for key in relation.foreign_keys)
