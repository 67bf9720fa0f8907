"""The table that a question about access is of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sqlalchemy import Connection, Table, TextClause, inspect, text
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import InstanceState, Mapper

from sqla_rls.exc import AnalysisError


@cache
def script(name: str) -> str:
    """Return the text of that name in sql/."""
    return (resources.files("sqla_rls.analyze") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def query(name: str) -> TextClause:
    """Return the query of that name in sql/."""
    return text(script(name))


def resolve(connection: Connection, target: Any, *, inserts: bool) -> tuple[str, Any, dict[str, Any]]:
    """Return the name of the table as SQL, the key and the values that *target* has."""
    if isinstance(target, str):
        return target, None, {}
    quote = connection.dialect.identifier_preparer.format_table
    if isinstance(target, Table):
        return quote(target), None, {}
    try:
        found = inspect(target)
    except NoInspectionAvailable:
        found = None
    if isinstance(found, Mapper):
        return quote(found.local_table), None, {}
    if not isinstance(found, InstanceState):
        raise AnalysisError(f"{target!r} can't be explained: give an instance, a mapped class or a table")
    mapper: Mapper[Any] = found.mapper
    key = dict(zip((c.name for c in mapper.primary_key), found.identity or (), strict=False)) or None
    columns = mapper.columns
    row = {columns[name].name: value for name, value in found.dict.items() if inserts and name in columns}
    return quote(mapper.local_table), key, row


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A table as the catalog has it; the names are quoted."""

    oid: int
    name: str
    alias: str
    schema: str
    has_row_security: bool
    columns: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, connection: Connection, name: str) -> Target:
        """Read table *name*, of which the connection must see all rows."""
        found = connection.execute(query("target"), {"name": name}).mappings().one_or_none()
        if found is None:
            raise AnalysisError(f"table {name} can't be explained: the database has no such table")
        if found["kind"] not in ("r", "p"):
            raise AnalysisError(
                f"{found['name']} can't be explained: it isn't a table. Ask for the tables that it reads"
            )
        if found["hides_rows"]:
            raise AnalysisError(
                f"table {found['name']} can't be explained: row security hides its rows from this role. "
                "Connect as its owner, as a superuser or as a role with BYPASSRLS"
            )
        return cls(
            oid=found["oid"],
            name=found["name"],
            alias=found["alias"],
            schema=found["schema"],
            has_row_security=found["has_row_security"],
            columns={column["name"]: column for column in found["columns"]},
        )

    @property
    def key(self) -> list[str]:
        """The columns of the primary key."""
        return [name for name, column in self.columns.items() if column["is_key"]]

    def column(self, name: str) -> dict[str, Any]:
        """Return the column *name*; raise AnalysisError if the table has none."""
        if name not in self.columns:
            raise AnalysisError(
                f"table {self.name} has no column {name!r}. Give one of {', '.join(self.columns) or 'none'}"
            )
        return self.columns[name]
