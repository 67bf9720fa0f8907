"""The first step: read the database and the declarations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from alembic.operations import ops
from sqlalchemy import Connection, MetaData, Table

from sqla_rls.alembic.autogenerate.filters import Filters
from sqla_rls.alembic.autogenerate.history import History, history
from sqla_rls.alembic.autogenerate.tables import ColumnKey, TableChanges, defaults_in, is_included, key_of
from sqla_rls.catalog.dependencies import calling_policies, dependent_policies
from sqla_rls.catalog.functions import Functions, read_functions
from sqla_rls.catalog.granted import GrantedObject, granted_functions_and_views
from sqla_rls.catalog.read import DatabaseSnapshot, policies_on, reading_database, row_security_of
from sqla_rls.catalog.reads import with_reads_of_text
from sqla_rls.catalog.views import (
    PastRowSecurity,
    Views,
    read_views,
    triggers_and_rules,
    views_past_row_security,
)
from sqla_rls.declare.collect import declared, functions, grants_on
from sqla_rls.declare.ignore import Ignored
from sqla_rls.declare.policies_only import tables_with_policies_only
from sqla_rls.declare.views import declared_views
from sqla_rls.diff.functions import FunctionChange, diff_functions, recreated_functions
from sqla_rls.diff.views import ViewChanges, diff_views
from sqla_rls.snapshot import (
    PUBLIC,
    ObjectKey,
    Policy,
    PolicyKey,
    Snapshot,
    SQLFunction,
    TableKey,
    named_by,
    unless_default,
)


class Context(NamedTuple):
    """The subject of one comparison."""

    connection: Connection
    default_schema: str
    metadatas: list[MetaData]
    ignored: Ignored
    filters: Filters
    #: The names of the compared schemas.
    schemas: list[str]
    #: The objects of earlier revisions; None without revisions.
    past: History | None
    #: The operations that Alembic itself has found.
    operations: list[ops.MigrateOperation]
    tables: TableChanges
    autogen_context: Any

    @classmethod
    def of(cls, autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: Iterable[str | None]) -> Context:
        default_schema = autogen_context.dialect.default_schema_name
        metadata = autogen_context.metadata
        metadatas = list(metadata) if isinstance(metadata, list | tuple) else [metadata]
        ignored = Ignored.by(metadatas)
        return cls(
            connection=autogen_context.connection,
            default_schema=default_schema,
            metadatas=metadatas,
            ignored=ignored,
            filters=Filters(autogen_context, ignored),
            schemas=[schema for one in schemas if not ignored.schema(schema := one or default_schema)],
            past=history(
                autogen_context.migration_context,
                default_schema,
                tables=(key_of(table, default_schema) for table in autogen_context.sorted_tables),
            ),
            operations=list(upgrade_ops.ops),
            tables=TableChanges.of(upgrade_ops.ops, default_schema),
            autogen_context=autogen_context,
        )

    def key(self, table: Table) -> TableKey:
        return key_of(table, self.default_schema)

    def is_compared(self, schema: str) -> bool:
        name = unless_default(schema, self.default_schema)
        return not self.ignored.schema(schema) and self.autogen_context.run_name_filters(name, "schema", {})

    def compared_tables(self, live: Collection[TableKey]) -> list[Table]:
        """Return the tables of the models that this migration creates, or that are *live* and included."""
        return [
            table
            for table in self.autogen_context.sorted_tables
            if (key := self.key(table)) in self.tables.created
            or (key in live and is_included(self.autogen_context, table, key))
        ]

    def made(self) -> set[tuple[str, TableKey]]:
        """Return the kinds and keys of the functions and views that revisions created."""
        by_kind = (("function", self.past.functions), ("view", self.past.views)) if self.past else ()
        return {
            (kind, key)
            for kind, keys in by_kind
            for key in keys
            if not self.ignored.schema(key.schema or self.default_schema)
        }

    def made_in_schemas(self, kind: str) -> set[TableKey]:
        """Return the keys of one kind in the compared schemas."""
        return {
            key
            for one, key in self.made()
            if one == kind and (key.schema or self.default_schema) in self.schemas
        }


class Dependents(NamedTuple):
    """The policies that depend on dropped objects, and those that depend on altered objects."""

    dropped: Mapping[PolicyKey, Policy]
    recreated: Mapping[PolicyKey, Policy]

    def __contains__(self, key: object) -> bool:
        return key in self.dropped or key in self.recreated

    @property
    def keys(self) -> set[PolicyKey]:
        return {*self.dropped, *self.recreated}


class Read(NamedTuple):
    """The database and the declarations, before Postgres has compared them."""

    live: DatabaseSnapshot
    declared: Snapshot
    #: The tables of the models that are compared.
    tables: list[Table]
    #: The tables of other programs whose declared policies are compared.
    policies_only: frozenset[TableKey]
    functions: Functions
    function_changes: list[FunctionChange]
    views: Views
    view_changes: ViewChanges
    #: The triggers and rules of the views that the migration drops and creates again.
    lost_with_views: Mapping[TableKey, list[str]]
    dependents: Dependents
    past_row_security: list[PastRowSecurity]
    unmanaged: list[GrantedObject]

    @property
    def recreated(self) -> set[ObjectKey]:
        """The objects that the migration drops or creates, so that their privileges are lost."""
        return recreated_functions(self.function_changes) | self.view_changes.recreated


def read(context: Context) -> Read:
    connection, filters, default_schema = context.connection, context.filters, context.default_schema
    all_functions = functions(context.metadatas, default_schema)
    included = [one for one in all_functions if filters.function(one.key, declared=True)]
    found = read_functions(
        connection,
        included,
        default_schema=default_schema,
        made={key for key in context.made_in_schemas("function") if filters.function(key, declared=False)},
        defaults=lambda: list(defaults_in(context.operations)),
        dropped=[column or table.name for table, column in context.tables.dropped_columns],
    )
    function_changes = diff_functions(found.live, found.declared)
    others = _tables_with_policies_only(context)
    with reading_database(
        connection,
        default_schema=default_schema,
        schemas=context.schemas,
        # The grants on other objects than tables are known without the tables.
        objects=[*(one.object for one in grants_on(context.metadatas, default_schema)), *found.objects],
        is_compared=context.is_compared,
    ) as reading:
        tables = context.compared_tables(reading.tables)
        wanted = _declared(context, tables, all_functions, included, others)
        live = reading.snapshot()
    live = _with_policies_only(context, live, wanted, others)
    views = read_views(
        connection,
        wanted.views,
        made={key for key in context.made_in_schemas("view") if filters.view(key)},
        default_schema=default_schema,
        columns=context.tables.dropped_columns | context.tables.retyped_columns,
        functions=recreated_functions(function_changes),
        grown=context.tables.grown,
    )
    view_changes = diff_views(views.live, views.declared, views.recreated)
    return Read(
        live=live,
        declared=with_reads_of_text(connection, wanted, live.row_security, default_schema=default_schema),
        tables=tables,
        policies_only=frozenset(map(context.key, others)),
        functions=found,
        function_changes=function_changes,
        views=views,
        view_changes=view_changes,
        lost_with_views=triggers_and_rules(
            connection,
            [one.after.key for one in view_changes.created if one.before is not None and not one.replaces],
            default_schema=default_schema,
        ),
        dependents=Dependents(*_dependents(context, function_changes, views, view_changes)),
        past_row_security=views_past_row_security(
            connection,
            {key for key in live.all_views - {*wanted.views, *views.live} if filters.view(key)},
            default_schema=default_schema,
        ),
        unmanaged=list(_unmanaged(context, wanted, found, views)),
    )


def _declared(
    context: Context,
    tables: list[Table],
    all_functions: Collection[SQLFunction],
    included: Collection[SQLFunction],
    policies_only: Collection[Table],
) -> Snapshot:
    """Return the declarations, without the objects that env.py excludes."""
    default_schema = context.default_schema
    wanted = declared(
        context.metadatas, default_schema=default_schema, tables=tables, policies_only=policies_only
    )
    context.ignored.refuse(wanted, default_schema)
    left_out = {ObjectKey("FUNCTION", *one.key) for one in all_functions if one not in included}
    left_out |= {
        ObjectKey("TABLE", *key)
        for view in declared_views(context.metadatas)
        if not context.filters.view(key := context.key(view.table), declared=view.table)
    }
    return wanted.without(left_out)


def _tables_with_policies_only(context: Context) -> list[Table]:
    """Return the tables of other programs that the database has, and on which policies are declared."""
    tables = tables_with_policies_only(context.metadatas)
    there = row_security_of(context.connection, map(context.key, tables), context.default_schema)
    return [table for table in tables if context.key(table) in there]


def _with_policies_only(
    context: Context, live: DatabaseSnapshot, wanted: Snapshot, tables: Collection[Table]
) -> DatabaseSnapshot:
    """Return *live* with the policies on *tables* that are declared, or that a revision has created."""
    keys = [context.key(table) for table in tables]
    if not keys:
        return live
    made = context.past.protection(context.default_schema) if context.past else ()
    ours = {*wanted.policies, *(PolicyKey(table, name) for kind, table, name in made if name is not None)}
    found = policies_on(context.connection, keys, context.default_schema)
    return replace(
        live,
        row_security={
            **live.row_security,
            **row_security_of(context.connection, keys, context.default_schema),
        },
        policies={**live.policies, **{one.key: one for one in found if one.key in ours}},
    )


def _dependents(
    context: Context,
    function_changes: Collection[FunctionChange],
    views: Views,
    view_changes: ViewChanges,
) -> Iterator[dict[PolicyKey, Policy]]:
    functions = recreated_functions(function_changes)
    again = functions & {ObjectKey("FUNCTION", *change.key) for change in function_changes if change.after}
    gone_views: set[ColumnKey] = {(view.key, None) for view in view_changes.gone}
    recreated_views: set[ColumnKey] = {(key, None) for key in views.recreated}
    for columns, called in (
        (context.tables.dropped_columns | gone_views, functions - again),
        (context.tables.retyped_columns | recreated_views, again),
    ):
        policies = (
            *dependent_policies(context.connection, default_schema=context.default_schema, columns=columns),
            *calling_policies(context.connection, default_schema=context.default_schema, functions=called),
        )
        yield {policy.key: policy for policy in policies}


def _unmanaged(
    context: Context, wanted: Snapshot, functions: Functions, views: Views
) -> Iterator[GrantedObject]:
    """Yield the undeclared functions and views that roles of the models or the revisions may use."""
    made = context.made()
    roles = {
        *(context.past.roles if context.past else ()),
        *wanted.roles,
        *named_by(wanted.policies.values()),
        *(one.grantee for one in wanted.privileges),
    } - {PUBLIC}
    known = {
        *(("function", key) for key in (*functions.live, *wanted.functions)),
        *(("view", key) for key in (*views.live, *wanted.views)),
        *(
            ("function", TableKey(one.schema, one.name.partition("(")[0]))
            for one in wanted.managed_objects
            if one.object_type == "FUNCTION"
        ),
    }
    schemas = {*context.schemas, *(key.schema or context.default_schema for _, key in made)}
    for found in granted_functions_and_views(
        context.connection, sorted(schemas), sorted(roles), default_schema=context.default_schema
    ):
        is_compared = (found.key.schema or context.default_schema) in context.schemas
        if (found.kind, found.key) in known or not (is_compared or (found.kind, found.key) in made):
            continue
        filters = context.filters
        if filters.view(found.key) if found.kind == "view" else filters.function(found.key, declared=False):
            yield found
