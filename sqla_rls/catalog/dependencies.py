"""Reads the policies that depend on columns, tables and functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection

from sqla_rls.catalog.query import fetch_tuples, schemas_of, sql_file
from sqla_rls.catalog.read import policies_of
from sqla_rls.snapshot import ObjectKey, Policy, PolicyKey, TableKey


def dependent_policies(
    connection: Connection, *, default_schema: str, columns: Iterable[tuple[TableKey, str | None]]
) -> list[Policy]:
    """Return the policies of all tables that depend on *columns*; None stands for the whole table."""
    listed = list(columns)
    if not listed:
        return []
    parameters = {
        "schemas": schemas_of((table for table, _ in listed), default_schema),
        "tables": [table.name for table, _ in listed],
        "columns": [column for _, column in listed],
    }
    return policies_of(fetch_tuples(connection, sql_file("dependent_policies"), parameters), default_schema)


def policies_on_every_column(
    connection: Connection, *, default_schema: str, tables: Collection[TableKey]
) -> set[PolicyKey]:
    """Return the policies of all tables that name every column of one of *tables*."""
    if not tables:
        return set()
    parameters = {
        "schemas": schemas_of(tables, default_schema),
        "tables": [table.name for table in tables],
    }
    rows = fetch_tuples(connection, sql_file("policies_on_every_column"), parameters)
    return {policy.key for policy in policies_of(rows, default_schema)}


def calling_policies(
    connection: Connection, *, default_schema: str, functions: Collection[ObjectKey]
) -> list[Policy]:
    """Return the policies of all tables that call one of *functions*."""
    if not functions:
        return []
    parameters = {
        "schemas": schemas_of(functions, default_schema),
        "functions": [one.name for one in functions],
    }
    return policies_of(fetch_tuples(connection, sql_file("calling_policies"), parameters), default_schema)
