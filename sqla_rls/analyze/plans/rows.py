"""Generated rows: as many as a policy needs to be slow, with values that satisfy types, keys and constraints.

Each value is an expression of the row's number, so that a foreign key computes the key of its parent.
Postgres decides which rows satisfy the CHECK constraints: the others aren't inserted.
"""

# ruff: noqa: S608

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.vocabulary import Claim, Setting, Subject, Term, Vocabulary
from sqla_rls.analyze.vocabulary import Column as ColumnTerm
from sqla_rls.analyze.why.rows import quoted_literal
from sqla_rls.analyze.why.target import first_line
from sqla_rls.analyze.worlds.objects import Column, ForeignKey, Relation
from sqla_rls.analyze.worlds.pools import Actor, Pools
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.statements import quoted
from sqla_rls.analyze.worlds.values import as_input
from sqla_rls.catalog.query import undone

#: The rows of a table.
ROWS: Final = 20_000
#: The reason of what a limit of time leaves out.
TIME_IS_OVER: Final = "the time was over"
#: The rows of a table that others refer to, and that refers to none; the number of subjects.
_FEW: Final = 20
#: The number of the row whose values are the caller's.
_CALLER: Final = 7
#: The most tables of a chain of foreign keys.
_MOST_STEPS: Final = 12
_NUMBER: Final = "n"
#: Fifteen years: partitions have the rows of a few.
_MINUTES: Final = 15 * 365 * 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The tables that have generated rows.

    Attributes:
        rows: the number of rows of each table.
        left_out: the tables without rows, with the reasons.
    """

    rows: Mapping[str, int]
    left_out: Mapping[str, str]


@dataclass(kw_only=True)
class Rows:
    """The rows of *names* and of the tables that they refer to, in a scratch database."""

    connection: Connection
    schema: Schema
    names: tuple[str, ...]
    size: int
    vocabulary: Vocabulary
    pools: Pools
    _accepted: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, connection: Connection, schema: Schema, names: Iterable[str], size: int = ROWS) -> Rows:
        """Choose the tables and the values.

        Args:
            connection: a superuser's connection to a scratch database, in a transaction.
            schema: the database.
            names: the relations that are read; those that they read or refer to have rows, too.
            size: the rows of each table.
        """
        found: dict[str, None] = {}
        vocabulary = Vocabulary()
        for name in names:
            if name in schema.relations:
                vocabulary = vocabulary.merged(Shared.of([schema], name).vocabulary)
                found |= dict.fromkeys(_closure(schema, name))
        self = cls(
            connection=connection,
            schema=schema,
            names=tuple(found),
            size=size,
            vocabulary=vocabulary,
            pools=Pools(vocabulary=vocabulary, kinds=(), accepts=lambda _type, _text: False),
        )
        columns = [
            column
            for name in self.names
            for column in schema.relations[name].columns.values()
            if self._is_of(column, Subject)
        ]
        self.pools = Pools(vocabulary=vocabulary, kinds=_kinds(columns), accepts=self._accepts)
        return self

    # Values

    @property
    def _few(self) -> int:
        return max(self.size // _FEW, 10)

    def _rows_of(self, relation: Relation) -> int:
        """Return the number of rows: few if others refer to the table, and its rows have no callers."""
        is_root = not relation.foreign_keys and not any(
            self._is_of(column, Subject, Claim, Setting)
            for column in relation.columns.values()
            if (column.name,) not in relation.keys
        )
        targets = {key.target for one in self.schema.relations.values() for key in one.foreign_keys}
        return self._few if is_root and relation.name in targets else self.size

    def _is_of(self, column: Column, *kinds: type) -> bool:
        linked = self.vocabulary.linked.get(ColumnTerm(column.name), frozenset[Term]())
        return any(isinstance(one, kinds) for one in linked)

    def _expression(
        self, relation: Relation, column: Column, number: str, *, varied: bool = False, steps: int = 0
    ) -> str:
        """Return the value of *column* in the row of that number, as SQL."""
        key = next((one for one in relation.foreign_keys if column.name in one.columns), None)
        if key is not None and steps < _MOST_STEPS:
            if key.target == relation.name and not column.needs_value:
                return f"CAST(NULL AS {column.type})"
            value = self._parent(relation, column, key, number, steps)
            if value is not None:
                return value
        if (column.name,) in relation.keys:
            return self._value(column, number)
        if self._is_of(column, Subject, Claim, Setting):
            return self._value(column, f"(1 + {number} % {self._few})")
        is_key = any(column.name in one for one in relation.keys)
        named = ColumnTerm(column.name) in self.vocabulary.constants
        if (varied or named or column.domain_checks or not self._has_values(column)) and not is_key:
            place = list(relation.columns).index(column.name)
            values = self.pools.values(column)
            cases = " ".join(
                f"WHEN {turn} THEN {self._literal(column, value)}" for turn, value in enumerate(values)
            )
            turns = f"({number} / {place + 1}) % {len(values)}"
            if column.kind == "e" and not named:
                # One label is frequent, and the others are rare, as the states of most rows.
                turns = f"CASE WHEN {number} % 1000 = 0 THEN {number} / 1000 % {len(values)} ELSE 0 END"
            return f"CASE {turns} {cases} END"
        return self._value(column, number, list(relation.columns).index(column.name))

    def _parent(
        self, relation: Relation, column: Column, key: ForeignKey, number: str, steps: int
    ) -> str | None:
        target = self.schema.relations[key.target]
        named = target.columns.get(key.target_columns[key.columns.index(column.name)])
        if named is None or not target.has_rows:
            return None
        rows = self._rows_of(target)
        # Two foreign keys of a table don't rise together; two columns of one do.
        turn = relation.foreign_keys.index(key)
        if key.target == relation.name:
            of_parent = number
        elif turn == 0 and not self._is_of(column, Subject):
            of_parent = f"(1 + ({number} * 7919 + {number} / {self._few}) % {rows})"
        else:
            of_parent = f"(1 + ({number} + {turn} * 31) % {min(rows, self._few)})"
        return self._expression(target, named, of_parent, steps=steps + 1)

    def _has_values(self, column: Column) -> bool:
        return column.kind == "b" and (
            column.category in ("N", "S") or column.base == "uuid" or column.base.startswith(("date", "time"))
        )

    def _value(self, column: Column, number: str, later: int = 0) -> str:
        base = column.base
        if column.category == "A" and column.element is not None:
            element = replace(
                column,
                base=column.element["type"],
                type=column.element["type"],
                kind=column.element["kind"],
                category=column.element["category"],
                element=None,
            )
            other = f"({number} * 31 % {self._few} + 1)"
            return (
                f"CAST(ARRAY[{self._value(element, number)}, {self._value(element, other)}] AS {column.type})"
            )
        if column.category == "N":
            most = {"smallint": 32_000, "numeric": 10**9}.get(base.partition("(")[0], 2 * 10**9)
            return f"CAST({number} % {most} AS {column.type})"
        if base == "uuid":
            return f"CAST(lpad(to_hex({number}), 32, '0') AS {column.type})"
        if base.startswith("timestamp") or base == "date":
            # A start comes before an end in most tables.
            days = f"interval '{later} days' + {number} * interval '{_MINUTES // self.size} minutes'"
            return f"CAST(timestamptz '2015-01-01 00:00:00+00' + {days} AS {column.type})"
        if column.category == "S":
            return f"CAST({self._text(column, number)} AS {column.type})"
        values = [value for value in self.pools.values(column) if value is not None] or [None]
        cases = " ".join(
            f"WHEN {turn} THEN {self._literal(column, value)}" for turn, value in enumerate(values)
        )
        return f"CASE {number} % {len(values)} {cases} END"

    def _text(self, column: Column, number: str) -> str:
        """Return a text in the form of the subjects, which other columns compare with it."""
        if column.domain_checks:
            for value in self.pools.values(column):
                for before, after in (("", str(value)), (str(value), "")):
                    if value is not None and self._accepts(column.type, f"{before}{_CALLER}{after}"):
                        return f"{quoted_literal(before)} || {number} || {quoted_literal(after)}"
        length = column.base.partition("(")[2].partition(")")[0]
        if length.isdecimal() and int(length) < (36 if "uuid" in self.pools.kinds else 12):
            return f"right(to_hex({number}), {length})"
        return self._subject(number)

    def _subject(self, number: str) -> str:
        if "uuid" in self.pools.kinds:
            return f"CAST(CAST(lpad(to_hex({number}), 32, '0') AS uuid) AS text)"
        return f"CAST({number} AS text)" if "number" in self.pools.kinds else f"'user_' || {number}"

    def _literal(self, column: Column, value: Any) -> str:
        if value is None:
            return f"CAST(NULL AS {column.type})"
        return f"CAST({quoted_literal(as_input(value))} AS {column.type})"

    def _accepts(self, type_: str, value: str) -> bool:
        if (type_, value) not in self._accepted:
            try:
                with undone(self.connection):
                    statement = f"SELECT CAST({quoted_literal(value)} AS {type_}) IS NULL"
                    self.connection.exec_driver_sql(statement, execution_options=_VERBATIM)
                self._accepted[type_, value] = True
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                self._accepted[type_, value] = False
        return self._accepted[type_, value]

    # Inserting

    def insert(self, *, until: float = math.inf) -> Filled:
        """Insert the rows, and let Postgres count them.

        The setting session_replication_role must be replica: rows without a parent are deleted at the end.

        Args:
            until: the moment of ``time.monotonic()`` after which no more tables get rows.

        Emits:
            ``INSERT … SELECT … FROM generate_series(…)``, and ANALYZE.
        """
        rows: dict[str, int] = {}
        left_out: dict[str, str] = {}
        for name in self.names:
            relation = self.schema.relations[name]
            if relation.kind != "r":
                continue
            if time.monotonic() > until:
                left_out[name] = TIME_IS_OVER
                continue
            rows[name], reason = self._insert_into(relation)
            if not rows[name]:
                left_out[name] = reason or "its constraints reject all"
        self._delete_orphans(rows)
        # As after VACUUM: Postgres avoids an index with a long list of pending entries.
        self._run(_CLEAN_PENDING_LISTS)
        for name in rows:
            self._run(f"ANALYZE {name}")
        return Filled(rows=rows, left_out=left_out)

    def _insert_into(self, relation: Relation) -> tuple[int, str | None]:
        reason = None
        for varied in (False, True):
            for checks in (
                (*relation.checks, *relation.new_checks, *filter(None, [relation.partition_check])),
                (),
            ):
                try:
                    with self.connection.begin_nested():
                        found = self._run(self._insertion(relation, checks, varied=varied))
                    if found:
                        return found, None
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise
                    reason = first_line(error)
        return 0, reason

    def _insertion(self, relation: Relation, checks: Sequence[str], *, varied: bool) -> str:
        columns = [column for column in relation.columns.values() if column.generated is None]
        names = ", ".join(quoted(column.name) for column in columns)
        values = ", ".join(
            f"{self._expression(relation, column, _NUMBER, varied=varied)} AS {quoted(column.name)}"
            for column in columns
        )
        conditions = " AND ".join(f"({check}) IS NOT FALSE" for check in checks) or "true"
        numbers = f"generate_series(CAST(1 AS bigint), {self._rows_of(relation)}) AS g ({_NUMBER})"
        return (
            f"INSERT INTO {relation.name} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} "
            f"FROM (SELECT {values} FROM {numbers}) AS made WHERE {conditions} ON CONFLICT DO NOTHING"
        )

    def _delete_orphans(self, rows: dict[str, int]) -> None:
        """Delete the rows whose parents the constraints have rejected, and so on."""
        short = {name for name in rows if rows[name] < self._rows_of(self.schema.relations[name])}
        while short:
            parents, short = short, set[str]()
            for name in rows:
                for key in self.schema.relations[name].foreign_keys:
                    if key.target not in parents:
                        continue
                    matches = " AND ".join(
                        f"p.{quoted(theirs)} = c.{quoted(ours)}"
                        for ours, theirs in zip(key.columns, key.target_columns, strict=True)
                    )
                    has_key = " AND ".join(f"c.{quoted(one)} IS NOT NULL" for one in key.columns)
                    deleted = self._run(
                        f"DELETE FROM {name} AS c WHERE {has_key} "
                        f"AND NOT EXISTS (SELECT FROM {key.target} AS p WHERE {matches})"
                    )
                    if deleted:
                        rows[name] -= deleted
                        short.add(name)

    def _run(self, statement: str) -> int:
        return self.connection.exec_driver_sql(statement, execution_options=_VERBATIM).rowcount

    # Callers

    def actors(self, role: str, claims: Mapping[str, Any]) -> Iterator[Actor]:
        """Yield callers who own rows: with claims that are values, and with claims that are lists.

        Args:
            role: the role.
            claims: the claims that no generated row decides.
        """
        columns = [column for name in self.names for column in self.schema.relations[name].columns.values()]
        subject = self._of_caller(Subject(), columns) or self._scalar(self._subject(str(_CALLER)))
        base = {**claims, "sub": subject}
        settings = {
            name: value
            for name in self.vocabulary.settings
            if (value := self._of_caller(Setting(name), columns)) is not None
        }
        found = {path: self._of_caller(Claim(path), columns) for path in self.vocabulary.claims}
        for as_list in (False, True):
            own = copy.deepcopy(base)
            for path, value in found.items():
                if value is not None and path:
                    _set(own, path, [value] if as_list else value)
            yield Actor(role=role, claims=own, settings=settings)

    def _of_caller(self, term: Term, columns: Sequence[Column]) -> str | None:
        linked = self.vocabulary.linked.get(term, frozenset[Term]())
        for column in columns:
            if ColumnTerm(column.name) in linked:
                value = self._value(column, str(_CALLER))
                value = f"({value})[1]" if column.category == "A" else value
                return self._scalar(f"CAST({value} AS text)")
        return None

    def _scalar(self, expression: str) -> str:
        return str(self.connection.scalar(text(f"SELECT {expression}".replace(":", "\\:"))))


_CLEAN_PENDING_LISTS: Final = """
SELECT pg_catalog.gin_clean_pending_list(c.oid)
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
 WHERE m.amname = 'gin' AND c.relkind = 'i' AND c.oid >= 16384
"""
_VERBATIM: Final = {"no_parameters": True}


def _closure(schema: Schema, name: str) -> Iterator[str]:
    """Yield the tables that *name* reads, their partitions, and those that they refer to, parents first."""
    done: set[str] = set()

    def visit(one: str) -> Iterator[str]:
        if one in done or one not in schema.relations:
            return
        done.add(one)
        relation = schema.relations[one]
        for key in relation.foreign_keys:
            yield from visit(key.target)
        for child in relation.children:
            yield from visit(child)
        yield one

    for one in sorted(schema.reads(name)):
        yield from visit(one)


def _kinds(columns: Sequence[Column]) -> tuple[str, ...]:
    """Return the form of subjects that fits all columns which are compared with them."""
    if any(column.base == "uuid" or (column.element or {}).get("type") == "uuid" for column in columns):
        return ("uuid",)
    if any(column.category == "N" for column in columns):
        return ("number",)
    return ("text",)


def _set(claims: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        found = claims.setdefault(name, {})
        if not isinstance(found, dict):
            return
        claims = found
    claims[path[-1]] = value
