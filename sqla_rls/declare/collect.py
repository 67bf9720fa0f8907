"""Collects the declarations of models into a Snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, MetaData, Table

from sqla_rls.ddl.compile import expression_text
from sqla_rls.declare.base import TableDeclarations, anonymous, kept_on
from sqla_rls.declare.copies import copies
from sqla_rls.declare.default_privileges import DefaultPrivileges, RevokesPublicPrivileges
from sqla_rls.declare.expressions import auth_uid, text_on
from sqla_rls.declare.functions import DeclaredFunction
from sqla_rls.declare.grantable import refuse_beyond_row_security
from sqla_rls.declare.grants import Grant, grant
from sqla_rls.declare.ignore import Ignored
from sqla_rls.declare.policies import Policy as DeclaredPolicy
from sqla_rls.declare.policies import is_false
from sqla_rls.declare.policies_only import check_policies_only
from sqla_rls.declare.reading import behind_views, may_call_auth, may_read_tables, names_auth
from sqla_rls.declare.roles import brings_anonymous_along, roles_of_others, roles_to_make
from sqla_rls.declare.sequences import called_sequences, serial_sequences
from sqla_rls.declare.views import declared_views
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
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
    unless_default,
)

_T = TypeVar("_T")
_K = TypeVar("_K", TableKey, PolicyKey)


class _Models(NamedTuple):
    """The MetaData of the models, and how a connection names their schemas."""

    metadatas: list[MetaData]
    #: Those whose declarations count.
    tables: Collection[Table]
    default_schema: str | None
    schema_translate_map: Mapping[str | None, str | None] | None

    def key(self, table: Table) -> TableKey:
        return _key(table, self.default_schema)

    def all(self, kind: type[_T]) -> list[_T]:
        return kept_on(self.metadatas, kind)


class _DeclaredTable(NamedTuple):
    table: Table
    key: TableKey
    declarations: TableDeclarations
    #: Each with USING and WITH CHECK.
    policies: list[tuple[DeclaredPolicy, ColumnElement[bool] | None, ColumnElement[bool] | None]]


def declared(
    metadatas: Iterable[MetaData],
    *,
    default_schema: str | None = None,
    tables: Collection[Table] | None = None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    policies_only: Collection[Table] = (),
) -> Snapshot:
    """Return the declarations of *metadatas*, or those of some *tables*, as a Snapshot.

    A table in *default_schema* has the schema ``None`` in the Snapshot.  Of the tables *policies_only*, which
    belong to another program, the Snapshot has the policies, and nothing that these imply.

    Raises:
        DeclarationError: a policy can't have one of the expressions, or two different objects have one name.
    """
    metadatas = list(metadatas)
    if tables is None:
        tables = [table for metadata in metadatas for table in metadata.tables.values()]
    models = _Models(metadatas, tables, default_schema, schema_translate_map)
    sql_functions = {one.key: one for one in functions(metadatas, default_schema, schema_translate_map)}
    found = [_declared_table(table, models) for table in tables]
    others = [_declared_table(table, models) for table in policies_only]
    policies, reads = _policies([*found, *others], models)
    policies |= {
        key: replace(policy, imply_privileges=False)
        for one in others
        for key, policy in policies.items()
        if key.table == one.key
    }
    for one in others:
        check_policies_only(one.declarations)
    views = _views(models)
    grants = grants_on(metadatas, default_schema)
    default_values = frozenset(
        one for entry in models.all(DefaultPrivileges) for one in entry.values(default_schema)
    )
    privileges = _privileges(found, models, grants)
    refuse_beyond_row_security(privileges | default_values, _named_by_policies(models))
    named = list(_named_roles([*found, *others], models, grants))
    others_roles = roles_of_others(named)
    auth_functions = _calls_auth([*found, *others], sql_functions.values(), models)
    if auth_functions and brings_anonymous_along(named):
        privileges.add(Privilege("SCHEMA", None, AUTH_SCHEMA, anonymous.name, "USAGE"))
    sequences: dict[bool, set[SequenceKey]] = {False: set(), True: set()}
    for one in found:
        for sequence, is_identity in serial_sequences(one.table, one.key):
            sequences[is_identity].add(sequence)
    return Snapshot(
        roles=roles_to_make(named),
        auth_functions=auth_functions,
        row_security=_row_security(found),
        policies=policies,
        reads=reads,
        privileges=frozenset(privileges),
        default_privileges=default_values,
        functions=sql_functions,
        views=views,
        sequences=frozenset(sequences[False]),
        identity_sequences=frozenset(sequences[True]),
        roles_of_others=frozenset(others_roles),
        ungranted=frozenset(filter(Ignored.by(metadatas).role, others_roles)),
        called_sequences=frozenset(
            called
            for one in found
            if one.declarations
            for called in called_sequences(one.table, one.key, default_schema)
        ),
        revokes_public_privileges=bool(models.all(RevokesPublicPrivileges)),
        managed=frozenset(one.key for one in found if one.declarations),
        managed_objects=frozenset(one.object for one in grants if one.object.object_type != "SCHEMA")
        | {view.object for view in views.values()},
        managed_grantees=frozenset(
            (one.object, str(role))
            for one in grants
            if one.object.object_type == "SCHEMA"
            for role in one.roles
        ),
        managed_defaults=frozenset(
            (entry.object_type, str(role)) for entry in models.all(DefaultPrivileges) for role in entry.roles
        ),
    )


def _declared_table(table: Table, models: _Models) -> _DeclaredTable:
    declarations = TableDeclarations.of(table)
    expressions: dict[int, ColumnElement[bool]] = {}
    policies = [
        (policy, *policy.expressions(table, expressions)) for policy in declarations.of_type(DeclaredPolicy)
    ]
    return _DeclaredTable(table, models.key(table), declarations, policies)


def _row_security(tables: Iterable[_DeclaredTable]) -> dict[TableKey, RowSecurity]:
    return _by_key(
        (
            (one.key, flags)
            for one in tables
            if (flags := one.declarations.row_security_of(one.key)) is not None
        ),
        "row security of table",
    )


def _policies(
    tables: Iterable[_DeclaredTable], models: _Models
) -> tuple[dict[PolicyKey, Policy], dict[tuple[TableKey, str], Collection[TableKey]]]:
    """Return the policies, and the tables that the subqueries of each expression read."""
    found: list[tuple[PolicyKey, Policy]] = []
    reads: dict[tuple[TableKey, str], set[Table]] = {}
    for table, key, _, declared_policies in tables:
        texts: dict[object, str] = {}
        for item, *pair in declared_policies:
            for expression in pair:
                if expression is not None and (same := _as_key(expression)) not in texts:
                    texts[same], read = _text(expression, table, item.table, models)
                    if read is not None:
                        reads[key, texts[same]] = read
            policy = item.value(key, *(None if one is None else texts[_as_key(one)] for one in pair))
            if is_false(*pair):
                policy = replace(policy, imply_privileges=False)
            found.append((PolicyKey(key, policy.name), policy))
    return _by_key(found, "policy"), {
        on: {models.key(table) for table in behind_views(read, models.metadatas)} if read else frozenset()
        for on, read in reads.items()
    }


def _text(
    expression: ColumnElement[bool], table: Table, source: Table | None, models: _Models
) -> tuple[str, set[Table] | None]:
    """Return the SQL of *expression*, and the tables that its subqueries read; None if it may read others.

    Args:
        expression: the expression of a policy.
        table: the table of the policy.
        source: the table on which it was declared, of which *table* may be a copy.
        models: the models.
    """
    copied = _copied(source, table)
    as_usual = models.schema_translate_map is None and copied is None
    if as_usual and (usual := text_on(expression, table)) is not None:
        return usual, set()
    read: set[Table] = set()
    text = expression_text(expression, table, models.schema_translate_map, copied, read)
    return text, None if may_read_tables(expression) else read


def _copied(source: Table | None, table: Table) -> Callable[[Table], Table] | None:
    """Return a function that maps the tables of *source* to those of its copy *table*; None if it is none."""
    if source is None or source is table:
        return None
    beside = [one.table for one in declared_views([table.metadata])]
    beside += [one.name for one in kept_on([table.metadata], DeclaredFunction) if one.name is not None]
    return copies(source, table, table.metadata, beside)


def _as_key(expression: ColumnElement[bool]) -> object:
    """Return a key that expressions with equal text may share: ``read=`` and ``modify=`` often do."""
    return expression.column if type(expression) is auth_uid else expression


def _views(models: _Models) -> dict[TableKey, View]:
    return _by_key(
        (
            (key := models.key(view.table), view.value(key, models.schema_translate_map))
            for view in declared_views(models.metadatas)
        ),
        "view",
    )


def _privileges(tables: Iterable[_DeclaredTable], models: _Models, grants: Iterable[Grant]) -> set[Privilege]:
    """Return the privileges of grants."""
    privileges: set[Privilege] = set()
    for one in tables:
        for granted in one.declarations.of_type(grant):
            privileges.update(granted.values(one.table, one.key))
    for view in declared_views(models.metadatas):
        for granted in view.grants():
            privileges.update(granted.values(view.table, models.key(view.table)))
    for granted_on in grants:
        privileges.update(granted_on.values())
    return privileges


def _named_roles(
    tables: Iterable[_DeclaredTable], models: _Models, grants: Iterable[Grant]
) -> Iterator[Role | str]:
    """Yield the roles of all declarations, possibly several times."""
    shared = {id(policy.roles): policy.roles for one in tables for policy, *_ in one.policies}
    for roles in shared.values():
        yield from roles
    for one in tables:
        for granted in one.declarations.of_type(grant):
            yield from granted.roles
    for view in declared_views(models.metadatas):
        for granted in view.grants():
            yield from granted.roles
    for granted_on in grants:
        yield from granted_on.roles
    for entry in models.all(DefaultPrivileges):
        yield from entry.roles
    yield from models.all(Role)
    # A single table has the roles of other programs from its MetaData, too.
    for metadata in {table.metadata for table in models.tables} - {*models.metadatas}:
        yield from (one for one in kept_on([metadata], Role) if not one.managed)


def _named_by_policies(models: _Models) -> Iterator[Role | str]:
    """Yield the roles of the policies on the tables, and on other tables of the same MetaData."""
    for metadata in {*models.metadatas, *(table.metadata for table in models.tables)}:
        for table in metadata.tables.values():
            for policy in TableDeclarations.of(table).of_type(DeclaredPolicy):
                yield from policy.roles


def _calls_auth(
    tables: Iterable[_DeclaredTable], sql_functions: Iterable[SQLFunction], models: _Models
) -> bool:
    """Return whether an expression, a default or a function calls a function of schema ``auth``."""
    return may_call_auth(
        (one.body for one in sql_functions),
        (one for found in tables for _, *pair in found.policies for one in pair),
        (view.query for view in declared_views(models.metadatas)),
    ) or any(names_auth(default) for found in tables for default in _defaults(found.table))


def grants_on(metadatas: Iterable[MetaData], default_schema: str | None) -> list[Grant]:
    """Return the grants on sequences, functions and schemas; the default schema becomes None."""
    found: list[Grant] = []
    for metadata in metadatas:
        found += kept_on([metadata], Grant)
        found += [
            Grant(ObjectKey("FUNCTION", *one.key), one.roles, ["EXECUTE"], False)
            for one in kept_on([metadata], DeclaredFunction)
        ]
    return [
        one._replace(object=one.object._replace(schema=unless_default(one.object.schema, default_schema)))
        for one in found
    ]


def function_keys(metadatas: Iterable[MetaData]) -> list[TableKey]:
    """Return the names of the declared functions."""
    return [one.key for one in kept_on(metadatas, DeclaredFunction)]


def functions(
    metadatas: Iterable[MetaData],
    default_schema: str | None,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
) -> list[SQLFunction]:
    """Return the declared functions; the default schema becomes None.

    Raises:
        DeclarationError: two different functions have one name.
    """
    values = (one.value(schema_translate_map) for one in kept_on(metadatas, DeclaredFunction))
    found = (replace(one, schema=unless_default(one.schema, default_schema)) for one in values)
    return list(_by_key(((one.key, one) for one in found), "function").values())


def _by_key(found: Iterable[tuple[_K, _T]], kind: str) -> dict[_K, _T]:
    """Return the values by their keys; several MetaData may repeat a declaration.

    Raises:
        DeclarationError: two different values have one key.
    """
    by_key: dict[_K, _T] = {}
    for key, value in found:
        if (first := by_key.setdefault(key, value)) is not value and first != value:
            raise DeclarationError(
                f"{kind} {key.name!r} is declared twice, and the declarations differ. Give one another name, "
                "or make both the same"
            )
    return by_key


def _key(table: Table, default_schema: str | None) -> TableKey:
    return TableKey.of(table.schema, table.name, default_schema)


def _defaults(table: Table) -> list[Any]:
    """Return the defaults that are expressions; a plain string is a value."""
    found = (getattr(column.server_default, "arg", None) for column in table.columns)
    return [one for one in found if not isinstance(one, str)]
