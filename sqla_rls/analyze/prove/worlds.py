"""The rows of a world for a test in Python, and a record of what a test reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from types import CodeType, FunctionType
from typing import Any, Final
from uuid import UUID

from sqla_rls.analyze.intent import Row
from sqla_rls.analyze.vocabulary import Constant
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.caller import Caller

_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "uuid": UUID,
    "date": date.fromisoformat,
    "timestamp with time zone": datetime.fromisoformat,
    "timestamp without time zone": datetime.fromisoformat,
    "time without time zone": time.fromisoformat,
}


def as_row(relation: Relation, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON *values* as objects of Python."""
    return {name: _as_value(relation, name, value) for name, value in values.items()}


def _as_value(relation: Relation, name: str, value: Any) -> Any:
    column = relation.columns.get(name)
    reader = None if column is None else _READERS.get(column.base)
    if reader is not None and isinstance(value, str):
        # "infinity" stays text.
        with suppress(ValueError):
            return reader(value)
    return value


def caller_of(actor: Actor) -> Caller | None:
    """Return the caller; None if no token can have such claims."""
    claims = dict(actor.claims or {})
    subject = claims.get("sub")
    if subject is not None and not isinstance(subject, str):
        return None
    try:
        return Caller(role=actor.role, subject=subject, claims=claims)
    except DeclarationError:
        return None


class Tables(Mapping[str, Sequence[Row]]):
    """The rows of a world; a name may lack the schema, if it is the default one or no other has the table."""

    def __init__(
        self,
        schema: Schema,
        rows: Mapping[str, Sequence[Row]],
        *,
        default_schema: str = "public",
        noted: Callable[[str], None] | None = None,
    ) -> None:
        self._schema, self._rows, self._noted = schema, rows, noted
        self._default_schema = default_schema

    def __getitem__(self, name: str) -> Sequence[Row]:
        relation = self._find(name)
        if self._noted is not None:
            self._noted(relation.name)
        return self._rows.get(relation.name, ())

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _find(self, name: str) -> Relation:
        relations = self._schema.relations
        if name in relations:
            return relations[name]
        found = [one for one in relations.values() if name in (f"{one.schema}.{one.relname}", one.relname)]
        best = [one for one in found if one.schema == self._default_schema] or found
        if len(best) != 1:
            raise KeyError(name)
        return best[0]


class NotedRow(Mapping[str, Any]):
    """A row that notes which columns are read."""

    def __init__(self, values: Mapping[str, Any], noted: Callable[[str], None]) -> None:
        self._values, self._noted = values, noted

    def __getitem__(self, name: str) -> Any:
        self._noted(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class NotedClaims(Mapping[str, Any]):
    """Claims that note the paths that are read."""

    def __init__(
        self, values: Mapping[str, Any], noted: Callable[[tuple[str, ...]], None], path: tuple[str, ...] = ()
    ) -> None:
        self._values, self._noted, self._path = values, noted, path

    def __getitem__(self, name: str) -> Any:
        path = (*self._path, name)
        if path != ("sub",):
            self._noted(path)
        value = self._values[name]
        return NotedClaims(value, self._noted, path) if isinstance(value, Mapping) else value

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def constants_of(test: Any) -> list[Constant]:
    """Return the constants in the code of *test*, and in that of the functions that it calls."""
    found: dict[Constant, None] = {}
    seen: set[int] = set()

    def visit(value: Any, depth: int) -> None:
        if id(value) in seen or depth > 6:
            return
        seen.add(id(value))
        if isinstance(value, bool | bytes) or value is None:
            return
        if isinstance(value, str):
            found[Constant("text", value)] = None
        elif isinstance(value, int | float):
            found[Constant("number", str(value))] = None
        elif isinstance(value, tuple | list | frozenset | set):
            for one in sorted(value, key=repr):
                visit(one, depth + 1)
        elif isinstance(value, CodeType):
            for one in value.co_consts:
                visit(one, depth + 1)
        elif isinstance(value, FunctionType):
            visit(value.__code__, depth + 1)
            for cell in value.__closure__ or ():
                with suppress(ValueError):
                    visit(cell.cell_contents, depth + 1)
            for name in value.__code__.co_names:
                named = value.__globals__.get(name)
                if isinstance(named, str | int | float | tuple | frozenset | FunctionType):
                    visit(named, depth + 1)
        elif hasattr(value, "test"):
            visit(value.test, depth + 1)

    visit(test, 0)
    return list(found)
