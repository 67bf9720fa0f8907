"""The fifth step: operations in a safe order.

Drops of policies come first, since a policy prevents the drop of a column that it names.  New policies come
last, since they may name new tables and columns.  Roles, and functions for column defaults, come before the
tables.  Views and other functions come between the tables and the policies.  In each part, row security comes
before access.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from alembic.operations import MigrateOperation

from sqla_rls.alembic.autogenerate.elsewhere import for_other_databases, without_undoing_repairs
from sqla_rls.alembic.autogenerate.functions import (
    checked_functions,
    created_functions,
    dropped_functions,
    for_any_schema,
    reading,
    restored_functions,
)
from sqla_rls.alembic.autogenerate.normalize import Normalized
from sqla_rls.alembic.autogenerate.policies import (
    added_policies,
    alter_policy,
    create_policy,
    removed_policies,
    row_security_calls,
)
from sqla_rls.alembic.autogenerate.privileges import (
    default_privileges,
    grants,
    privileges_to_restore,
    public_revokes,
    revokes,
)
from sqla_rls.alembic.autogenerate.read import Context, Read
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.alembic.autogenerate.roles import roles
from sqla_rls.alembic.autogenerate.tables import before_what_defaults_read
from sqla_rls.alembic.autogenerate.views import created_views, dropped_views
from sqla_rls.alembic.autogenerate.warn import Warned
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.policies import Changes, RowSecurityChange
from sqla_rls.diff.privileges import ON_AUTH
from sqla_rls.snapshot import (
    ObjectKey,
    PolicyKey,
    RowSecurity,
    Snapshot,
    TableKey,
)


def order(
    context: Context, read: Read, normalized: Normalized, changes: Changes, warned: Warned
) -> list[MigrateOperation]:
    """Return all operations of the revision, including those of Alembic."""
    live, declared, past = read.live, normalized.declared, context.past
    unchecked = read.functions.unchecked
    function_changes = list(
        for_any_schema(read.function_changes, past.functions if past else {}, context.connection)
    )
    above, beneath = (
        [change for change in function_changes if (change.key in read.functions.beneath_tables) is side]
        for side in (False, True)
    )
    changed_columns = context.tables.dropped_columns | context.tables.retyped_columns
    late = reading(
        above,
        {
            *(column or table.name for table, column in changed_columns),
            *(change.key.name for change in above if change.before and not change.replaces),
        },
    )
    to_check = [change for change in beneath if change.key in unchecked]
    left_alone = live.privileges - normalized.live.privileges
    operations: list[MigrateOperation] = [
        *warned.to_confirm,
        *_before_tables(
            changes,
            live,
            context.tables.dropped,
            auth_is_made=normalized.auth_is_made,
            keep_memberships=bool(context.ignored.roles),
            revokes_first=past is not None and past.lacks_revoke(live, declared),
        ),
        *dropped_views(read.view_changes, live),
        *checked_functions(to_check, dropped=True),
        *restored_functions(above, late),
        *dropped_functions(above, live),
        *created_functions(beneath, left_alone, unchecked),
        *before_what_defaults_read(context.operations, [change.key.name for change in beneath if to_check]),
        *dropped_functions(beneath, live, unchecked),
        *created_functions(above, left_alone, late=late),
        *checked_functions(to_check, dropped=False),
        *created_views(read.view_changes, left_alone),
        *_remarked(_after_tables(changes, declared, context.tables.created, read.recreated), warned.remarks),
    ]
    if past is not None:
        operations = list(
            without_undoing_repairs(operations, past, context.tables.created, context.default_schema)
        )
    every_database_has = None if past is None else {*past.roles, *declared.roles}
    heirs = live.heirs_of(declared.managed)
    return list(for_other_databases(operations, context.default_schema, every_database_has, heirs))


def _before_tables(
    changes: Changes,
    live: DatabaseSnapshot,
    dropped: set[TableKey],
    *,
    auth_is_made: bool,
    keep_memberships: bool,
    revokes_first: bool,
) -> Iterator[Call]:
    yield from public_revokes(changes.privileges, is_first=revokes_first)
    yield from roles(changes.roles, keep_memberships=keep_memberships)
    if changes.auth_functions:
        # A repair keeps the kind of the functions.
        signed = live.auth.signed and not live.auth_functions
        # A database that verifies callers has its functions and its key from elsewhere.
        undo = Call("drop_auth_functions", signed=False, implicit=auth_is_made and bool(live.auth.managed))
        yield Call("create_auth_functions", signed=signed or None).undone_by(undo)
    # First, so that the downgrade undoes it last: that depends on the remaining policies.
    yield from grants(one for one in changes.privileges.grants if one.object == ON_AUTH)
    yield from revokes(one for one in changes.privileges.revokes if one.object != ON_AUTH)
    owned = (one for one in live.owned_sequences if one.table in dropped)
    yield from privileges_to_restore(live, live.objects_of(dropped), owned)
    # Restrictive policies are dropped last and created first, in the upgrade and in the downgrade.
    for policy in sorted(removed_policies(changes), key=lambda policy: not policy.permissive):
        yield create_policy(policy).undo
    # DROP TABLE drops these flags, and the downgrade restores them.
    for table in sorted(dropped & live.row_security.keys(), key=str):
        closed, gone = live.row_security[table], RowSecurity(table=table, enabled=False)
        for call in row_security_calls(RowSecurityChange(closed, gone)):
            call.implicit = True
            yield call


def _after_tables(
    changes: Changes, models: Snapshot, created: set[TableKey], recreated: set[ObjectKey]
) -> Iterator[Call]:
    for flags in changes.row_security:
        for call in row_security_calls(flags):
            call.undo.implicit = flags.after.table in created
            yield call
    for change in changes.policies:
        if change.before and change.after:
            yield alter_policy(change.before, change.after)
    for policy in sorted(added_policies(changes), key=lambda policy: policy.permissive):
        yield create_policy(policy)
    created_objects = models.objects_of(created) | recreated
    # For a new sequence, only the column is known.
    created_objects |= {ObjectKey("SEQUENCE", *table) for table in created}
    privileges = changes.privileges
    for call in revokes(privileges.revokes_on_new):
        call.undo.implicit = True
        yield call
    to_grant = [one for one in privileges.grants if one.object != ON_AUTH]
    for goes_with_its_table in (True, False):
        for call in grants(one for one in to_grant if (one.object in created_objects) is goes_with_its_table):
            call.undo.implicit = goes_with_its_table
            yield call
    yield from default_privileges(changes.privileges)
    yield from revokes(one for one in privileges.revokes if one.object == ON_AUTH)


def _remarked(calls: Iterable[Call], remarks: Mapping[TableKey | PolicyKey, str]) -> Iterator[Call]:
    """Yield *calls* with the remarks on policies and on tables with FORCE."""
    for call in calls:
        schema = call.kwargs.get("schema")
        if call.function == "force_row_level_security":
            call.remark = remarks.get(TableKey(schema, call.args[0]))
        elif call.function in ("create_policy", "alter_policy"):
            call.remark = remarks.get(PolicyKey(TableKey(schema, call.args[1]), call.args[0]))
        yield call
