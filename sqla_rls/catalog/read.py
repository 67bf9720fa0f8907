"""Reads pg_catalog into a Snapshot.

It runs one query for each kind of object, independent of the number of tables.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping

from sqla_rls.catalog.auth_functions import AuthFunctions, auth_functions, with_edits
from sqla_rls.catalog.query import fetch_rows, fetch_tuples, key_of, reading_ahead, schemas_of, sql_file
from sqla_rls.snapshot import (
    CalledSequence,
    DefaultPrivilege,
    Membership,
    ObjectKey,
    Policy,
    Privilege,
    Role,
    RowSecurity,
    SequenceKey,
    Snapshot,
    TableKey,
    unless_default,
)

_KINDS = {"r": "table", "p": "table", "m": "materialized view", "f": "foreign table"}


_ROLE_KEYWORDS = """
SELECT current_user::text AS "CURRENT_USER", current_user::text AS "CURRENT_ROLE",
       session_user::text AS "SESSION_USER"
"""


_OUT_OF_REACH = """
SELECT nspname, pg_catalog.pg_get_userbyid(nspowner)::text AS owner
  FROM pg_catalog.pg_namespace
 WHERE (nspname = ANY (:schemas) OR nspname = 'auth')
   AND NOT pg_catalog.has_schema_privilege(oid, 'USAGE WITH GRANT OPTION')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSnapshot(Snapshot):
    """The Snapshot of a database, with more facts for a comparison."""

    default_schema: str
    auth: AuthFunctions
    #: The roles of CURRENT_USER, CURRENT_ROLE and SESSION_USER.
    role_keywords: dict[str, str]
    #: All views, including materialized ones.
    all_views: frozenset[TableKey]
    #: The partitioned tables, with and without partitions.
    partitioned: frozenset[TableKey]
    #: The relations without row security, and their kinds; those of extensions are left out.
    without_row_security: Mapping[TableKey, str]
    #: The schemas on which the connected role may not grant, and the owner of each.
    out_of_reach: Mapping[str, str]
    #: The names of sequences that columns own.
    sequence_names: Mapping[TableKey, SequenceKey]


class Reading(NamedTuple):
    """A Snapshot whose rows Postgres sends meanwhile."""

    tables: Collection[TableKey]
    #: Waits for the rows.
    snapshot: Callable[[], DatabaseSnapshot]


def read_database(
    connection: Connection,
    *,
    default_schema: str,
    schemas: Collection[str],
    objects: Collection[ObjectKey] = (),
    is_compared: Callable[[str], bool] = bool,
) -> DatabaseSnapshot:
    """Return the managed objects of the tables in *schemas*, and of *objects*.

    The result has the partitions and inheritance children of the tables, in every schema that *is_compared*.
    """
    with reading_database(
        connection, default_schema=default_schema, schemas=schemas, objects=objects, is_compared=is_compared
    ) as reading:
        return reading.snapshot()


@contextmanager
def reading_database(
    connection: Connection,
    *,
    default_schema: str,
    schemas: Collection[str],
    objects: Collection[ObjectKey],
    is_compared: Callable[[str], bool],
) -> Iterator[Reading]:
    """Do as ``read_database()``, while the block does what needs no *connection*."""
    names = {"schemas": list(schemas)}
    relations = _relations(fetch_rows(connection, sql_file("tables"), names), default_schema)
    called = fetch_rows(connection, sql_file("called_sequences"), names)
    heirs = heirs_in(connection, default_schema=default_schema, schemas=schemas, is_compared=is_compared)
    objects = [
        *objects,
        *(ObjectKey("TABLE", *heir) for found in heirs.values() for heir in found),
        *(ObjectKey("SEQUENCE", row["sequence_schema"], row["sequence"]) for row in called),
    ]
    looked_into = _holders_of(objects, default_schema, schemas)
    auth = with_edits(connection, auth_functions(connection))
    (keywords,) = fetch_rows(connection, _ROLE_KEYWORDS)
    out_of_reach = fetch_rows(connection, _OUT_OF_REACH, {"schemas": looked_into["schemas"]})
    by_default = default_privileges(connection)
    roles = fetch_rows(connection, sql_file("roles"))
    with reading_ahead(connection) as start:
        policies = start(partial(fetch_tuples, connection, sql_file("policies_of_schemas"), names))
        privileges = start(partial(fetch_tuples, connection, sql_file("privileges"), looked_into))

        def snapshot() -> DatabaseSnapshot:
            return DatabaseSnapshot(
                default_schema=default_schema,
                auth=auth,
                auth_functions=auth.as_made,
                out_of_reach={row["nspname"]: row["owner"] for row in out_of_reach},
                role_keywords=dict(keywords),
                heirs=heirs,
                policies={policy.key: policy for policy in _sorted(policies(), default_schema)},
                default_privileges=by_default,
                **_roles(roles),
                **relations,
                called_sequences=frozenset(_called(row, default_schema) for row in called),
                **_privileges(privileges(), default_schema, schemas),
            )

        yield Reading(relations["row_security"].keys(), snapshot)


def _roles(rows: Collection[RowMapping]) -> dict[str, Any]:
    """Return the roles and memberships; a role without memberships has one row."""
    return {
        "roles": {
            row["rolname"]: Role(
                row["rolname"],
                login=row["rolcanlogin"],
                inherit=row["rolinherit"],
                bypassrls=row["rolbypassrls"],
            )
            for row in rows
        },
        "memberships": frozenset(
            Membership(row["member_of"], row["rolname"], row["admin"], row["inherit"], row["set_"])
            for row in rows
            if row["member_of"] is not None
        ),
    }


def _relations(rows: Collection[RowMapping], default_schema: str) -> dict[str, Any]:
    by_key = {key_of(row, default_schema): row for row in rows}
    return {
        "all_views": frozenset(key for key, row in by_key.items() if row["relkind"] in "vm"),
        "partitioned": frozenset(key for key, row in by_key.items() if row["relkind"] == "p"),
        "without_row_security": {
            key: _KINDS[row["relkind"]]
            for key, row in by_key.items()
            if not (row["relkind"] == "v" or row["relrowsecurity"] or row["is_of_extension"])
        },
        "row_security": {
            key: RowSecurity(table=key, enabled=row["relrowsecurity"], forced=row["relforcerowsecurity"])
            for key, row in by_key.items()
            if row["relkind"] in "rp"
        },
    }


def _privileges(
    rows: Iterable[Sequence[Any]], default_schema: str, schemas: Collection[str]
) -> dict[str, Any]:
    """Return the privileges, the owners, and the sequences that columns own, of the tables in *schemas*.

    The row of an owner has no privilege.
    """
    privileges: set[Privilege] = set()
    owners: set[tuple[str, str | None, str, str]] = set()
    sequence_names: dict[TableKey, SequenceKey] = {}
    owned: dict[bool, set[SequenceKey]] = {False: set(), True: set()}
    for kind, nspname, name, column, privilege, grantable, grantee, grantor, sequence, identity in rows:
        schema = unless_default(nspname, default_schema)
        if privilege:
            privileges.add(Privilege(kind, schema, name, grantee, privilege, column, grantable, grantor))
            continue
        owners.add((kind, schema, name, grantee))
        if sequence is not None:
            sequence_names[TableKey(schema, sequence)] = key = SequenceKey(schema, name, column)
            # A sequence is in the schema of the table that owns it.
            if nspname in schemas:
                owned[identity].add(key)
    return {
        "privileges": frozenset(privileges),
        "owners": frozenset(owners),
        "sequence_names": sequence_names,
        "sequences": frozenset(owned[False]),
        "identity_sequences": frozenset(owned[True]),
    }


def _called(row: RowMapping, default_schema: str) -> CalledSequence:
    sequence = key_of(row, default_schema, "sequence_schema", "sequence")
    return CalledSequence(key_of(row, default_schema), SequenceKey(*sequence, row["attname"]))


def row_security_of(
    connection: Connection, tables: Iterable[TableKey], default_schema: str
) -> dict[TableKey, RowSecurity]:
    """Return the flags of those of *tables* that exist."""
    keys = {*tables}
    if not keys:
        return {}
    rows = fetch_rows(connection, sql_file("tables"), {"schemas": schemas_of(keys, default_schema)})
    flags: dict[TableKey, RowSecurity] = _relations(rows, default_schema)["row_security"]
    return {key: one for key, one in flags.items() if key in keys}


def policies_on(connection: Connection, tables: Collection[TableKey], default_schema: str) -> list[Policy]:
    """Return the policies on *tables*."""
    names = {"schemas": schemas_of(tables, default_schema)}
    rows = fetch_tuples(connection, sql_file("policies_of_schemas"), names)
    return [one for one in _sorted(rows, default_schema) if one.table in tables]


def _sorted(rows: Iterable[Sequence[Any]], default_schema: str) -> list[Policy]:
    """Return the policies of rows of policies_of_schemas.sql, sorted.

    An ORDER BY would sort their parse trees, and keep parallel workers from spelling them.
    """
    return policies_of(sorted(rows, key=itemgetter(0, 1, 2)), default_schema)


def heirs_in(
    connection: Connection,
    *,
    default_schema: str,
    schemas: Collection[str],
    is_compared: Callable[[str], bool] = bool,
) -> dict[TableKey, set[TableKey]]:
    """Return the partitions and inheritance children of the tables in *schemas*, at any depth."""
    found: dict[TableKey, set[TableKey]] = {}
    for row in fetch_rows(connection, sql_file("heirs"), {"schemas": list(schemas)}):
        if is_compared(row["nspname"]):
            parent = key_of(row, default_schema, "parent_schema", "parent")
            found.setdefault(parent, set()).add(key_of(row, default_schema))
    return found


def default_privileges(connection: Connection) -> frozenset[DefaultPrivilege]:
    """Return the default privileges of the connected role."""
    return frozenset(
        DefaultPrivilege(row["object_type"], row["nspname"], row["grantee"], row["privilege_type"])
        for row in fetch_rows(connection, sql_file("default_privileges"))
    )


def _holders_of(
    objects: Collection[ObjectKey], default_schema: str, schemas: Collection[str]
) -> dict[str, Any]:
    """Return the parameters of privileges.sql."""
    functions = [
        (one.schema or default_schema, name, arguments if parenthesis else None)
        for one in objects
        if one.object_type == "FUNCTION"
        for name, parenthesis, arguments in [one.name.partition("(")]
    ]
    others = {one.name if one.object_type == "SCHEMA" else one.schema or default_schema for one in objects}
    return {
        "schemas": sorted({*schemas, *others}),
        "function_schemas": [schema for schema, _, _ in functions],
        "functions": [name for _, name, _ in functions],
        "arguments": [arguments for _, _, arguments in functions],
    }


def policies_of(rows: Iterable[Sequence[Any]], default_schema: str) -> list[Policy]:
    """Return the policies of rows of policies.sql; equal keys and sets of roles are one object."""
    key = cache(partial(TableKey.of, default_schema=default_schema))
    roles_of = cache(frozenset[str])
    return [
        Policy(
            table=key(schema, table),
            name=name,
            permissive=permissive,
            command=command,
            roles=roles_of(tuple(roles)),
            using=using,
            with_check=with_check,
            comment=comment,
        )
        for schema, table, name, permissive, command, roles, using, with_check, comment in rows
    ]
