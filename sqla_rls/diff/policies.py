"""Two Snapshots in, what must change out.

Pure: equality was settled when the Snapshots were aligned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from sqla_rls.diff.privileges import PrivilegeChanges, diff_privileges
from sqla_rls.diff.roles import RoleChanges, diff_roles
from sqla_rls.snapshot import ObjectKey, Policy, PolicyKey, RowSecurity, Snapshot, TableKey


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """*before* is None for a new policy, *after* for one that goes."""

    before: Policy | None
    after: Policy | None


@dataclass(frozen=True, slots=True)
class RowSecurityChange:
    before: RowSecurity
    after: RowSecurity


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What must happen for one Snapshot to match another."""

    roles: RoleChanges = field(default_factory=RoleChanges)
    auth_functions: bool = False
    row_security: list[RowSecurityChange] = field(default_factory=list)
    policies: list[PolicyChange] = field(default_factory=list)
    privileges: PrivilegeChanges = field(default_factory=PrivilegeChanges)


def diff(
    live: Snapshot,
    declared: Snapshot,
    *,
    default_schema: str,
    current_user: str | None = None,
    dropped: Collection[TableKey] = (),
    recreated_objects: Collection[ObjectKey] = (),
    recreated: Collection[PolicyKey] = (),
    foreign_recreated: Collection[Policy] = (),
    made_roles: Collection[str] | None = None,
    made_auth_functions: bool = True,
    out_of_reach: Collection[str] = (),
) -> Changes:
    """What must happen to *live* for it to match *declared*.

    Tables that declare nothing are left alone, but for those *dropped* in the same migration, whose
    policies go first.  A policy that is *recreated* is dropped and created, so that what it depends on
    can be changed in between; so are those *foreign_recreated*, which no model declares.  The
    *recreated_objects* have lost their privileges by then.  *current_user*, who migrates, needs no grants.

    *made_roles* and *made_auth_functions* are those of the revisions so far; what they haven't made is made,
    and granted, although *live* has it: the next database may not.  On schemas *out_of_reach* the migrating
    role may not grant.
    """
    managed = {*declared.row_security, *dropped}
    before = [policy for policy in live.policies.values() if policy.table in managed]
    elsewhere = [policy for policy in live.policies.values() if policy.table not in managed]
    after = list(declared.policies.values())
    old_policies, new_policies = [*before, *foreign_recreated], [*after, *foreign_recreated]
    policy_changes = list(_policy_changes(old_policies, new_policies, recreated))
    if exposed := _exposed(policy_changes):
        recreated = {
            *recreated,
            *(one.key for one in old_policies if one.permissive and one.table in exposed),
        }
        policy_changes = list(_policy_changes(old_policies, new_policies, recreated))
    privileges = diff_privileges(
        live.before_making(recreated_objects),
        declared,
        policies_before=before,
        policies_elsewhere=elsewhere,
        default_schema=default_schema,
        current_user=current_user,
        dropped=dropped,
        made_auth_functions=made_auth_functions,
        out_of_reach=out_of_reach,
    )
    needed = {role for change in policy_changes if change.after for role in change.after.roles}
    needed |= {privilege.grantee for privilege in privileges.grants}
    roles = diff_roles(live, declared, needed=needed, made=made_roles)
    return Changes(
        roles=roles,
        auth_functions=declared.auth_functions and not (live.auth_functions and made_auth_functions),
        row_security=[
            RowSecurityChange(flags, wanted_flags)
            for table, wanted_flags in declared.row_security.items()
            if (flags := live.row_security.get(table, RowSecurity(table=table, enabled=False)))
            != wanted_flags
        ],
        policies=policy_changes,
        privileges=privileges.with_new_roles({role.name for role in roles.created}),
    )


def _policy_changes(
    before: Collection[Policy], after: Collection[Policy], recreated: Collection[PolicyKey]
) -> Iterator[PolicyChange]:
    old = {policy.key: policy for policy in before}
    new = {policy.key: policy for policy in after}
    gone = {key: policy for key, policy in old.items() if key not in new}
    for key, policy in new.items():
        live_policy = old.get(key) or next(
            (
                other
                for other in gone.values()
                if other.key not in recreated and replace(other, name=policy.name) == policy
            ),
            None,
        )
        if live_policy == policy and key not in recreated:
            continue
        if live_policy is not None and key not in recreated and _can_be_altered(live_policy, policy):
            gone.pop(live_policy.key, None)
            yield PolicyChange(live_policy, policy)
        else:
            if key in old:
                gone[key] = old[key]
            yield PolicyChange(None, replace(policy, comment=old[key].comment) if key in old else policy)
    for policy in gone.values():
        yield PolicyChange(policy, None)


def _exposed(changes: Collection[PolicyChange]) -> set[TableKey]:
    """The tables that would be more open, between two changes, than they are before and after.

    That is so where what narrows access changes beside something else.  There what grants it goes first
    and comes back last, and nobody sees more than they may, not even without a transaction.
    """
    changed = Counter(policy.table for change in changes if (policy := change.after or change.before))
    narrowing = (change.before for change in changes if change.before and not change.before.permissive)
    return {policy.table for policy in narrowing if changed[policy.table] > 1}


def _can_be_altered(before: Policy, after: Policy) -> bool:
    """ALTER POLICY changes neither the command nor the kind, and takes no expression away, on the way back
    either."""
    return all(
        (
            before.command == after.command,
            before.permissive == after.permissive,
            (before.using is None) == (after.using is None),
            (before.with_check is None) == (after.with_check is None),
        )
    )
