"""Reads the functions and views that roles may use."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection

from sqla_rls.catalog.query import fetch_rows, sql_file
from sqla_rls.snapshot import TableKey


class GrantedObject(NamedTuple):
    kind: str  # function or view
    key: TableKey


def granted_functions_and_views(
    connection: Connection, schemas: Collection[str], roles: Collection[str], *, default_schema: str
) -> list[GrantedObject]:
    """Return the functions and views in *schemas* that *roles* may use, except functions for PUBLIC."""
    asked = {"schemas": list(schemas), "roles": list(roles)}
    return [
        GrantedObject(row["kind"], TableKey.of(row["nspname"], row["name"], default_schema))
        for row in fetch_rows(connection, sql_file("granted_functions_and_views"), asked)
    ]
