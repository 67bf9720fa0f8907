"""The models' Snapshot: everything that their tables declare, as values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from sqlalchemy import ClauseElement, ColumnClause, ColumnElement, MetaData, Sequence, Table, TextClause
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import visitors
from sqlalchemy.sql.functions import next_value

from sqla_rls.ddl.compile import expression_text, literally
from sqla_rls.declare.copied import copies
from sqla_rls.declare.expressions import AuthFunction, auth_uid
from sqla_rls.declare.functions import FUNCTIONS
from sqla_rls.declare.grants import (
    DEFAULT_PRIVILEGES,
    GRANTS,
    REVOKES_PUBLIC_PRIVILEGES,
    ROLES,
    DefaultPrivileges,
    Grant,
    refuse_beyond_row_security,
)
from sqla_rls.declare.policies import READY_MADE, TableDeclarations, anonymous, as_roles, authenticated
from sqla_rls.declare.views import declared_views
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    CalledSequence,
    ObjectKey,
    Policy,
    PolicyKey,
    Privilege,
    Role,
    RowSecurity,
    SequenceKey,
    Snapshot,
    SQLFunction,
    TableKey,
    View,
    may_read,
    unless_default,
)


def declared(
    metadatas: Iterable[MetaData],
    *,
    default_schema: str | None = None,
    tables: Collection[Table] | None = None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
) -> Snapshot:
    """Everything that *metadatas* declare, or what *tables* of theirs do.

    A table in *default_schema* has the schema ``None`` in the Snapshot.  Raises DeclarationError for
    an expression that can't be a policy's.
    """
    metadatas = list(metadatas)
    if tables is None:
        tables = [table for metadata in metadatas for table in metadata.tables.values()]
    roles: list[Role | str] = []
    policies: dict[PolicyKey, Policy] = {}
    reads: dict[tuple[TableKey, str], set[Table]] = {}
    row_security: dict[TableKey, RowSecurity] = {}
    privileges: set[Privilege] = set()
    sequences: dict[bool, set[SequenceKey]] = {False: set(), True: set()}
    called_sequences: set[CalledSequence] = set()
    managed: set[TableKey] = set()
    sql_functions = {one.key: one for one in functions(metadatas, default_schema, schema_translate_map)}
    auth_functions = any(_may_ask_who_is_calling(one.body) for one in sql_functions.values())
    for table in tables:
        declarations = TableDeclarations.of(table)
        expressions: dict[int, ColumnElement[bool]] = {}
        pairs = [(item, *item.expressions(table, expressions)) for item in declarations.policies]
        auth_functions = auth_functions or _ask_who_is_calling(expressions.values(), _defaults(table))
        key = _key(table, default_schema)
        for sequence, identity in _serial_sequences(table, key):
            sequences[identity].add(sequence)
        if not declarations:
            continue
        managed.add(key)
        if declarations.row_security is not None:
            row_security[key] = replace(declarations.row_security, table=key)
        texts: dict[ColumnElement[bool], str] = {}
        beside = [one.table for one in declared_views([table.metadata])]
        beside += [one.name for one in table.metadata.info.get(FUNCTIONS, ()) if one.name is not None]
        for item, *pair in pairs:
            copied = copies(item.table, table, table.metadata, beside)
            for expression in pair:
                if expression is not None and expression not in texts:
                    read: set[Table] = set()
                    texts[expression] = expression_text(expression, table, schema_translate_map, copied, read)
                    if not _may_read(expression):
                        reads[key, texts[expression]] = read
            using, with_check = (None if expression is None else texts[expression] for expression in pair)
            policy = item.value(key, using, with_check)
            policies[policy.key] = policy
            roles += item.roles
        for granted in declarations.grants:
            privileges.update(granted.values(table, key))
            roles += granted.roles
        called_sequences.update(_called_sequences(table, key, default_schema))
    views: dict[TableKey, View] = {}
    for view in declared_views(metadatas):
        key = _key(view.table, default_schema)
        views[key] = view.value(key, schema_translate_map)
        auth_functions = auth_functions or (
            _may_ask_who_is_calling(view.query)
            if isinstance(view.query, str)
            else _ask_who_is_calling([view.query])
        )
        for granted in view.grants():
            privileges.update(granted.values(view.table, key))
            roles += granted.roles
    grants = grants_on(metadatas, default_schema)
    for one in grants:
        privileges.update(one.values())
        roles += one.roles
    defaults: list[DefaultPrivileges] = [
        entry for metadata in metadatas for entry in metadata.info.get(DEFAULT_PRIVILEGES, ())
    ]
    roles += [role for entry in defaults for role in entry.roles]
    roles += [role for metadata in metadatas for role in metadata.info.get(ROLES, ())]
    default_values = frozenset(one for entry in defaults for one in entry.values(default_schema))
    refuse_beyond_row_security(privileges | default_values, _named_by_policies(metadatas, tables))
    made = _roles(roles)
    if authenticated in roles:
        # They come as a pair: who is nobody in particular has a role, too, and may ask who is calling.
        made.setdefault(anonymous.name, anonymous)
        if auth_functions:
            privileges.add(Privilege("SCHEMA", None, AUTH_SCHEMA, anonymous.name, "USAGE"))
    # Every caller has their policies: a membership by hand would give every caller those of another role.
    for name in READY_MADE.keys() & made.keys():
        if made[name].member_of is None:
            made[name] = replace(made[name], member_of=())
    return Snapshot(
        roles=made,
        auth_functions=auth_functions,
        row_security=row_security,
        policies=policies,
        reads={
            on: {_key(table, default_schema) for table in _behind_views(read, metadatas)}
            for on, read in reads.items()
        },
        privileges=frozenset(privileges),
        default_privileges=default_values,
        functions=sql_functions,
        views=views,
        sequences=frozenset(sequences[False]),
        identity_sequences=frozenset(sequences[True]),
        called_sequences=frozenset(called_sequences),
        revokes_public_privileges=any(REVOKES_PUBLIC_PRIVILEGES in metadata.info for metadata in metadatas),
        managed=frozenset(managed),
        managed_objects=frozenset(one.object for one in grants if one.object.object_type != "SCHEMA")
        | {view.object for view in views.values()},
        managed_grantees=frozenset(
            (one.object, str(role))
            for one in grants
            if one.object.object_type == "SCHEMA"
            for role in one.roles
        ),
        managed_defaults=frozenset(
            (entry.object_type, str(role)) for entry in defaults for role in entry.roles
        ),
    )


def _named_by_policies(metadatas: Iterable[MetaData], tables: Collection[Table]) -> Iterator[Role | str]:
    """By those of *tables*, and of the tables beside them."""
    for metadata in {*metadatas, *(table.metadata for table in tables)}:
        for table in metadata.tables.values():
            for policy in TableDeclarations.of(table).policies:
                yield from policy.roles


def _roles(named: Iterable[Role | str]) -> dict[str, Role]:
    """The roles to make, what is said of each in several places taken together, and those they belong to."""
    found: dict[str, Role] = {}
    waiting = list(dict.fromkeys(named))
    for role in waiting:  # which grows
        if isinstance(role, Role):
            found[role.name] = _together(found.get(role.name, role), role)
            waiting += as_roles(role.member_of) if role.member_of else ()
    return found


def _together(one: Role, other: Role) -> Role:
    said: dict[str, Any] = {}
    for name in ("login", "inherit", "bypassrls", "member_of"):
        values = {getattr(role, name) for role in (one, other)} - {None}
        if len(values) > 1:
            raise DeclarationError(f"role {one.name!r} is declared twice, and {name}= differs")
        said[name] = next(iter(values), None)
    return Role(one.name, **said)


def grants_on(metadatas: Iterable[MetaData], default_schema: str | None) -> list[Grant]:
    """What is declared on sequences, functions and schemas; those in *default_schema* have none."""
    found: list[Grant] = []
    for metadata in metadatas:
        found += metadata.info.get(GRANTS, ())
        found += [
            Grant(ObjectKey("FUNCTION", *one.key), one.roles, ["EXECUTE"], False)
            for one in metadata.info.get(FUNCTIONS, ())
        ]
    return [
        one._replace(object=one.object._replace(schema=unless_default(one.object.schema, default_schema)))
        for one in found
    ]


def function_keys(metadatas: Iterable[MetaData]) -> list[TableKey]:
    """The names of the declared functions."""
    return [one.key for metadata in metadatas for one in metadata.info.get(FUNCTIONS, ())]


def functions(
    metadatas: Iterable[MetaData],
    default_schema: str | None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
) -> list[SQLFunction]:
    """Those in *default_schema* have none."""
    found = [one for metadata in metadatas for one in metadata.info.get(FUNCTIONS, ())]
    values = [one.value(schema_translate_map) for one in found]
    return [replace(one, schema=unless_default(one.schema, default_schema)) for one in values]


def _key(table: Table, default_schema: str | None) -> TableKey:
    return TableKey.of(table.schema, table.name, default_schema)


def _may_ask_who_is_calling(sql: str) -> bool:
    """Whether the SQL text *sql* calls a function: of schema ``auth``, or one that calls these."""
    return "(" in sql


def _may_read(expression: ColumnElement[bool]) -> bool:
    """Whether SQL text in *expression* may read tables, which only Postgres knows."""
    return any(
        (isinstance(element, TextClause) and may_read(element.text))
        or (isinstance(element, ColumnClause) and element.is_literal and may_read(element.name))
        for element in visitors.iterate(expression)
    )


def _behind_views(tables: Iterable[Table], metadatas: Iterable[MetaData]) -> Iterator[Table]:
    """*tables*, where those that a view reads as its reader stand in its place.

    What a view reads as its owner is left out: other policies hold for the owner, if any.
    """
    views = {view.table: view for view in declared_views(metadatas)}
    found = list(tables)
    for table in found:  # which grows
        if (view := views.get(table)) is None:
            yield table
        elif view.security_invoker:
            found += [one for one in view.reads() if one not in found]


def _ask_who_is_calling(*expressions: Iterable[Any]) -> bool:
    """Whether any of *expressions* calls a function of schema ``auth``, as SQL text may."""
    return any(
        isinstance(element, AuthFunction | auth_uid)
        or (isinstance(element, TextClause) and _may_ask_who_is_calling(element.text))
        or (
            isinstance(element, ColumnClause) and element.is_literal and _may_ask_who_is_calling(element.name)
        )
        for expression in chain(*expressions)
        if isinstance(expression, visitors.ExternallyTraversible)
        for element in visitors.iterate(expression)
    )


def _defaults(table: Table) -> list[Any]:
    return [getattr(column.server_default, "arg", None) for column in table.columns]


def _serial_sequences(table: Table, key: TableKey) -> Iterator[tuple[SequenceKey, bool]]:
    """The sequences that columns of *table* own, and whether it is one of an identity column."""
    for column in table.columns:
        default: Any = column.default
        is_made_by_default = default is not None and not (isinstance(default, Sequence) and default.optional)
        # SQLAlchemy writes SERIAL, also where a reflected column has a default.
        if column.identity or (column is table.autoincrement_column and not is_made_by_default):
            yield SequenceKey(*key, column.name), column.identity is not None


def _called_sequences(table: Table, key: TableKey, default_schema: str | None) -> Iterator[CalledSequence]:
    """The sequences that defaults call, of the database or of SQLAlchemy."""
    for column in table.columns:
        default: Any = column.default
        if isinstance(default, Sequence):
            found = [] if default.optional else [default]
        else:
            expressions = [getattr(one, "arg", None) for one in (default, column.server_default)]
            found = [
                element.sequence
                for expression in expressions
                if isinstance(expression, visitors.ExternallyTraversible)
                for element in visitors.iterate(expression)
                if isinstance(element, next_value)
            ]
        for one in found:
            yield CalledSequence(key, SequenceKey(*TableKey.of(one.schema, one.name, default_schema)))
        server_default: Any = getattr(column.server_default, "arg", None)
        if not found and isinstance(server_default, ClauseElement):
            # One that can't be written makes Alembic and create_all() fail.
            with suppress(CompileError):
                default_text = str(server_default.compile(**literally(None)))
                # Postgres knows which it is; a text without the word calls none.
                if "nextval" in default_text.lower():
                    yield CalledSequence(key, SequenceKey(*key, column.name), default_text)
