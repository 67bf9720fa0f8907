"""Removes the changes of defaults that Alembic detects between equal expressions.

Alembic evaluates ``old = new``.  In a migration there is no caller: a default that calls an auth function is
NULL, and so is the comparison.
"""

from __future__ import annotations

from typing import Any

from alembic.operations import MigrateOperation, ops
from sqlalchemy import Connection, DefaultClause, text

from sqla_rls.catalog.query import trying
from sqla_rls.ddl.compile import literally
from sqla_rls.snapshot import AUTH_SCHEMA

_SPELLING = text("SELECT pg_catalog.pg_get_viewdef('pg_temp.sqla_rls_default'::regclass)")


def without_equal_defaults(
    connection: Connection, operations: list[MigrateOperation]
) -> list[MigrateOperation]:
    """Return *operations* without changes between equal defaults."""
    kept: list[MigrateOperation] = []
    for operation in operations:
        if isinstance(operation, ops.AlterColumnOp) and _is_equal(connection, operation):
            operation.modify_server_default = False
            if not operation.has_changes():
                continue
        if isinstance(operation, ops.ModifyTableOps):
            operation.ops = without_equal_defaults(connection, list(operation.ops))
            if not operation.ops:
                continue
        kept.append(operation)
    return kept


def _is_equal(connection: Connection, operation: ops.AlterColumnOp) -> bool:
    pair = [_sql(one) for one in (operation.existing_server_default, operation.modify_server_default)]
    if not all(one and f"{AUTH_SCHEMA}." in one for one in pair):
        return False
    spellings: list[str | None] = []
    with trying(connection, f"the default of {operation.column_name} counts as changed"):
        for sql in pair:
            connection.exec_driver_sql(
                f"CREATE OR REPLACE TEMPORARY VIEW sqla_rls_default (value) AS SELECT ({sql})::text"
            )
            spellings.append(connection.scalar(_SPELLING))
    return len(spellings) == len(pair) and spellings[0] == spellings[1]


def _sql(default: Any) -> str | None:
    """Return the SQL of a default; None unless it is an expression."""
    argument = default.arg if isinstance(default, DefaultClause) else None
    if argument is None or isinstance(argument, str):
        return None
    return str(argument.compile(**literally(None)))
