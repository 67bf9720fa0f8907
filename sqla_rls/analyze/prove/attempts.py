"""The statements that are compared with the intent, each beside the same statement of the owner."""

# The text of a statement is part of the answer: a user replays it.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.statements import Statement, literal, quoted_list
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World

#: The most updates of one row.
_MOST_UPDATES: Final = 16
#: The most updates without WHERE.
_MOST_BLIND: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A statement of a caller."""

    statement: Statement
    #: The same with RETURNING, for the owner: the rows that it would change.
    owners: Statement
    #: It needs the SELECT policies: it finds its row by the key, or returns it.
    reads: bool = False
    #: The columns of SELECT.
    columns: tuple[str, ...] = ()

    @property
    def command(self) -> Command:
        return self.statement.command


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The statements of roles with the privileges of *profile*.

    A role without a privilege tries, too: the intent may permit it.
    """

    universe: Universe
    profile: Profile

    @property
    def relation(self) -> Relation:
        return self.universe.relation

    def on(self, world: World) -> list[Attempt]:
        """Return the statements that are tried in *world*."""
        found = [self._select()]
        if self.relation.is_view:
            return found
        if world.row is not None:
            alone = all(row.relation != self.relation.name for row in world.rows)
            return [*found, *self._deletes(world.row, alone), *self._updates(world.row, alone)]
        return [*found, *self._inserts()]

    @property
    def all_rows(self) -> Statement:
        """The owner's SELECT."""
        return Statement("SELECT", f"SELECT * FROM {self.relation.name}")

    def row(self, row: Row) -> Statement:
        """The owner's SELECT of one row."""
        return Statement("SELECT", f"SELECT * FROM {self.relation.name} WHERE {self._is(row)}")

    def _select(self) -> Attempt:
        columns = self._held(self.profile.selects) or tuple(self.relation.columns)
        statement = Statement("SELECT", f"SELECT {quoted_list(columns)} FROM {self.relation.name}")
        return Attempt(statement=statement, owners=self.all_rows, columns=columns)

    def _deletes(self, row: Row, alone: bool) -> Iterator[Attempt]:
        text = f"DELETE FROM {self.relation.name}"
        if alone:
            yield self._changing("DELETE", text)
        if self._finds:
            yield self._changing("DELETE", f"{text} WHERE {self._is(row)}", reads=True)

    def _updates(self, row: Row, alone: bool) -> Iterator[Attempt]:
        # Without the privilege, Postgres looks at no value.
        most = _MOST_UPDATES if self.profile.updates else 1
        for number, (name, value) in enumerate(islice(self._new_values(row.values), most)):
            assigned = f"{quoted_list([name])} = {literal(self.relation.columns[name], value)}"
            text = f"UPDATE {self.relation.name} SET {assigned}"
            if alone and number < _MOST_BLIND:
                yield self._changing("UPDATE", text)
            if self._finds:
                yield self._changing("UPDATE", f"{text} WHERE {self._is(row)}", reads=True)

    def _inserts(self) -> Iterator[Attempt]:
        names = self._held(self.profile.inserts) or tuple(self.relation.columns)
        rows = self.universe.rows[self.relation.name]
        for row in rows if self.profile.inserts else rows[:6]:
            given = {name: row.values[name] for name in names if name in row.values and self._is_free(name)}
            if not given:
                continue
            values = ", ".join(literal(self.relation.columns[name], value) for name, value in given.items())
            text = f"INSERT INTO {self.relation.name} ({quoted_list(given)}) VALUES ({values})"
            yield self._changing("INSERT", text)
            if returned := [name for name in given if name in self.profile.selects]:
                statement = Statement("INSERT", f"{text} RETURNING {quoted_list(returned)}")
                yield Attempt(
                    statement=statement,
                    owners=Statement("INSERT", f"{text} RETURNING *"),
                    reads=True,
                )

    def _changing(self, command: Command, text: str, *, reads: bool = False) -> Attempt:
        return Attempt(
            statement=Statement(command, text),
            owners=Statement(command, f"{text} RETURNING *"),
            reads=reads,
        )

    def _new_values(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """One column and its new value: first the value that it has, then others."""
        held = [name for name in self._held(self.profile.updates) if self._is_free(name) and name in values]
        updatable = held or [name for name in self.relation.columns if name in values and self._is_free(name)]
        deciding = self.universe.deciding[self.relation.name]
        neutral = [name for name in updatable if name not in deciding] or updatable
        for name in neutral[:1]:
            yield name, values[name]
        for name in updatable:
            if name in deciding:
                for value in self.universe.pools.values(self.relation.columns[name]):
                    if value != values[name]:
                        yield name, value

    @property
    def _finds(self) -> bool:
        """Whether the role may find a row by its key."""
        return all(name in self.profile.selects for name in self._key)

    @property
    def _key(self) -> Sequence[str]:
        return self.relation.keys[0] if self.relation.has_primary_key else tuple(self.relation.columns)

    def _is(self, row: Row) -> str:
        names = [name for name in self._key if name in row.values]
        return " AND ".join(
            f"{quoted_list([name])} IS NULL"
            if row.values[name] is None
            else f"{quoted_list([name])} = {literal(self.relation.columns[name], row.values[name])}"
            for name in names
            if self.relation.columns[name].base not in ("json", "xml", "point", "polygon")
        )

    def _held(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.relation.columns)

    def _is_free(self, name: str) -> bool:
        return self.relation.columns[name].is_writable
