"""Reads the defaults of columns."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection

from sqla_rls.catalog.query import fetch_tuples, schemas_of, sql_file
from sqla_rls.snapshot import TableKey


def column_defaults(
    connection: Connection, *, default_schema: str, columns: Collection[tuple[TableKey, str]]
) -> dict[tuple[TableKey, str], str | None]:
    """Return the defaults of those of *columns* that exist; None stands for no default."""
    if not columns:
        return {}
    parameters = {
        "schemas": schemas_of((table for table, _ in columns), default_schema),
        "tables": [table.name for table, _ in columns],
        "columns": [column for _, column in columns],
    }
    rows = fetch_tuples(connection, sql_file("column_defaults"), parameters)
    return {
        (TableKey.of(schema, table, default_schema), column): default
        for schema, table, column, default in rows
    }
