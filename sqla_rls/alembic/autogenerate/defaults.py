"""Removes changes between equal defaults that Alembic detects, and finds changes that it doesn't look for.

Alembic evaluates ``old = new``.  In a migration there is no caller: a default that calls an auth function is
NULL, and so is the comparison.  By default, Alembic compares the defaults of existing columns not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from alembic.operations import MigrateOperation, ops
from sqlalchemy import Connection, DefaultClause, Table, text

from sqla_rls.alembic.autogenerate.read import Context
from sqla_rls.catalog.defaults import column_defaults
from sqla_rls.catalog.query import trying
from sqla_rls.ddl.compile import literally
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import AUTH_SCHEMA

log = autogenerate_log(__name__)

_SPELLING = text("SELECT pg_catalog.pg_get_viewdef('pg_temp.sqla_rls_default'::regclass)")


@dataclass(frozen=True, slots=True)
class _Spellings:
    """How Postgres spells defaults; tables of an application share a few of them."""

    connection: Connection
    _known: dict[str, str | None] = field(default_factory=dict[str, str | None])

    def are_equal(self, column: str, one: str | None, other: str | None) -> bool:
        """Return whether two defaults that ask for the caller are equal."""
        if not (_asks_for_the_caller(one) and _asks_for_the_caller(other)):
            return False
        if one == other:
            return True
        spelled = self._of(column, one)
        return spelled is not None and spelled == self._of(column, other)

    def _of(self, column: str, sql: str) -> str | None:
        if sql not in self._known:
            self._known[sql] = None
            with trying(self.connection, f"the default of {column} counts as changed"):
                self.connection.exec_driver_sql(
                    f"CREATE OR REPLACE TEMPORARY VIEW sqla_rls_default (value) AS SELECT ({sql})::text"
                )
                self._known[sql] = self.connection.scalar(_SPELLING)
        return self._known[sql]


def without_equal_defaults(
    connection: Connection, operations: list[MigrateOperation]
) -> list[MigrateOperation]:
    """Return *operations* without changes between equal defaults."""
    return _without_equal(_Spellings(connection), operations)


def _without_equal(spellings: _Spellings, operations: list[MigrateOperation]) -> list[MigrateOperation]:
    kept: list[MigrateOperation] = []
    for operation in operations:
        if isinstance(operation, ops.AlterColumnOp) and spellings.are_equal(
            operation.column_name,
            _sql(operation.existing_server_default),
            _sql(operation.modify_server_default),
        ):
            operation.modify_server_default = False
            if not operation.has_changes():
                continue
        if isinstance(operation, ops.ModifyTableOps):
            operation.ops = _without_equal(spellings, list(operation.ops))
            if not operation.ops:
                continue
        kept.append(operation)
    return kept


def _asks_for_the_caller(sql: str | None) -> TypeGuard[str]:
    return sql is not None and f"{AUTH_SCHEMA}." in sql


def uncompared_defaults(context: Context, tables: Iterable[Table]) -> list[str]:
    """Return the existing columns whose declared default asks for the caller, and whose default is another.

    Without ``compare_server_default`` in env.py, Alembic leaves them as they are.
    """
    if context.autogen_context.opts.get("compare_server_default", False) is not False:
        return []
    declared = {
        (key, column.name): (f"{table.fullname}.{column.name}", sql)
        for table in tables
        if (key := context.key(table)) not in context.tables.created
        for column in table.columns
        if _asks_for_the_caller(sql := _sql(column.server_default))
    }
    live = column_defaults(context.connection, default_schema=context.default_schema, columns=list(declared))
    spellings = _Spellings(context.connection)
    return [
        name
        for key, (name, sql) in declared.items()
        if key in live and not spellings.are_equal(name, live[key], sql)
    ]


def say_which_defaults_stay(columns: Iterable[str]) -> None:
    """Log a warning for columns whose default Alembic doesn't compare."""
    if names := ", ".join(columns):
        log.warning(
            "autogenerate leaves the default of %s as it is: the model has a default that asks for the "
            "caller, the database has another or none, and env.py doesn't compare defaults. Set "
            "compare_server_default=True in context.configure() of env.py",
            names,
        )


def _sql(default: Any) -> str | None:
    """Return the SQL of a default; None unless it is an expression."""
    argument = default.arg if isinstance(default, DefaultClause) else None
    if argument is None or isinstance(argument, str):
        return None
    return str(argument.compile(**literally(None)))
