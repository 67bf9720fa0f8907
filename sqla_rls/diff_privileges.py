"""Which privileges must be granted, and which revoked.

A table that declares anything is managed whole, with the sequences that its columns own: whatever is
neither declared nor implied is revoked.  Schemas are shared: there, only what dropped policies
implied is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from sqla_rls.objects import (
    PUBLIC,
    DefaultPrivilege,
    ObjectKey,
    Policy,
    Privilege,
    Snapshot,
    TableKey,
    implied_privileges,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivilegeChanges:
    grants: frozenset[Privilege] = frozenset()
    revokes: frozenset[Privilege] = frozenset()
    default_grants: frozenset[DefaultPrivilege] = frozenset()
    default_revokes: frozenset[DefaultPrivilege] = frozenset()


def diff_privileges(
    live: Snapshot,
    declared: Snapshot,
    *,
    policies_before: Collection[Policy],
    policies_elsewhere: Collection[Policy],
    default_schema: str,
    current_user: str | None,
    dropped: Collection[TableKey],
) -> PrivilegeChanges:
    """*policies_before* are those that the models decide about, *policies_elsewhere* the others."""
    auth_functions = declared.auth_functions or live.auth_functions

    def implied(policies: Collection[Policy], *, auth: bool) -> frozenset[Privilege]:
        return frozenset(
            implied_privileges(
                policies, declared.sequences, default_schema=default_schema, auth_functions=auth
            )
        )

    wanted = declared.privileges | implied(declared.policies.values(), auth=declared.auth_functions)
    new = declared.objects_of(declared.managed - live.row_security.keys())
    managed = live.objects_of(declared.managed) | new
    # With a table go its sequences, and all privileges on them.
    gone = live.objects_of(dropped)
    # Whether a privilege on what is shared can be passed on is its owner's business.
    held = {
        one if one.object in managed else one._replace(grantable=False, grantor=None)
        for one in live.privileges
    }
    coming = set(_given_by_default(live, new, default_schema))
    allowed = set(_given_by_default(declared, managed, default_schema))
    undeclared = {
        one
        for one in live.privileges | coming
        if one.object in managed
        and not one.grantee.startswith("pg_")
        and one._replace(grantable=False, grantor=None) not in allowed
    } - (wanted | implied(policies_elsewhere, auth=auth_functions))
    # Everybody's USAGE on a schema is Postgres' own default, on "public" at least.
    obsolete = {
        one
        for one in implied(policies_before, auth=auth_functions) & held
        if one.object_type == "SCHEMA" and one.grantee != PUBLIC
    } - implied(policies_elsewhere, auth=auth_functions)
    return PrivilegeChanges(
        grants=frozenset(
            one for one in wanted - held if one.grantee != current_user and one[:4] not in live.owners
        ),
        revokes=frozenset(one for one in undeclared | (obsolete - wanted) if one.object not in gone),
        default_grants=declared.default_privileges - live.default_privileges,
        default_revokes=frozenset(
            one
            for one in live.default_privileges - declared.default_privileges
            if (one.object_type, one.grantee) in declared.managed_defaults
        ),
    )


def _given_by_default(
    snapshot: Snapshot, objects: Collection[ObjectKey], default_schema: str
) -> Iterator[Privilege]:
    """What the default privileges of *snapshot* give on *objects* when they are made."""
    for one in snapshot.default_privileges:
        for found in objects:
            if one.object_type == f"{found.object_type}S" and one.schema in (
                None,
                found.schema or default_schema,
            ):
                yield Privilege(*found, one.grantee, one.privilege)
