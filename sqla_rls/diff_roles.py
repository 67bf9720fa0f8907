"""Which roles must be made or altered, and of which others they must be members.

A role is never dropped by omission, and what its declaration leaves unsaid is nobody's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqla_rls.objects import Membership, Role, Snapshot, members_last


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


def diff_roles(live: Snapshot, declared: Snapshot, *, needed: Collection[str]) -> RoleChanges:
    """*needed* are the roles that other changes name.

    Of these one that this database doesn't know is made, too, though the cluster may have it: that of the
    next database that is migrated may not.
    """
    known = {role for policy in live.policies.values() for role in policy.roles}
    known |= {privilege.grantee for privilege in live.privileges}
    there = {name: role for name, role in declared.roles.items() if name in live.roles}
    wanted = {member for role in there.values() for member in _memberships(role)}
    managed = {name for name, role in there.items() if role.member_of is not None}
    held = {one for one in live.memberships if one.member in managed}
    return RoleChanges(
        created=[
            role
            for role in members_last(declared.roles)
            if role.name not in there or (role.name in needed and role.name not in known)
        ],
        altered=[
            change for name, role in there.items() if (change := _change(live.roles[name], role)) is not None
        ],
        granted=frozenset(one for one in wanted if not any(_suffices(other, one) for other in held)),
        revoked=frozenset(one for one in held if not any(_suffices(one, other) for other in wanted)),
    )


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
