"""The fifth step: operations in a safe order.

Drops come first, since a column that a policy names can't be dropped under it; creates come last,
since a policy may name a table or column that is new; roles stand before the tables, as do the functions
that defaults may call, and views, with the other functions, between the tables and the policies.  Each part
opens nothing before it is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from alembic.operations import MigrateOperation

from sqla_rls.alembic.autogenerate.elsewhere import for_other_databases, without_undoing_repairs
from sqla_rls.alembic.autogenerate.functions import (
    checked_functions,
    created_functions,
    dropped_functions,
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
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    ObjectKey,
    PolicyKey,
    RowSecurity,
    Snapshot,
    TableKey,
)

_ON_AUTH = ObjectKey("SCHEMA", None, AUTH_SCHEMA)


def order(
    context: Context, read: Read, normalized: Normalized, changes: Changes, warned: Warned
) -> list[MigrateOperation]:
    """All operations of the revision, those of Alembic itself among them."""
    live, declared, past = read.live, normalized.declared, context.past
    unchecked = read.functions.unchecked
    above, beneath = (
        [change for change in read.function_changes if (change.key in read.functions.beneath_tables) is side]
        for side in (False, True)
    )
    to_check = [change for change in beneath if change.key in unchecked]
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
        *dropped_functions(above, live),
        *created_functions(beneath, unchecked),
        *before_what_defaults_read(context.operations, [change.key.name for change in beneath if to_check]),
        *dropped_functions(beneath, live, unchecked),
        *created_functions(above),
        *checked_functions(to_check, dropped=False),
        *created_views(read.view_changes, live.privileges - normalized.live.privileges),
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
        # What was mended only is kept.
        signed = live.auth.signed and not live.auth_functions
        # A database that verifies callers got its functions, and its key, by another way than this revision.
        undo = Call("drop_auth_functions", signed=False, implicit=auth_is_made and bool(live.auth.managed))
        yield Call("create_auth_functions", signed=signed or None).undone_by(undo)
    # First, so that its undo comes last: it depends on the policies that are left then.
    yield from grants(one for one in changes.privileges.grants if one.object == _ON_AUTH)
    yield from revokes(one for one in changes.privileges.revokes if one.object != _ON_AUTH)
    owned = (one for one in live.owned_sequences if one.table in dropped)
    yield from privileges_to_restore(live, live.objects_of(dropped), owned)
    # What narrows access goes last and comes first, here and on the way back.
    for policy in sorted(removed_policies(changes), key=lambda policy: not policy.permissive):
        yield create_policy(policy).undo
    # What DROP TABLE takes along: nothing to do now, but to be restored by the downgrade.
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
    # Of a sequence that this migration makes, the migration knows the column alone.
    created_objects |= {ObjectKey("SEQUENCE", *table) for table in created}
    privileges = changes.privileges
    for call in revokes(privileges.revokes_on_new):
        call.undo.implicit = True
        yield call
    to_grant = [one for one in privileges.grants if one.object != _ON_AUTH]
    for goes_with_its_table in (True, False):
        for call in grants(one for one in to_grant if (one.object in created_objects) is goes_with_its_table):
            call.undo.implicit = goes_with_its_table
            yield call
    yield from default_privileges(changes.privileges)
    yield from revokes(one for one in privileges.revokes if one.object == _ON_AUTH)


def _remarked(calls: Iterable[Call], remarks: Mapping[TableKey | PolicyKey, str]) -> Iterator[Call]:
    """*calls*, with the remarks on tables that are forced, and on policies."""
    for call in calls:
        schema = call.kwargs.get("schema")
        if call.function == "force_row_level_security":
            call.remark = remarks.get(TableKey(schema, call.args[0]))
        elif call.function in ("create_policy", "alter_policy"):
            call.remark = remarks.get(PolicyKey(TableKey(schema, call.args[1]), call.args[0]))
        yield call
