"""The privileges that policies imply."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    COMMAND_PRIVILEGES,
    ROLE_KEYWORDS,
    Policy,
    Privilege,
    SequenceKey,
    Snapshot,
    TableKey,
)


def implied_privileges(
    policies: Iterable[Policy],
    snapshot: Snapshot,
    *,
    default_schema: str,
    auth_functions: bool,
    on_tables: bool = True,
) -> Iterator[Privilege]:
    """Yield the privileges that the roles need to use *policies*.

    A policy implies the table privileges of its command and USAGE on the schema.  A policy for INSERT implies
    USAGE on the sequences that the table calls.  With *auth_functions*, each implies USAGE on schema
    ``auth``.  A restrictive policy implies no privilege.

    Args:
        policies: the policies.
        snapshot: the snapshot with the sequences.
        default_schema: the default schema.
        auth_functions: the database has the functions of schema ``auth``, or gets them.
        on_tables: whether to yield those on tables.
    """
    sequences_of: dict[TableKey, list[SequenceKey]] = {}
    for owned in snapshot.sequences:
        sequences_of.setdefault(owned.table, []).append(owned)
    for called in snapshot.called_sequences:
        sequences_of.setdefault(called.table, []).append(called.sequence)
    on_schemas: set[tuple[str | None, str]] = set()
    ungranted = ROLE_KEYWORDS | snapshot.ungranted
    for policy in policies:
        if not (policy.permissive and policy.imply_privileges):
            continue
        schema, table = policy.table
        needed = COMMAND_PRIVILEGES[policy.command]
        for role in policy.roles - ungranted:
            if (schema, role) not in on_schemas:
                on_schemas.add((schema, role))
                yield Privilege("SCHEMA", None, schema or default_schema, role, "USAGE")
                if auth_functions:
                    yield Privilege("SCHEMA", None, AUTH_SCHEMA, role, "USAGE")
            for privilege in needed if on_tables else ():
                yield Privilege("TABLE", schema, table, role, privilege)
            if "INSERT" in needed:
                for of_sequence, name, column in sequences_of.get(policy.table, ()):
                    yield Privilege("SEQUENCE", of_sequence, name, role, "USAGE", column)


def wanted_privileges(snapshot: Snapshot, *, default_schema: str) -> frozenset[Privilege]:
    """Return the declared privileges of *snapshot*, and those that its policies imply.

    A policy doesn't imply a privilege that is declared for some columns.
    """
    narrowed = {
        one[:5] for one in snapshot.privileges if one.column is not None and one.object_type == "TABLE"
    }
    implied = implied_privileges(
        snapshot.policies.values(),
        snapshot,
        default_schema=default_schema,
        auth_functions=snapshot.auth_functions,
    )
    everything = snapshot.privileges.union(
        (one for one in implied if one[:5] not in narrowed) if narrowed else implied
    )
    return everything - {one._replace(grantable=False) for one in everything if one.grantable}
