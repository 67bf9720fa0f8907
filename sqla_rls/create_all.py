"""The declarations of tables in ``create_all()``, ``drop_all()`` and ``Table.create()``.

``schema_events.py`` calls it, on Postgres only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, MetaData, Table, inspect
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.ddl import SchemaGenerator

from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.catalog.query import pinned
from sqla_rls.catalog.read import default_privileges, heirs_in
from sqla_rls.catalog.reads import unread, with_reads_of_text
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.conditional import IfExists
from sqla_rls.ddl.errors import explained
from sqla_rls.ddl.functions import CreateFunction, DropFunction
from sqla_rls.ddl.policies import AlterRowSecurity, CreatePolicy, DropPolicy
from sqla_rls.ddl.privileges import AlterDefaultPrivileges, GrantOrRevoke, granted_together
from sqla_rls.ddl.public_privileges import PUBLIC_PRIVILEGE_NAMES, PublicPrivileges
from sqla_rls.ddl.roles import CreateRole
from sqla_rls.ddl.views import CreateView, DropView
from sqla_rls.declare.base import TableDeclarations
from sqla_rls.declare.collect import declared, function_keys
from sqla_rls.declare.ignore import Ignored
from sqla_rls.declare.views import declared_views
from sqla_rls.diff.circles import circles, explanation
from sqla_rls.diff.implied import wanted_privileges
from sqla_rls.diff.privileges import given_by_default
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    DEFAULT_SCHEMA,
    PUBLIC,
    DefaultPrivilege,
    ObjectKey,
    RowSecurity,
    Snapshot,
    TableKey,
    members_last,
)

log = autogenerate_log(__name__)


def prerequisites(snapshot: Snapshot) -> Iterable[ExecutableDDLElement]:
    """Yield the statements before the tables: privileges of PUBLIC, roles, and functions for column defaults.

    ``protection()`` creates a function whose arguments or result name a table, and checks all bodies.
    """
    if snapshot.revokes_public_privileges:
        yield PublicPrivileges(PUBLIC_PRIVILEGE_NAMES, revoke=True)
    for role in members_last(snapshot.roles):
        yield CreateRole(role)
    if snapshot.auth_functions:
        yield CreateAuthFunctions()
    for function in snapshot.functions.values():
        yield CreateFunction(function, if_possible=True, check_body=False)


def protection(
    snapshot: Snapshot,
    default_schema: str,
    translate: Mapping[str | None, str | None] | None = None,
    defaults: Collection[DefaultPrivilege] = (),
) -> Iterable[ExecutableDDLElement]:
    """Yield the statements after the tables: row security first, then policies, then privileges.

    Args:
        snapshot: the declarations.
        default_schema: the default schema.
        translate: a schema_translate_map, for the names of schemas themselves; SQLAlchemy translates those
            of tables.
        defaults: the default privileges of the database, whose effects are revoked.
    """

    def translated(schema: str) -> str:
        if schema == DEFAULT_SCHEMA:
            return default_schema
        return (translate or {}).get(schema, schema) or default_schema

    for row_security in snapshot.row_security.values():
        yield from _flags(row_security)
    for key, function in snapshot.functions.items():
        yield CreateFunction(function)
        yield GrantOrRevoke(
            ["EXECUTE"], key.name, [PUBLIC], object_type="FUNCTION", schema=key.schema, revoke=True
        )
    for view in snapshot.views.values():
        yield CreateView(view)
    for policy in snapshot.policies.values():
        yield CreatePolicy(policy)
    covered = snapshot.heirs_of(snapshot.managed)
    objects = {ObjectKey("TABLE", *table) for table in (*snapshot.managed, *covered)}
    objects |= snapshot.managed_objects
    sequences = {
        one
        for one in snapshot.sequences_of_columns
        if one.table in snapshot.managed or ObjectKey("SEQUENCE", *one.table) in objects
    }
    in_models = {
        one._replace(schema=schema)
        for one in defaults
        for schema in (
            [None] if one.schema is None else {found.schema or DEFAULT_SCHEMA for found in objects}
        )
        if schema is None or translated(schema) == one.schema
    }
    for one in granted_together(given_by_default(in_models, objects, sequences, DEFAULT_SCHEMA)):
        revoke = GrantOrRevoke(
            one.privileges,
            one.object.name,
            [one.grantee],
            object_type=one.object.object_type,
            schema=one.object.schema,
            columns=one.columns,
            revoke=True,
        )
        yield IfExists(revoke)
    wanted = wanted_privileges(snapshot, default_schema=DEFAULT_SCHEMA)
    for one in granted_together(wanted):
        yield GrantOrRevoke(
            one.privileges,
            translated(one.object.name) if one.object.object_type == "SCHEMA" else one.object.name,
            [one.grantee],
            object_type=one.object.object_type,
            schema=one.object.schema,
            columns=one.columns,
            option=one.grantable,
        )
    for default in sorted(snapshot.default_privileges, key=str):
        yield AlterDefaultPrivileges(
            [default.privilege],
            default.object_type,
            [default.grantee],
            schema=None if default.schema is None else translated(default.schema),
        )


def _flags(row_security: RowSecurity) -> Iterable[ExecutableDDLElement]:
    if row_security.enabled:
        yield AlterRowSecurity(row_security.table, "ENABLE")
    if row_security.forced:
        yield AlterRowSecurity(row_security.table, "FORCE")


def before_create(
    metadata: MetaData, connection: Connection, tables: Collection[Table] = (), **kw: Any
) -> None:
    if tables:
        _execute(connection, prerequisites(_declared([metadata], tables)))


def after_create(
    metadata: MetaData, connection: Connection, tables: Collection[Table] = (), **kw: Any
) -> None:
    if tables:
        _protect(connection, [metadata], tables)


def before_drop(
    metadata: MetaData, connection: Connection, tables: Collection[Table] = (), **kw: Any
) -> None:
    # DROP TABLE fails while a policy of another table, or a function, depends on the table.
    policies = declared([metadata], tables=tables).policies
    _execute(connection, (DropPolicy(key, if_exists=True) for key in policies))
    _execute(connection, (DropView(key, if_exists=True) for key in _views_of(metadata, tables)))
    found = function_keys([metadata])
    _execute(connection, (DropFunction(one, if_exists=True, if_possible=True) for one in found))


def after_drop(metadata: MetaData, connection: Connection, **kw: Any) -> None:
    found = function_keys([metadata])
    _execute(connection, (DropFunction(one, if_exists=True) for one in found))


def before_create_table(table: Table, connection: Connection, **kw: Any) -> None:
    # A migration creates the functions for column defaults with operations of its own.
    if TableDeclarations.of(table) or isinstance(kw.get("_ddl_runner"), SchemaGenerator):
        _execute(connection, prerequisites(_declared([], [table])))


def after_create_table(table: Table, connection: Connection, **kw: Any) -> None:
    _protect(connection, [], [table])


def _protect(connection: Connection, metadatas: list[MetaData], tables: Collection[Table]) -> None:
    # A mock connection has no options.
    options = connection.get_execution_options() if isinstance(connection, Connection) else {}
    translate = options.get("schema_translate_map")
    default_schema = (translate or {}).get(None) or connection.dialect.default_schema_name
    snapshot = _declared(metadatas, tables, translate)
    defaults: Collection[DefaultPrivilege] = ()
    if isinstance(connection, Connection):
        snapshot = _with_views(snapshot, set(_missing_views(connection, metadatas, translate or {})))
        ignored = Ignored.by({table.metadata for table in tables})
        found = ignored.without(Snapshot(default_privileges=default_privileges(connection)))
        defaults = found.default_privileges
        if defaults and not translate:
            schema = default_schema or "public"
            schemas = {table.schema or schema for table in snapshot.managed}
            found_heirs = heirs_in(connection, default_schema=schema, schemas=schemas)
            # The snapshot has no name for the default schema.
            snapshot = replace(snapshot, heirs=_as_named(found_heirs, snapshot.managed, schema))
    _execute(connection, protection(snapshot, default_schema or "public", translate, defaults))
    if isinstance(connection, Connection) and not translate and unread(snapshot):
        with pinned(connection):
            schema = default_schema or "public"
            snapshot = with_reads_of_text(connection, snapshot, snapshot.row_security, default_schema=schema)
    for circle in circles(snapshot):
        log.warning("%s", explanation(circle))


def _declared(
    metadatas: list[MetaData],
    tables: Collection[Table],
    translate: Mapping[str | None, str | None] | None = None,
) -> Snapshot:
    """Return the declarations of *tables*, without the ignored objects."""
    ignored = Ignored.by({*metadatas, *(table.metadata for table in tables)})
    return ignored.without(declared(metadatas, tables=tables, schema_translate_map=translate))


def _views_of(metadata: MetaData, tables: Collection[Table]) -> Iterable[TableKey]:
    """Return the views that read any of *tables*, each before the views that it reads."""
    taken = {table.key for table in tables}
    found: list[TableKey] = []
    for view in declared_views([metadata]) if taken else ():
        if view.is_of(taken):
            taken.add(view.table.key)
            found.append(_key(view.table))
    return reversed(found)


def _missing_views(
    connection: Connection, metadatas: list[MetaData], translate: Mapping[str | None, str | None]
) -> Iterator[TableKey]:
    """Yield the missing views whose tables and views exist, or are created before them."""
    made: set[TableKey] = set()

    def is_there(table: Table) -> bool:
        schema = translate.get(table.schema, table.schema)
        return _key(table) in made or inspect(connection).has_table(table.name, schema=schema)

    for view in declared_views(metadatas):
        if not is_there(view.table) and all(map(is_there, view.reads())):
            made.add(_key(view.table))
            yield _key(view.table)


def _with_views(snapshot: Snapshot, keys: Collection[TableKey]) -> Snapshot:
    """Return *snapshot* with the views of *keys* only, and without privileges on others."""
    others = {view.object for key, view in snapshot.views.items() if key not in keys}
    return replace(
        snapshot,
        views={key: view for key, view in snapshot.views.items() if key in keys},
        privileges=frozenset(one for one in snapshot.privileges if one.object not in others),
    )


def _as_named(
    heirs: Mapping[TableKey, Collection[TableKey]], tables: Collection[TableKey], default_schema: str
) -> dict[TableKey, Collection[TableKey]]:
    """Return *heirs* with the keys of *tables*, which may name the default schema."""
    named = {TableKey.of(*one, default_schema): one for one in tables}
    return {
        named.get(parent, parent): {named.get(one, one) for one in found} for parent, found in heirs.items()
    }


def _key(table: Table) -> TableKey:
    return TableKey(table.schema, table.name)


def _execute(connection: Connection, statements: Iterable[ExecutableDDLElement]) -> None:
    with explained():
        for statement in statements:
            connection.execute(statement)
            if isinstance(statement, CreateAuthFunctions) and isinstance(connection, Connection):
                for remark in auth_functions(connection).remarks():
                    log.warning("%s", remark)
