"""The changes that turn one Snapshot into another.

Both Snapshots are normalized, so that equal objects have equal text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from sqla_rls.diff.privileges import PrivilegeChanges, diff_privileges
from sqla_rls.diff.roles import RoleChanges, diff_roles
from sqla_rls.snapshot import ObjectKey, Policy, PolicyKey, RowSecurity, Snapshot, TableKey


class PolicyChange(NamedTuple):
    """A change of a policy; *before* is None for a new one, and *after* for a dropped one."""

    before: Policy | None
    after: Policy | None


class RowSecurityChange(NamedTuple):
    """A change of the flags of a table."""

    before: RowSecurity
    after: RowSecurity


class Changes(NamedTuple):
    """The changes that turn one Snapshot into another."""

    roles: RoleChanges
    auth_functions: bool
    row_security: list[RowSecurityChange]
    policies: list[PolicyChange]
    privileges: PrivilegeChanges

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return not (
            any(self.roles)
            or self.auth_functions
            or self.row_security
            or self.policies
            or any(self.privileges._replace(on_schemas={}))
        )


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
    policies_only: Collection[TableKey] = (),
    is_stepwise: bool = False,
) -> Changes:
    """Return the changes that turn *live* into *declared*.

    A table without declarations doesn't change, unless the migration drops it.

    Args:
        live: the database.
        declared: the models.
        default_schema: the default schema.
        current_user: the migrating role, which needs no grants.
        dropped: the tables that the migration drops; their policies go first.
        recreated_objects: the objects that the migration recreates, so that their privileges are lost.
        recreated: the policies that are dropped and created, so that an object that they depend on can change
            in between.
        foreign_recreated: the same, of policies that no model declares.
        made_roles: the roles of earlier revisions.  Other roles are created although *live* has them, since
            the next database may not.  None if the revisions are unknown.
        made_auth_functions: whether an earlier revision creates the auth functions.
        out_of_reach: the schemas on which the migrating role may not grant.
        policies_only: the tables of other programs; of these, only the policies may change.
        is_stepwise: whether other sessions see the database between two statements.
    """
    managed = {*declared.row_security, *dropped}
    of_others = {key: policy for key, policy in live.policies.items() if key.table in policies_only}
    before = {key: policy for key, policy in live.policies.items() if key.table in managed}
    elsewhere = [policy for key, policy in live.policies.items() if key.table not in managed]
    foreign = {policy.key: policy for policy in foreign_recreated}
    old_policies = {**before, **of_others, **foreign}
    new_policies = {**declared.policies, **foreign}
    policy_changes = list(_policy_changes(old_policies, new_policies, recreated))
    if exposed := _exposed(policy_changes):
        recreated = {
            *recreated,
            *(key for key, one in old_policies.items() if one.permissive and key.table in exposed),
        }
        policy_changes = list(_policy_changes(old_policies, new_policies, recreated))
    if is_stepwise and (combined := _combined(policy_changes)):
        policy_changes = list(_policy_changes(old_policies, new_policies, {*recreated, *combined}))
    privileges = diff_privileges(
        live.before_making(recreated_objects),
        declared,
        policies_before=before.values(),
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
            if (flags := live.row_security.get(table) or RowSecurity(table=table, enabled=False))
            != wanted_flags
        ],
        policies=policy_changes,
        privileges=privileges.with_new_roles({role.name for role in roles.created}),
    )


def _policy_changes(
    old: Mapping[PolicyKey, Policy], new: Mapping[PolicyKey, Policy], recreated: Collection[PolicyKey]
) -> Iterator[PolicyChange]:
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
        if key not in recreated and (live_policy is policy or live_policy == policy):
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
    """Return the tables that would be more open between two changes than before and after.

    These are the tables where a restrictive policy changes together with another policy, or where a new one
    comes with an altered policy.  There, the permissive policies are dropped first and created last, so that
    no caller sees more rows in between.
    """
    changed = Counter(policy.table for change in changes if (policy := change.after or change.before))
    altered = {change.before.table for change in changes if change.before and change.after}
    narrowing = [change.before for change in changes if change.before and not change.before.permissive]
    added = [change.after for change in changes if change.after and not change.after.permissive]
    return {one.table for one in narrowing if changed[one.table] > 1} | {
        one.table for one in added if changed[one.table] > 1 and one.table in altered
    }


def _combined(changes: Collection[PolicyChange]) -> set[PolicyKey]:
    """Return the altered policies of which a statement needs several, so that two states would mix.

    UPDATE also needs the policies for SELECT, for example.  After the first of two ALTER POLICY, it could
    reach rows that it reaches neither before nor after.  If all are dropped first and created last, no state
    between permits more than both ends.
    """
    altered: dict[TableKey, list[Policy]] = {}
    for change in changes:
        if (
            (before := change.before)
            and (after := change.after)
            and replace(before, name=after.name) != after
        ):
            altered.setdefault(before.table, []).append(before)
    # Of several policies for one command, a row passes one.  But those for UPDATE have two expressions.
    return {
        policy.key
        for policies in altered.values()
        if len(policies) > 1
        and {policy.command for policy in policies} not in ({"SELECT"}, {"INSERT"}, {"DELETE"})
        for policy in policies
    }


def _can_be_altered(before: Policy, after: Policy) -> bool:
    """Return whether ALTER POLICY can make the change, and also undo it.

    It can't change the command or the kind, and can't remove an expression.
    """
    return all(
        (
            before.command == after.command,
            before.permissive == after.permissive,
            (before.using is None) == (after.using is None),
            (before.with_check is None) == (after.with_check is None),
        )
    )
