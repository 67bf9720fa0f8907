"""The statements that are tried in a world, as text that can be run again by hand.

Names come quoted from the catalog; other names and values are quoted by psycopg.
"""

# ruff: noqa: S608

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

from psycopg import sql

from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.objects import Column, Profile, Relation
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.values import as_input
from sqla_rls.analyze.worlds.world import Row, Values

#: The most updates of one row.
_MOST_UPDATES: Final = 16
#: The most updates of one row by its key: they differ from the others in the SELECT policies only.
_MOST_BY_KEY: Final = 4
#: Types that have no equality.
_WITHOUT_EQUALITY: Final = ("json", "xml", "point", "polygon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of a statement, for an evaluation without rows."""

    #: The columns that it reads: those of SELECT, of WHERE and of RETURNING.
    reads: tuple[str, ...] = ()
    #: The values of INSERT.
    inserted: Values = field(default_factory=dict)
    #: The column that UPDATE, or ON CONFLICT DO UPDATE, changes, and its new value.
    assigned: tuple[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, and the command that it tries."""

    command: Command
    text: str
    shape: Shape = field(default=Shape(), compare=False)
    #: An UPDATE or DELETE of all rows, which one of them makes fail.
    reaches_all: bool = False

    @property
    def returns_rows(self) -> bool:
        return self.command == "SELECT" or " RETURNING " in self.text

    @property
    def tried(self) -> str:
        """The statement as sqla_rls_try() takes it."""
        return ("r" if self.returns_rows else "n") + self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The statements of a role on the relation of *universe*."""

    universe: Universe
    #: What the role may do on each side.
    profiles: tuple[Profile, ...]

    @property
    def relation(self) -> Relation:
        return self.universe.relation

    def commands(self) -> list[Command]:
        """Return the commands that the role has a privilege for, on any side."""
        found: list[Command] = []
        if any(profile.selects for profile in self.profiles):
            found.append("SELECT")
        if any(profile.inserts for profile in self.profiles):
            found.append("INSERT")
        if any(profile.updates for profile in self.profiles):
            found.append("UPDATE")
        if any(profile.delete for profile in self.profiles):
            found.append("DELETE")
        return found

    def on(self, row: Row | None) -> list[Statement]:
        """Return the statements for *row*; None is a world without it."""
        if row is not None:
            found = [*self._selects(), *self._updates(row), *self._deletes(row), *self._conflicts(row)]
        elif self.relation.is_view:
            found = [*self._selects(), *self._view_updates(), *self._deletes(None), *self._view_inserts()]
        elif self.relation.has_rows:
            rows = self.universe.rows[self.relation.name]
            found = [statement for one in rows for statement in self._inserts(one.values)]
        else:
            found = [*self._selects()]
        return list(dict.fromkeys(found))

    def reading(self) -> list[Statement]:
        """Return the statements that read all rows."""
        return [*self._selects()]

    def inserting(self, row: Row) -> list[Statement]:
        """Return the statement that inserts *row*."""
        return [*itertools.islice(self._inserts(row.values), 1)]

    def by_key(self, row: Row) -> list[Statement]:
        """Return the statements that read, change and delete one of many rows."""
        where = self._is(row)
        found = [replace(one, text=f"{one.text} WHERE {where}") for one in self._selects()][:1]
        for name, value in itertools.islice(self._new_values(row.values), 1):
            assigned = f"{quoted(name)} = {self._literal(name, value)}"
            found.append(Statement("UPDATE", f"UPDATE {self.relation.name} SET {assigned} WHERE {where}"))
        if any(profile.delete for profile in self.profiles):
            found.append(Statement("DELETE", f"DELETE FROM {self.relation.name} WHERE {where}"))
        return found

    def moving(self, row: Row, references: Values) -> list[Statement]:
        """Return the UPDATE that gives *row* the columns of its foreign keys from *references*."""
        changed = {name: value for name, value in references.items() if row.values.get(name) != value}
        if not changed or not changed.keys() <= set(self._updatable()):
            return []
        assigned = ", ".join(f"{quoted(name)} = {self._literal(name, one)}" for name, one in changed.items())
        return [Statement("UPDATE", f"UPDATE {self.relation.name} SET {assigned} WHERE {self._is(row)}")]

    def _selects(self) -> Iterator[Statement]:
        for columns in self._column_lists("selects"):
            text = f"SELECT {quoted_list(columns)} FROM {self.relation.name}"
            yield Statement("SELECT", text, Shape(reads=columns))

    def _deletes(self, row: Row | None) -> Iterator[Statement]:
        if not any(profile.delete for profile in self.profiles):
            return
        yield Statement("DELETE", f"DELETE FROM {self.relation.name}", reaches_all=True)
        if row is not None:
            text = f"DELETE FROM {self.relation.name} WHERE {self._is(row)}"
            yield Statement("DELETE", text, Shape(reads=self._identifying(row)))
        else:
            for columns in self._column_lists("selects"):
                yield Statement(
                    "DELETE", f"DELETE FROM {self.relation.name} RETURNING {quoted_list(columns)}"
                )

    def _updates(self, row: Row) -> Iterator[Statement]:
        where = self._is(row)
        for number, (name, value) in enumerate(self._new_values(row.values)):
            if number == _MOST_UPDATES:
                return
            assigned = f"{quoted(name)} = {self._literal(name, value)}"
            text, shape = f"UPDATE {self.relation.name} SET {assigned}", Shape(assigned=(name, value))
            yield Statement("UPDATE", text, shape, reaches_all=True)
            if number < _MOST_BY_KEY:
                shape = replace(shape, reads=self._identifying(row))
                yield Statement("UPDATE", f"{text} WHERE {where}", shape)

    def _view_updates(self) -> Iterator[Statement]:
        for name in self._updatable():
            for value in self._values(name):
                assigned = f"{quoted(name)} = {self._literal(name, value)}"
                yield Statement("UPDATE", f"UPDATE {self.relation.name} SET {assigned}")

    def _view_inserts(self) -> Iterator[Statement]:
        columns = self._column_lists("inserts")
        for names in columns:
            pools = [(name, self._values(name)) for name in names]
            width = max((len(values) for _, values in pools), default=0)
            for place in range(width):
                yield self._insert({name: values[place % len(values)] for name, values in pools})

    def _inserts(self, values: Values) -> Iterator[Statement]:
        for names in self._column_lists("inserts"):
            given = {name: value for name, value in values.items() if name in names and self._is_free(name)}
            if not given:
                continue
            statement = self._insert(given)
            yield statement
            returned = [name for name in given if any(name in profile.selects for profile in self.profiles)]
            if returned:
                shape = replace(statement.shape, reads=tuple(returned))
                yield Statement("INSERT", f"{statement.text} RETURNING {quoted_list(returned)}", shape)
            # A default may need a privilege of its own, as on a sequence.
            undefaulted = {name: value for name, value in given.items() if not self._has_default(name)}
            if undefaulted and undefaulted != given:
                yield self._insert(undefaulted)

    def _conflicts(self, row: Row) -> Iterator[Statement]:
        """Yield an INSERT that finds *row* in its way, and changes it."""
        key = next((key for key in self.relation.keys if self.relation.has_primary_key), None)
        if key is None or not any(profile.inserts for profile in self.profiles):
            return
        names = {name for profile in self.profiles for name in profile.inserts}
        given = {name: value for name, value in row.values.items() if name in names and self._is_free(name)}
        if not set(key) <= given.keys():
            return
        for number, (name, value) in enumerate(self._new_values(row.values)):
            if number == 4:
                return
            action = f"DO UPDATE SET {quoted(name)} = {self._literal(name, value)}"
            text = f"{self._insert(given).text} ON CONFLICT ({quoted_list(key)}) {action}"
            yield Statement("INSERT", text, Shape(reads=key, inserted=given, assigned=(name, value)))

    def _insert(self, values: Values) -> Statement:
        literals = ", ".join(self._literal(name, value) for name, value in values.items())
        text = f"INSERT INTO {self.relation.name} ({quoted_list(values)}) VALUES ({literals})"
        return Statement("INSERT", text, Shape(inserted=values))

    def _new_values(self, values: Values) -> Iterator[tuple[str, Any]]:
        """Yield one column and its new value: first the value that it has, then others."""
        updatable = [name for name in self._updatable() if name in values]
        deciding = self.universe.deciding[self.relation.name]
        key = self.relation.keys[0] if self.relation.keys else ()
        neutral = sorted(updatable, key=lambda name: (name in deciding, name in key))
        for name in neutral[:1]:
            yield name, values[name]
        differing = {name for name in updatable if len({name in p.updates for p in self.profiles}) > 1}
        for name in updatable:
            if name in differing:
                yield name, values[name]
        for name in updatable:
            if name in deciding:
                for value in self._values(name):
                    if value != values[name]:
                        yield name, value

    def _updatable(self) -> list[str]:
        names = {name for profile in self.profiles for name in profile.updates}
        return [name for name in self.relation.columns if name in names and self._is_free(name)]

    def _is_free(self, name: str) -> bool:
        return self.relation.columns[name].is_writable

    def _has_default(self, name: str) -> bool:
        column = self.relation.columns[name]
        return column.default is not None or bool(column.identity)

    def _values(self, name: str) -> tuple[Any, ...]:
        return self.universe.pools.values(self.relation.columns[name])

    def _column_lists(self, kind: str) -> list[tuple[str, ...]]:
        """Return the columns that the role has a privilege on, of each side, and each that differs."""
        lists = [
            tuple(name for name in getattr(profile, kind) if name in self.relation.columns)
            for profile in self.profiles
        ]
        differing = {name for names in lists for name in names if any(name not in other for other in lists)}
        found = [*lists, *((name,) for name in self.relation.columns if name in differing)]
        return [names for names in dict.fromkeys(found) if names]

    def _is(self, row: Row) -> str:
        return " AND ".join(self._equals(name, row.values[name]) for name in self._identifying(row))

    def _identifying(self, row: Row) -> tuple[str, ...]:
        # A unique key with NULL finds more than one row.
        keys = (
            key for key in self.relation.keys if all(row.values.get(name, "") is not None for name in key)
        )
        names: Iterable[str] = next(keys, tuple(row.values))
        names = [name for name in names if name in row.values] or list(row.values)
        return tuple(name for name in names if self._has_equality(name))

    def _has_equality(self, name: str) -> bool:
        return self.relation.columns[name].base not in _WITHOUT_EQUALITY

    def _equals(self, name: str, value: Any) -> str:
        return (
            f"{quoted(name)} IS NULL" if value is None else f"{quoted(name)} = {self._literal(name, value)}"
        )

    def _literal(self, name: str, value: Any) -> str:
        return literal(self.relation.columns[name], value)


def insertion(relation: Relation, values: Mapping[str, Any]) -> str:
    """Return the INSERT of an owner."""
    given = {name: value for name, value in values.items() if name in relation.columns}
    literals = ", ".join(literal(relation.columns[name], value) for name, value in given.items())
    return (
        f"INSERT INTO {relation.name} ({quoted_list(given)}) OVERRIDING SYSTEM VALUE VALUES ({literals})"
        if given
        else f"INSERT INTO {relation.name} DEFAULT VALUES"
    )


def literal(column: Column, value: Any) -> str:
    """Return *value* as SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float) and column.kind == "b" and column.category in "BN":
        return json.dumps(value)
    return _quoted(as_input(value))


@cache
def _quoted(value: str) -> str:
    text: str = sql.Literal(value).as_string(None)
    return text.strip()


@cache
def quoted(name: str) -> str:
    """Return *name* as an identifier of SQL."""
    text: str = sql.Identifier(name).as_string(None)
    return text


def quoted_list(names: Iterable[str]) -> str:
    """Return *names* as a list of identifiers."""
    return ", ".join(map(quoted, names))
