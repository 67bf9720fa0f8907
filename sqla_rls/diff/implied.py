"""Which privileges policies imply."""

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
) -> Iterator[Privilege]:
    """What the roles of *policies* need to get as far as the policy: without it a policy is dead.

    The table privileges of its command, USAGE on the schema, on the sequences in *snapshot* that its table
    calls where it inserts, and on schema ``auth`` where the functions are.  A restrictive policy only
    narrows what others allow, and implies nothing.
    """
    sequences_of: dict[TableKey, list[SequenceKey]] = {}
    for owned in snapshot.sequences:
        sequences_of.setdefault(owned.table, []).append(owned)
    for called in snapshot.called_sequences:
        sequences_of.setdefault(called.table, []).append(called.sequence)
    for policy in policies:
        if not (policy.permissive and policy.imply_privileges):
            continue
        schema, table = policy.table
        needed = COMMAND_PRIVILEGES[policy.command]
        for role in policy.roles - ROLE_KEYWORDS:
            yield Privilege("SCHEMA", None, schema or default_schema, role, "USAGE")
            if auth_functions:
                yield Privilege("SCHEMA", None, AUTH_SCHEMA, role, "USAGE")
            for privilege in needed:
                yield Privilege("TABLE", schema, table, role, privilege)
            if "INSERT" in needed:
                for schema, name, column in sequences_of.get(policy.table, ()):
                    yield Privilege("SEQUENCE", schema, name, role, "USAGE", column)


def wanted_privileges(snapshot: Snapshot, *, default_schema: str) -> frozenset[Privilege]:
    """What *snapshot* declares, and what its policies imply, unless that is declared for some columns."""
    narrowed = {
        one[:5] for one in snapshot.privileges if one.column is not None and one.object_type == "TABLE"
    }
    implied = implied_privileges(
        snapshot.policies.values(),
        snapshot,
        default_schema=default_schema,
        auth_functions=snapshot.auth_functions,
    )
    everything = snapshot.privileges.union(one for one in implied if one[:5] not in narrowed)
    return everything - {one._replace(grantable=False) for one in everything if one.grantable}
