"""The roles to create or alter, and the memberships to grant or revoke.

A role that loses its declaration isn't dropped.  An attribute that its declaration leaves out isn't managed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from sqla_rls.snapshot import BROUGHT_ALONG, Membership, Role, Snapshot, members_last, named_by


class RoleChange(NamedTuple):
    """A change of a role; both sides have only the attributes that differ."""

    before: Role
    after: Role


class RoleChanges(NamedTuple):
    """The changes of roles and memberships."""

    created: list[Role]
    altered: list[RoleChange]
    granted: frozenset[Membership]
    revoked: frozenset[Membership]


def diff_roles(
    live: Snapshot, declared: Snapshot, *, needed: Collection[str], made: Collection[str] | None
) -> RoleChanges:
    """Compare the roles of *made* and those that a managed table uses already; create all others.

    This cluster may have a role of another project, which the cluster of the next database lacks.

    Args:
        live: the database.
        declared: the models.
        needed: the roles that other changes name.  Without *made*, only these are created again.
        made: the roles of earlier revisions; None if they are unknown.
    """
    known = _known(live, declared)
    if made is None:
        known |= live.roles.keys() - needed
    else:
        known |= {*made}
    there = {name: role for name, role in declared.roles.items() if name in live.roles and name in known}
    wanted = {member for role in there.values() for member in _memberships(role)}
    managed = {name for name, role in there.items() if role.member_of is not None}
    held = {one for one in live.memberships if one.member in managed}
    return RoleChanges(
        created=[role for role in members_last(declared.roles) if role.name not in there],
        altered=[
            change for name, role in there.items() if (change := _change(live.roles[name], role)) is not None
        ],
        granted=frozenset(one for one in wanted if not any(_suffices(other, one) for other in held)),
        revoked=frozenset(one for one in held if not any(_suffices(one, other) for other in wanted)),
    )


def _known(live: Snapshot, declared: Snapshot) -> set[str]:
    """Return the roles that the database uses for the managed tables of *declared*."""
    objects = live.objects_of(declared.managed) | declared.managed_objects
    if objects.isdisjoint(owner[:3] for owner in live.owners):
        return set()
    known = named_by(policy for key, policy in live.policies.items() if key.table in declared.managed)
    known |= {
        one.grantee
        for one in live.privileges
        if one[:3] in objects or (one.object, one.grantee) in declared.managed_grantees
    }
    known |= {
        one.grantee
        for one in live.default_privileges
        if (one.object_type, one.grantee) in declared.managed_defaults
    }
    # Both roles of a pair are declared together, but the policies may name only one.
    known |= {BROUGHT_ALONG[role] for role in known & BROUGHT_ALONG.keys()}
    while groups := {one.role for one in live.memberships if one.member in known} - known:
        known |= groups
    return known


def _memberships(role: Role) -> Iterator[Membership]:
    for group in role.member_of or ():
        yield Membership(str(group), role.name, inherit=role.inherit)


def _suffices(held: Membership, wanted: Membership) -> bool:
    """Return whether *held* satisfies *wanted*; before PostgreSQL 16, ADMIN is the only option."""
    return (
        (held.role, held.member, held.admin) == (wanted.role, wanted.member, wanted.admin)
        and (held.inherit is None or wanted.inherit is None or held.inherit == wanted.inherit)
        and held.set is not False
    )


def _change(live: Role, declared: Role) -> RoleChange | None:
    different = [
        name
        for name in ("login", "inherit", "bypassrls")
        if getattr(declared, name) not in (None, getattr(live, name))
    ]
    if not different:
        return None
    before, after = ({name: getattr(role, name) for name in different} for role in (live, declared))
    return RoleChange(Role(live.name, **before), Role(live.name, **after))
