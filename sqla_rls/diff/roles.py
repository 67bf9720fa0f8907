"""Which roles must be made or altered, and of which others they must be members.

A role is never dropped by omission, and what its declaration leaves unsaid is nobody's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqla_rls.snapshot import BROUGHT_ALONG, Membership, ObjectKey, Role, Snapshot, members_last


@dataclass(frozen=True, slots=True)
class RoleChange:
    """Only what differs is said, on both sides."""

    before: Role
    after: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanges:
    created: list[Role] = field(default_factory=list)
    altered: list[RoleChange] = field(default_factory=list)
    granted: frozenset[Membership] = frozenset()
    revoked: frozenset[Membership] = frozenset()


def diff_roles(
    live: Snapshot, declared: Snapshot, *, needed: Collection[str], made: Collection[str] | None = None
) -> RoleChanges:
    """Compare the roles that *made* names, or that a declared table already uses; create all others.

    The cluster may have a role because of another project, and the cluster of the next database may not.
    *made* are the roles of earlier revisions.  Where it is None, only *needed* roles, which other changes
    name, are created again.
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
    """The roles that a database with tables of *declared* uses for them."""
    objects = live.objects_of(declared.managed) | declared.managed_objects
    if objects.isdisjoint(ObjectKey(*owner[:3]) for owner in live.owners):
        return set()
    known = {
        role
        for key, policy in live.policies.items()
        if key.table in declared.managed
        for role in policy.roles
    }
    known |= {
        one.grantee
        for one in live.privileges
        if one.object in objects or (one.object, one.grantee) in declared.managed_grantees
    }
    known |= {
        one.grantee
        for one in live.default_privileges
        if (one.object_type, one.grantee) in declared.managed_defaults
    }
    # They come as a pair, of which the policies may name one.
    known |= {BROUGHT_ALONG[role] for role in known & BROUGHT_ALONG.keys()}
    while groups := {one.role for one in live.memberships if one.member in known} - known:
        known |= groups
    return known


def _memberships(role: Role) -> Iterator[Membership]:
    for group in role.member_of or ():
        yield Membership(str(group), role.name, inherit=role.inherit)


def _suffices(held: Membership, wanted: Membership) -> bool:
    """Whether *held* is what *wanted* says; before PostgreSQL 16 there is no option but ADMIN."""
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
