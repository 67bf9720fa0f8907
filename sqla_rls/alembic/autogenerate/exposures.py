"""Warnings of exposures by a migration, before it runs.

Policies, grants and the attributes of roles are explicit in the models.  Autogenerate warns of all other
exposures, and names the roles that gain access.  If an exposure comes from a declaration that is gone, the
migration must confirm it, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sqla_rls.alembic.autogenerate.render import Call, confirmed
from sqla_rls.declare.grantable import is_beyond_row_security
from sqla_rls.diff.policies import Changes
from sqla_rls.diff.views import ViewChanges
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    PUBLIC,
    Membership,
    ObjectKey,
    Policy,
    Privilege,
    Snapshot,
    TableKey,
    callers,
    named_by,
)

# The stock env.py calls fileConfig(), which disables loggers outside those of alembic.ini.
log = autogenerate_log(__name__)


def exposures(changes: Changes, live: Snapshot, dropped: Collection[TableKey]) -> Iterator[Call]:
    """Warn of each exposure, and yield the calls that confirm one.

    *live* is the database before the migration.  The *dropped* tables expose no row.
    """
    for table, exposure in _disabled(changes, live):
        _say(table, exposure)
    for table, exposure in (*_no_longer_forced(changes, live), *_restrictive_policies(changes, dropped)):
        _say(table, exposure)
        yield confirmed(table, exposure)


def _say(table: TableKey, exposure: str) -> None:
    log.warning("this migration exposes table %s: %s", table.name, exposure)


def say_which_views_expose(views: ViewChanges) -> None:
    for change in views.created:
        before, after = change.before, change.after
        if not after.security_invoker and (before is None or before.security_invoker):
            log.warning(
                "this migration exposes view %s: without security_invoker, it reads its tables as its owner. "
                "Set security_invoker=True to apply the policies of its callers",
                after.name,
            )


def views_without_triggers(lost: Mapping[TableKey, Collection[str]]) -> Iterator[Call]:
    """Warn of views that lose triggers or rules, by which they may refuse changes; yield confirmations."""
    for view, names in lost.items():
        exposure = (
            f"the view is created again without its {', '.join(names)}. Create them again below the view, in "
            "the upgrade and in the downgrade"
        )
        log.warning("this migration may expose view %s: %s", view.name, exposure)
        yield confirmed(view, exposure)


def say_what_callers_can_drop(models: Snapshot, memberships: Collection[Membership]) -> None:
    """Warn of restrictive policies that a caller can drop while a permissive one stays.

    ``DROP OWNED BY CURRENT_USER`` removes the role from every policy, and drops the policies for that role
    only.  It revokes only the privileges of the role itself, and doesn't change policies TO PUBLIC.
    """
    narrowing = [one for one in models.policies.values() if not (one.permissive or PUBLIC in one.roles)]
    if not narrowing:
        return
    by_table: dict[TableKey, list[Policy]] = {}
    for policy in sorted(models.policies.values(), key=lambda policy: str(policy.key)):
        by_table.setdefault(policy.table, []).append(policy)
    groups: dict[str, set[str]] = {}
    for one in memberships:
        if one.inherit is not False:
            groups.setdefault(one.member, set()).add(one.role)
    for role in models.roles.values():
        groups.setdefault(role.name, set()).update(map(str, role.member_of or ()))
    for restrictive in sorted(narrowing, key=lambda policy: str(policy.key)):
        staying = [
            one.name
            for one in by_table[restrictive.table]
            if one.permissive and _stays(one, restrictive, groups)
        ]
        if staying:
            log.warning(
                "restrictive policy %s on %s doesn't hold against injected SQL: %s can drop it by DROP OWNED "
                "BY CURRENT_USER, and permissive policy %s stays. Leave out its roles=, for TO PUBLIC; or "
                "have a superuser run the output of `sqla-rls harden --print`",
                restrictive.name,
                restrictive.table.name,
                ", ".join(sorted(restrictive.roles)),
                staying[0],
            )


def say_what_callers_hold_past_row_security(
    live: Snapshot, models: Snapshot, revoked: Collection[Privilege]
) -> None:
    """Warn of privileges such as TRUNCATE that callers hold on tables with row security.

    Callers have PUBLIC, the ready-made roles and the roles of policies.

    Args:
        live: the database before the migration.
        models: the declarations.
        revoked: the privileges that the migration revokes.
    """
    policies = [*live.policies.values(), *models.policies.values()]
    named = callers(named_by(policies))
    found: dict[tuple[str, str, bool], set[str]] = {}
    for one in live.privileges:
        if one.object_type != "TABLE" or one.grantee not in named or not is_beyond_row_security(one):
            continue
        flags = live.row_security.get(TableKey(one.schema, one.name))
        if flags and flags.enabled:
            table = ".".join(filter(None, (one.schema, one.name)))
            found.setdefault((table, one.grantee, one in revoked), set()).add(one.privilege)
    together: dict[tuple[str, str, bool], list[str]] = {}
    for (table, grantee, is_revoked), privileges in sorted(found.items()):
        together.setdefault((grantee, ", ".join(sorted(privileges)), is_revoked), []).append(table)
    for (grantee, listed, is_revoked), tables in together.items():
        log.warning(
            "%s can bypass row security: it holds %s on %s. %s",
            grantee,
            listed,
            ", ".join(tables),
            "This migration revokes that"
            if is_revoked
            else "Declare the row security of the table, or revoke the privilege by hand",
        )


def _stays(permissive: Policy, restrictive: Policy, groups: Mapping[str, Collection[str]]) -> bool:
    """Return whether *permissive* still holds for a role that has dropped *restrictive*."""
    commands = {permissive.command, restrictive.command}
    if permissive.table != restrictive.table or (len(commands) == 2 and "ALL" not in commands):
        return False
    if PUBLIC in permissive.roles:
        return True
    kept = permissive.roles - restrictive.roles
    for role in restrictive.roles | kept:
        has = {role}
        while more := {group for one in has for group in groups.get(one, ())} - has:
            has |= more
        if has & restrictive.roles and has & kept:
            return True
    return False


def _disabled(changes: Changes, live: Snapshot) -> Iterator[tuple[TableKey, str]]:
    privileges = (live.privileges - changes.privileges.revokes) | changes.privileges.grants
    for change in changes.row_security:
        if change.before.enabled and not change.after.enabled:
            on = ObjectKey("TABLE", *change.after.table)
            holders = sorted({one.grantee for one in privileges if one.object == on})
            whom = ", ".join(holders) if holders else "only its owner"
            yield change.after.table, f"without row security {whom} can reach every row"


def _no_longer_forced(changes: Changes, live: Snapshot) -> Iterator[tuple[TableKey, str]]:
    for change in changes.row_security:
        if change.before.forced and not change.after.forced and change.after.enabled:
            on = ObjectKey("TABLE", *change.after.table)
            owner = ", ".join(one for *found, one in live.owners if tuple(found) == on)
            yield change.after.table, f"row security is no longer forced on its owner {owner}"


def _restrictive_policies(changes: Changes, dropped: Collection[TableKey]) -> Iterator[tuple[TableKey, str]]:
    stays = {change.after.key for change in changes.policies if change.after}
    for change in changes.policies:
        gone = change.before
        # Without an expression, it limited no row.
        if gone is None or gone.permissive or (gone.using is None and gone.with_check is None):
            continue
        if not (change.after or gone.key in stays or gone.table in dropped):
            roles = ", ".join(sorted(gone.roles))
            yield gone.table, f"restrictive policy {gone.name!r} no longer limits {roles}"
