"""The changes that Alembic's operations make to tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from alembic.operations import MigrateOperation, ops
from sqlalchemy import Column, Computed, Connection, Identity, MetaData, Table, Text, inspect
from sqlalchemy.schema import CreateIndex, CreateTable

from sqla_rls.ddl.compile import literally
from sqla_rls.declare.ignore import Ignored
from sqla_rls.snapshot import (
    SequenceKey,
    TableKey,
)

#: A column, None for the whole table.
ColumnKey: TypeAlias = tuple[TableKey, str | None]


def key_of(item: Any, default_schema: str) -> TableKey:
    """Return the key of a Table, or of the table of an operation."""
    name = item.name if isinstance(item, Table) else item.table_name
    return TableKey.of(item.schema, name, default_schema)


def is_included(autogen_context: Any, table: Table, key: TableKey) -> bool:
    parents = {"schema_name": key.schema}
    return bool(
        autogen_context.run_name_filters(table.name, "table", parents)
        and autogen_context.run_object_filters(table, table.name, "table", False, None)
    )


@dataclass(frozen=True, slots=True)
class TableChanges:
    """The changes of tables on which policies, views and functions may depend."""

    created: set[TableKey] = field(default_factory=set)
    dropped: set[TableKey] = field(default_factory=set)
    dropped_columns: set[ColumnKey] = field(default_factory=set)
    retyped_columns: set[ColumnKey] = field(default_factory=set)
    #: The columns that get a default, each as the key of a sequence, and whether the column is new.
    new_defaults: dict[SequenceKey, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, operations: Iterable[MigrateOperation], default_schema: str) -> TableChanges:
        changes = cls()
        changes._add(operations, default_schema)
        return changes

    @property
    def grown(self) -> set[TableKey]:
        """The tables that gain columns."""
        return {column.table for column, is_new in self.new_defaults.items() if is_new}

    def _add(self, operations: Iterable[MigrateOperation], default_schema: str) -> None:
        for operation in operations:
            if isinstance(operation, ops.ModifyTableOps):
                self._add(operation.ops, default_schema)
            elif isinstance(operation, ops.CreateTableOp):
                self.created.add(key_of(operation, default_schema))
            elif isinstance(operation, ops.DropTableOp):
                table = key_of(operation, default_schema)
                self.dropped.add(table)
                self.dropped_columns.add((table, None))
            elif isinstance(operation, ops.AddColumnOp):
                column = SequenceKey(*key_of(operation, default_schema), operation.column.name)
                self.new_defaults[column] = True
            elif isinstance(operation, ops.DropColumnOp):
                self.dropped_columns.add((key_of(operation, default_schema), operation.column_name))
            elif isinstance(operation, ops.AlterColumnOp):
                table = key_of(operation, default_schema)
                if operation.modify_type is not None:
                    self.retyped_columns.add((table, operation.column_name))
                if operation.modify_server_default is not False:
                    self.new_defaults[SequenceKey(*table, operation.column_name)] = False


def without_tables_of_others(
    connection: Connection, operations: Iterable[MigrateOperation], ignored: Ignored
) -> list[MigrateOperation]:
    """Return *operations* without those that create an existing table again, in an ignored schema.

    Alembic creates each table of the models in a schema that it doesn't read, such as ``auth.users``.
    """
    operations = list(operations)
    there = {
        (one.schema, one.table_name)
        for one in operations
        if isinstance(one, ops.CreateTableOp)
        and one.schema is not None
        and ignored.schema(one.schema)
        and inspect(connection).has_table(one.table_name, schema=one.schema)
    }
    return [
        one
        for one in operations
        if (getattr(one, "schema", None), getattr(one, "table_name", None)) not in there
    ]


def defaults_in(operations: Iterable[MigrateOperation]) -> Iterator[str]:
    """Yield SQL text with the calls in the columns, constraints and indexes of *operations*."""
    for operation in operations:
        table = Table("t", MetaData())
        if isinstance(operation, ops.ModifyTableOps):
            yield from defaults_in(operation.ops)
        elif isinstance(operation, ops.CreateTableOp):
            table = operation.to_table()
        elif isinstance(operation, ops.AddColumnOp):
            table.append_column(operation.column._copy())
        elif isinstance(operation, ops.AlterColumnOp) and operation.modify_server_default:
            default: Any = operation.modify_server_default
            computed = [default._copy()] if isinstance(default, Computed | Identity) else []
            said = None if computed else getattr(default, "arg", default)
            table.append_column(Column("c", Text, *computed, server_default=said))
        elif isinstance(operation, ops.CreateIndexOp):
            yield str(CreateIndex(operation.to_index()).compile(**literally(None)))
        yield str(CreateTable(table, include_foreign_key_constraints=[]).compile(**literally(None)))


def before_what_defaults_read(
    operations: list[MigrateOperation], functions: Collection[str]
) -> list[MigrateOperation]:
    """Return *operations* in an order in which the downgrade restores tables before columns that read them.

    ADD COLUMN calls the default at once, and the default may call one of *functions*, which reads a table.
    """
    if not functions:
        return operations
    columns = [
        operation
        for operation in operations
        if isinstance(operation, ops.ModifyTableOps)
        and any(
            name in text
            for one in operation.ops
            if isinstance(one, ops.DropColumnOp)
            for text in defaults_in([one.reverse()])
            for name in functions
        )
    ]
    others = [operation for operation in operations if operation not in columns]
    place = next((i for i, one in enumerate(others) if isinstance(one, ops.DropTableOp)), len(others))
    return [*others[:place], *columns, *others[place:]]
