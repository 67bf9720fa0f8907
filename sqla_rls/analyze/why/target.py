"""The table that a question about access is of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from sqlalchemy import (
    JSON,
    ClauseElement,
    Column,
    Connection,
    Dialect,
    RowMapping,
    Table,
    TextClause,
    TypeDecorator,
    inspect,
    text,
)
from sqlalchemy.dialects.postgresql import Range
from sqlalchemy.exc import DBAPIError, NoInspectionAvailable
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.types import TypeEngine

from sqla_rls.ddl.script import with_parts
from sqla_rls.exc import AnalysisError

#: Queries that are parts of others.
_PARTS: Final = ("key_columns", "privileges_on_schema", "referenced_columns", "types_of_function")


@cache
def script(name: str) -> str:
    """Return the text of that name in sql/ with its parts."""
    found = (resources.files("sqla_rls.analyze") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    return with_parts(found, _PARTS, script)


@cache
def query(name: str) -> TextClause:
    """Return the query of that name in sql/."""
    return text(script(name))


def is_of_server(error: DBAPIError) -> bool:
    """Return whether the connection, a lock, a timeout or the server has failed, not a name or a value."""
    # PostgreSQL's appendix A: connection, rollback, resources, object in use, operator intervention, system.
    sqlstate = str(getattr(error.orig, "sqlstate", ""))
    return error.connection_invalidated or sqlstate[:2] in {"08", "40", "53", "55", "57", "58"}


def first_line(error: DBAPIError) -> str:
    """Return the message of the server."""
    return str(error.orig).partition("\n")[0]


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
    key = {
        column.name: as_bound(value, column.type, connection.dialect)
        for column, value in zip(mapper.primary_key, found.identity or (), strict=False)
    }
    columns = mapper.columns
    row = {
        column.name: as_bound(found.dict[name], column.type, connection.dialect)
        for name, column in columns.items()
        if inserts and name in found.dict and isinstance(column, Column) and column.computed is None
    }
    return quote(mapper.local_table), key or None, row


def as_bound(value: Any, type_: TypeEngine[Any], dialect: Dialect) -> Any:
    """Return *value* as its type gives it to the driver, or as JSON has it."""
    if isinstance(value, ClauseElement):
        raise AnalysisError(
            "the row can't be explained: it has a SQL expression, and its value is unknown. Give a value"
        )
    if isinstance(type_, TypeDecorator):
        return as_bound(type_.process_bind_param(value, dialect), type_.impl_instance, dialect)
    if value is None or isinstance(type_, JSON) or isinstance(value, Range):
        return value
    process = type_.dialect_impl(dialect).bind_processor(dialect)
    return value if process is None else process(value)


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
        try:
            with connection.begin_nested():
                found = connection.execute(query("target"), {"name": name}).mappings().one_or_none()
        except DBAPIError as error:
            if is_of_server(error):
                raise
            raise AnalysisError(
                f"table {name} can't be explained: {first_line(error)}. Give the name of a table as in SQL"
            ) from None
        if found is None:
            raise AnalysisError(f"table {name} can't be explained: the database has no such table")
        if found["kind"] not in ("r", "p"):
            raise AnalysisError(f"{found['name']} can't be explained: {_not_a_table(connection, found)}")
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
        """The columns of the primary key, in its order."""
        places = {name: column["key_place"] for name, column in self.columns.items()}
        return sorted((name for name, place in places.items() if place is not None), key=places.__getitem__)

    def column(self, name: str) -> dict[str, Any]:
        """Return the column *name*; raise AnalysisError if the table has none."""
        if name not in self.columns:
            raise AnalysisError(
                f"table {self.name} has no column {name!r}. Give one of {', '.join(self.columns) or 'none'}"
            )
        return self.columns[name]


def _not_a_table(connection: Connection, found: RowMapping) -> str:
    """Why the relation has no policies, and which ones count instead."""
    if found["kind"] == "f":
        return "it is a foreign table, which can't have policies. Its privileges decide: compare its grants"
    if found["kind"] not in ("v", "m"):
        return "it is no table. Give the name of a table"
    read = connection.scalar(query("relations_read"), {"oid": found["oid"]})
    if found["kind"] == "m":
        return (
            f"it is a materialized view, a copy of rows of {read}, and has no policies. A role with "
            "SELECT reads all of the copy: compare its grants"
        )
    if found["is_invoker"]:
        return (
            f"it is a view with security_invoker, and has no policies. It reads {read}, with the rights of "
            "the caller. Ask for the tables that it reads"
        )
    return (
        f"it is a view without security_invoker, and has no policies. It reads {read}, with the rights of "
        f"its owner. Ask for the tables that it reads, as role {found['owner']!r} with the caller's claims"
    )
