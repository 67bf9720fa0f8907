"""Small worlds with a row of a table that has marks, for the calls of a function that reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from sqla_rls.analyze.lint.trigger_marks import Marked, mark_of, marks_of
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.acting import reach_of
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.samples import granting_least
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World

_BUDGET: Final = Budget(worlds=16, rows=2)
#: Values less and greater than each mark, by the category of their type.
_BESIDE: Final[Sequence[Mapping[str, Any]]] = (
    {"N": 7, "S": "a", "D": "1901-01-01"},
    {"N": 28174, "S": "y", "D": "2098-01-01"},
    {"N": 918273646, "S": "z", "D": "2099-01-01"},
)
_KEYS_APART: Final = 5001


@dataclass(kw_only=True)
class MarkedWorlds:
    """The worlds of a table with marks in a row of it.

    Args:
        universe: the universe of the table.
        signature: the function that reads it.
    """

    universe: Universe
    signature: str

    def with_free_marks(self) -> Iterator[Marked]:
        """Yield worlds with marks in columns about which no policy and no foreign key decides.

        All of them have one, or those that the body doesn't name, or one that it names.  A CHECK may refuse a
        mark, so that there are worlds without marks in its columns.
        """
        for world, row, marks in self._worlds():
            free = {name: mark for name, mark in marks.items() if name not in self._deciding}
            others = tuple(name for name in free if name not in self._keys)
            unchecked = tuple(name for name in others if name not in self._checked)
            unnamed = tuple(name for name in unchecked if name not in self._named)
            single = [(name,) for name in free if name in (self._named if others else self._keys)]
            for columns in dict.fromkeys([unchecked, unnamed, others, *single]):
                if columns:
                    new = _with(row, {name: free[name] for name in columns})
                    beside = self._beside(new, columns)
                    yield Marked(row=new, columns=columns, world=World(rows=(*world.rows, new)))
                    yield Marked(row=new, columns=columns, world=World(rows=(*world.rows, *beside, new)))

    def with_marks_everywhere(self) -> Iterator[Marked]:
        """Yield worlds with a mark in a column about which a policy or a foreign key decides.

        Each row with the same value has the mark instead, so that policies and keys find the same rows.
        """
        for world, row, marks in self._worlds():
            has_others = any(name not in self._deciding | self._keys | self._checked for name in marks)
            for name, mark in marks.items():
                if name in self._deciding and (name in self._named or not has_others):
                    old = row.values[name]
                    new = _renamed(row, self.relation, old, mark)
                    rows = [
                        _renamed(one, self.universe.schema.relations[one.relation], old, mark)
                        for one in world.rows
                    ]
                    yield Marked(row=new, columns=(name,), world=World(rows=(*rows, new)))
                    completed = self.universe.complete((*rows, *self._beside(new, (name,)))) or ()
                    for others in dict.fromkeys((completed, (*map(self._least_public, completed),))):
                        if others:
                            yield Marked(row=new, columns=(name,), world=World(rows=(*others, new)))

    def _least_public(self, row: Row) -> Row:
        """Return a row of another table with the values for which its policies admit it least."""
        if row.relation == self.relation.name:
            return row
        relation, pools = self.universe.schema.relations[row.relation], self.universe.pools
        fixed = {
            name for key in (*relation.keys, *(one.columns for one in relation.foreign_keys)) for name in key
        }
        return _with(
            row,
            {
                name: granting_least(pools.values(relation.columns[name]))
                for name in self._columns_of("policy", row.relation) - fixed
                if name in row.values
            },
        )

    @property
    def relation(self) -> Relation:
        return self.universe.relation

    def _worlds(self) -> Iterator[tuple[World, Row, Mapping[str, Any]]]:
        """Yield worlds, the row in question, and the marks that its columns may have."""
        for world in generate_worlds(self.universe, _BUDGET):
            if world.row is not None:
                marks = marks_of(self.relation, world.row.values, self.universe.pools)
                for name in self._deciding & marks.keys():
                    if world.row.values[name] is None:
                        del marks[name]
                yield world, world.row, marks

    def _beside(self, row: Row, columns: Collection[str]) -> Iterator[Row]:
        """Yield rows like *row* with other values, so that its own are no sum, least or greatest value."""
        for number, values in enumerate(_BESIDE, _KEYS_APART):
            new = {name: values.get(self.relation.columns[name].category) for name in columns}
            for name in self._keys:
                if new.get(name) is None:
                    new[name] = self.universe.pools.distinct(self.relation.columns[name], number)
            yield _with(row, new)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(name for key in self.relation.keys for name in key)

    @cached_property
    def _deciding(self) -> frozenset[str]:
        """The columns of foreign keys and policies."""
        return self._columns_of("policy", self.relation.name) | {
            name for key in self.relation.foreign_keys for name in key.columns
        }

    @cached_property
    def _checked(self) -> frozenset[str]:
        return self._columns_of("constraint", self.relation.name)

    @cached_property
    def _named(self) -> frozenset[str]:
        """The columns that the body names."""
        schema = self.universe.schema
        return frozenset(
            edge.column
            for function, _ in reach_of(schema, self.signature).functions
            for edge in schema.edges.get(function, ())
            if edge.reads == self.relation.name and edge.column is not None
        )

    def _columns_of(self, part: str, name: str) -> frozenset[str]:
        return frozenset(
            edge.column
            for edge in self.universe.schema.edges.get(name, ())
            if edge.part == part and edge.reads == name and edge.column is not None
        )


def has_others(marked: Marked) -> bool:
    """Return whether the table has other rows with other values, so that no aggregate is a mark."""
    own = [one for one in marked.world.rows if one.relation == marked.row.relation]
    return len(own) > len(_BESIDE)


def without_row(marked: Marked) -> World | None:
    """Return the world without the marked row, if other rows have its mark, too."""
    marks = {repr(marked.row.values[name]) for name in marked.columns}
    rows = tuple(one for one in marked.world.rows if one != marked.row)
    is_elsewhere = any(repr(value) in marks for row in rows for value in row.values.values())
    return World(rows=rows) if is_elsewhere else None


def _with(row: Row, values: Mapping[str, Any]) -> Row:
    return Row(row.relation, {**row.values, **values}, row.copy)


def _renamed(row: Row, relation: Relation, old: Any, mark: Any) -> Row:
    """Return *row* with *mark* for each value *old* of a column that may have this mark."""
    return _with(
        row,
        {
            name: mark
            for name, value in row.values.items()
            if repr(value) == repr(old) and mark_of(relation.columns[name]) == mark
        },
    )
