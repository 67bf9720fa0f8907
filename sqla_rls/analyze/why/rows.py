"""Rows of no table, seen by a caller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.why.acting import as_caller
from sqla_rls.analyze.why.explanation import Reason, Result
from sqla_rls.analyze.why.target import Target, first_line, is_of_server
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey


class Refused(Exception):
    """A new row that can't exist; the arguments are the reason and a sentence."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of *table*, as text of its own type: every type of a column survives that."""

    connection: Connection
    table: Target
    caller: Caller
    signing_key: SigningKey | None = field(repr=False)

    def as_caller(self) -> AbstractContextManager[None]:
        """Inside, the transaction is the caller's."""
        return as_caller(self.connection, self.caller, self.signing_key)

    def fetch(self, key: Any) -> str | None:
        """Return the row with *key*; None if there is none."""
        wanted = self._key(key)
        # Of the table's own type, as the values of a new row: arrays, ranges and composite values survive.
        record = f"jsonb_populate_record(CAST(NULL AS {self.table.name}), CAST(:key AS pg_catalog.jsonb))"
        conditions = []
        for name, value in wanted.items():
            quoted = self.table.column(name)["quoted"]
            matches = "IS NULL" if value is None else f"= (pg_catalog.{record}).{quoted}"
            conditions.append(text(without_parameters(f"t.{quoted} {matches}").replace("\\:key", ":key")))
        statement: Select[Any] = (
            select(literal_column("CAST((t.*) AS pg_catalog.text)"))
            .select_from(text(f"{without_parameters(self.table.name)} AS t"))
            .where(*conditions)
            .limit(2)
        )
        values = json.dumps({name: _as_json(value) for name, value in wanted.items()})
        try:
            found = self.connection.execute(statement, {"key": values}).scalars().all()
        except DBAPIError as error:
            if is_of_server(error):
                raise
            raise AnalysisError(
                f"the key doesn't fit table {self.table.name}: {first_line(error)}. Give values that the "
                "columns can hold, and compare"
            ) from None
        if len(found) > 1:
            raise AnalysisError(
                f"table {self.table.name} has several rows with this key: give more columns, as a mapping"
            )
        return found[0] if found else None

    def _key(self, key: Any) -> dict[str, Any]:
        if isinstance(key, Mapping) and key:
            return dict(key)
        columns = self.table.key
        is_array = len(columns) == 1 and self.table.columns[columns[0]]["type"].endswith("]")
        is_scalar = (
            is_array or not isinstance(key, Sequence) or isinstance(key, str | bytes | bytearray | memoryview)
        )
        values = [key] if is_scalar else list(key)
        if key is None or key == {} or not columns or len(columns) != len(values):
            named = ", ".join(columns) or "none"
            raise AnalysisError(
                f"the key doesn't fit the primary key of table {self.table.name} ({named}): give a mapping "
                "of columns to values"
            )
        return dict(zip(columns, values, strict=True))

    def new(self, old: str | None, row: Mapping[str, Any]) -> str:
        """Return the row with the values of *row*, which is *old* otherwise, or has the defaults.

        A default that draws a number from a sequence is NULL.

        Raises:
            Refused: a value breaks the constraints of its type, or the caller may not call the function of a
                default.
            AnalysisError: a column can't hold its value.
        """
        try:
            return self._new(old, row)
        except DBAPIError as error:
            sqlstate = str(getattr(error.orig, "sqlstate", ""))
            if is_of_server(error):
                raise
            if sqlstate.startswith("23") or sqlstate == "42501":
                reason: Reason = "missing_privilege" if sqlstate == "42501" else "constraint"
                raise Refused(reason, f"The new row can't be made: {first_line(error)}.") from None
            raise AnalysisError(
                f"the new row of table {self.table.name} can't be made: {first_line(error)}. Give values "
                "that the columns can hold"
            ) from None

    def _new(self, old: str | None, row: Mapping[str, Any]) -> str:
        given = {name: _as_json(value) for name, value in row.items()}
        if old is not None:
            with self.connection.begin_nested() as savepoint:
                made = self._generated(self._populated(f"({self.table.alias}.*)", old, given))
                savepoint.rollback()
            return made
        defaults = {
            name: column["default"]
            for name, column in self.table.columns.items()
            if column["default"] and not column["sequence"] and name not in given
        }
        with self.as_caller():
            return self._generated(self._populated(None, None, given, defaults))

    def _generated(self, row: str) -> str:
        columns = self.table.columns.items()
        generated = {name: column["generated"] for name, column in columns if column["generated"]}
        return self._populated(f"({self.table.alias}.*)", row, {}, generated) if generated else row

    def _populated(
        self,
        base: str | None,
        row: str | None,
        given: Mapping[str, Any],
        computed: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """The row *base* with the values that are *given*, and those of SQL expressions, as text."""
        record: ColumnElement[Any] = literal_column(base or f"CAST(NULL AS {self.table.name})")
        for name, expression in computed.items():
            pair = f"pg_catalog.jsonb_build_object({quoted_literal(name)}, {expression})"
            record = func.pg_catalog.jsonb_populate_record(record, literal_column(pair))
        values = cast(literal(json.dumps(given), Text), JSONB)
        record = func.pg_catalog.jsonb_populate_record(record, values)
        statement = select(cast(record, Text))
        if row is None:
            return str(self.connection.execute(statement).scalar_one())
        statement = statement.select_from(text(self.as_table()))
        return str(self.connection.execute(statement, {"row": row}).scalar_one())

    def as_table(self) -> str:
        """Return a FROM clause with the row of parameter ``row``, for ``text()``."""
        name, alias = without_parameters(self.table.name), without_parameters(self.table.alias)
        return f"pg_catalog.unnest(ARRAY[CAST(CAST(:row AS pg_catalog.text) AS {name})]) AS {alias}"

    def value(self, expression: str, row: str, *, any_value: bool = False) -> tuple[Result, str | None]:
        """Return the value of *expression* for the row, as the caller, or the text of an error."""
        shown = expression if any_value else f"CAST({expression} AS pg_catalog.text)"
        statement: Select[Any] = select(literal_column(shown)).select_from(text(self.as_table()))
        try:
            with self.as_caller():
                value = self.connection.execute(statement, {"row": row}).scalar_one()
        except DBAPIError as error:
            if is_of_server(error):
                raise
            return "error", first_line(error)
        result: Result = "null" if value is None else "true" if value == "true" else "false"
        return result, value


def quoted_literal(value: str) -> str:
    """Return *value* as a literal of SQL."""
    # standard_conforming_strings may be off.
    prefix = "E" if "\\" in value else ""
    return prefix + "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def without_parameters(name: str) -> str:
    """Return *name*, a name or other SQL, for ``text()``, to which a colon begins a parameter."""
    return name.replace(":", "\\:")


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        # JSON has neither NaN nor Infinity.
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(inner) for inner in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    return str(value)
