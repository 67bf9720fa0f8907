"""Autogenerate: what must change, as operations in a safe order.

Drops come first, since a column that a policy names can't be dropped under it; creates come last,
since a policy may name a table or column that is new; roles stand before the tables, as do the functions
that defaults may call, and views, with the other functions, between the tables and the policies.  Each part
opens nothing before it is closed.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from alembic.operations import MigrateOperation, ops
from alembic.util import PriorityDispatchResult
from sqlalchemy import Column, Computed, Connection, Identity, MetaData, Table, Text
from sqlalchemy.schema import CreateIndex, CreateTable

from sqla_rls.alembic.autogenerate.defaults import without_equal_defaults
from sqla_rls.alembic.autogenerate.filters import Filters
from sqla_rls.alembic.autogenerate.forced import kept_from_the_owner
from sqla_rls.alembic.autogenerate.functions import (
    checked_functions,
    created_functions,
    dropped_functions,
    log_functions,
)
from sqla_rls.alembic.autogenerate.history import History, Made, history
from sqla_rls.alembic.autogenerate.openings import (
    openings,
    say_what_callers_can_drop,
    say_what_callers_hold_past_row_security,
    say_which_views_open,
)
from sqla_rls.alembic.autogenerate.privileges import (
    default_privileges,
    grants,
    log_privileges,
    restored,
    revokes,
    revokes_from_public,
    say_who_must_grant,
)
from sqla_rls.alembic.autogenerate.render import Call, Remarks
from sqla_rls.alembic.autogenerate.roles import log_roles, roles
from sqla_rls.alembic.autogenerate.unmanaged import say_what_is_unmanaged
from sqla_rls.alembic.autogenerate.unprotected import say_what_callers_reach, say_what_opens_partitions
from sqla_rls.alembic.autogenerate.views import created_views, dropped_views, log_views
from sqla_rls.catalog.auth_functions import AuthFunctions, auth_in_use
from sqla_rls.catalog.dependencies import calling_policies, dependent_policies, policies_on_every_column
from sqla_rls.catalog.functions import read_functions
from sqla_rls.catalog.missing import missing_calls
from sqla_rls.catalog.normalize import align
from sqla_rls.catalog.query import pinned
from sqla_rls.catalog.read import Live, read_database
from sqla_rls.catalog.text import with_reads_of_text
from sqla_rls.catalog.views import Views, read_views, views_past_row_security
from sqla_rls.ddl.compile import literally
from sqla_rls.declare.collect import declared, functions, grants_on
from sqla_rls.declare.ignore import Ignored
from sqla_rls.declare.views import declared_views
from sqla_rls.diff.circles import circles, explanation
from sqla_rls.diff.functions import FunctionChange, diff_functions, recreated_functions
from sqla_rls.diff.policies import Changes, RowSecurityChange, diff
from sqla_rls.diff.views import ViewChanges, diff_views
from sqla_rls.exc import DeclarationError
from sqla_rls.log import autogenerate_log, hearing_warnings
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    PUBLIC,
    ROLE_KEYWORDS,
    SECRET_SCHEMA,
    ObjectKey,
    Policy,
    PolicyKey,
    RowSecurity,
    SequenceKey,
    Snapshot,
    TableKey,
    unless_default,
)

log = autogenerate_log(__name__)

_ON_AUTH = ObjectKey("SCHEMA", None, AUTH_SCHEMA)
#: A column, None for the whole table.
_Taken: TypeAlias = tuple[TableKey, str | None]
#: The key of UpgradeOps.info that says that this ran, for reminder.py.
COMPARED = "sqla_rls.compared"


def leave_out_the_secret(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """With ``include_schemas`` the key's table is nobody's to drop."""
    schemas.discard(SECRET_SCHEMA)
    return PriorityDispatchResult.CONTINUE


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: with 1,000 tables, it takes as long as all else that we do.

    It would go through all that Alembic has reflected, and find nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
def compare_row_security(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    """Add to *upgrade_ops* what makes the database's row security match the models'.

    The warnings that are logged meanwhile stand above the operations, as comments.
    """
    with hearing_warnings() as warnings:
        found = _compare_row_security(autogen_context, upgrade_ops, schemas)
    written = [one for one in upgrade_ops.ops if not (isinstance(one, Call) and one.silent)]
    remarks = {one.remark for one in written if isinstance(one, Call)}
    if written and (unsaid := [one for one in dict.fromkeys(warnings) if one not in remarks]):
        upgrade_ops.ops.insert(0, Remarks(*unsaid))
    return found


def _compare_row_security(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: Iterable[str | None]
) -> PriorityDispatchResult:
    upgrade_ops.info[COMPARED] = True
    connection = autogen_context.connection
    default_schema = autogen_context.dialect.default_schema_name
    metadatas = autogen_context.metadata
    metadatas = list(metadatas) if isinstance(metadatas, list | tuple) else [metadatas]
    ignored = Ignored.by(metadatas)

    if any(isinstance(op, ops.ModifyTableOps) for op in upgrade_ops.ops):
        with pinned(connection):
            upgrade_ops.ops[:] = without_equal_defaults(connection, list(upgrade_ops.ops))
    created = {_key(op, default_schema) for op in upgrade_ops.ops if isinstance(op, ops.CreateTableOp)}
    dropped = {_key(op, default_schema) for op in upgrade_ops.ops if isinstance(op, ops.DropTableOp)}
    # What is granted on others than tables is known before the tables are.
    named = [one.object for one in grants_on(metadatas, default_schema)]
    looked_into = [schema for one in schemas if not ignored.schema(schema := one or default_schema)]
    filters = Filters(autogen_context, ignored)
    past = history(
        autogen_context.migration_context,
        default_schema,
        tables=(_key(table, default_schema) for table in autogen_context.sorted_tables),
    )
    made = {
        (kind, key)
        for kind, keys in ((("function", past.functions), ("view", past.views)) if past else ())
        for key in keys
        if not ignored.schema(key.schema or default_schema)
    }
    made_functions, made_views = (
        {key for kind, key in made if kind == one and (key.schema or default_schema) in looked_into}
        for one in ("function", "view")
    )
    all_functions = functions(metadatas, default_schema)
    declared_functions = [one for one in all_functions if filters.function(one.key, declared=True)]
    with pinned(connection):
        found = read_functions(
            connection,
            declared_functions,
            default_schema=default_schema,
            made={key for key in made_functions if filters.function(key, declared=False)},
            defaults=lambda: list(_defaults(upgrade_ops.ops)),
            dropped=[
                column or table.name for table, column in _taken_away(upgrade_ops.ops, default_schema)[0]
            ],
        )
        function_changes = diff_functions(found.live, found.declared)
        live = read_database(
            connection,
            default_schema=default_schema,
            schemas=looked_into,
            objects=[*named, *found.objects],
            is_compared=lambda schema: (
                not ignored.schema(schema)
                and autogen_context.run_name_filters(unless_default(schema, default_schema), "schema", {})
            ),
        )
        for remark in live.auth.remarks_on_edits():
            log.warning("%s", remark)
        tables = [
            table
            for table in autogen_context.sorted_tables
            if (key := _key(table, default_schema)) in created
            or (key in live.row_security and _included(autogen_context, table, key))
        ]
        wanted = declared(metadatas, default_schema=default_schema, tables=tables)
        ignored.refuse(wanted, default_schema)
        wanted = wanted.without(
            {ObjectKey("FUNCTION", *one.key) for one in all_functions if one not in declared_functions}
            | {
                ObjectKey("TABLE", *key)
                for view in declared_views(metadatas)
                if not filters.view(key := _key(view.table, default_schema), declared=view.table)
            }
        )
        read = with_reads_of_text(connection, wanted, live.row_security, default_schema=default_schema)
        taken = _taken_away(upgrade_ops.ops, default_schema)
        new_defaults = dict(_with_new_defaults(upgrade_ops.ops, default_schema))
        grown = {column.table for column, is_new in new_defaults.items() if is_new}
        views = read_views(
            connection,
            wanted.views,
            made={key for key in made_views if filters.view(key)},
            default_schema=default_schema,
            columns=set().union(*taken),
            functions=recreated_functions(function_changes),
            grown=grown,
        )
        view_changes = diff_views(views.live, views.declared, views.recreated)
        past_row_security = views_past_row_security(
            connection,
            {key for key in live.all_views - {*wanted.views, *views.live} if filters.view(key)},
            default_schema=default_schema,
        )
        for view in past_row_security:
            log.warning("%s", view)
        say_what_is_unmanaged(
            connection,
            wanted,
            filters,
            default_schema=default_schema,
            schemas=looked_into,
            made_roles=past.roles if past else (),
            made=made,
            compared={*(("function", key) for key in found.live), *(("view", key) for key in views.live)},
        )
        lost, held = _in_the_way(connection, default_schema, taken, function_changes, views, view_changes)
        replaced = {*lost, *held}
        ours = ignored.without(live, keep=dropped)
        expanded = {
            key
            for key in policies_on_every_column(connection, default_schema=default_schema, tables=grown)
            if key in wanted.policies and wanted.policies[key].has_star
        }
        models = align(
            connection,
            ours,
            ignored.without(wanted),
            replaced=replaced | expanded,
            new_defaults=new_defaults,
        )
        calls = _missing_calls(connection, live.auth, models, upgrade_ops.ops)
        auth_is_made = past is None or past.auth_functions or not models.auth_functions
        auth_is_made = auth_is_made or auth_in_use(
            connection,
            default_schema=default_schema,
            tables=[*models.managed, *models.views],
            functions=models.functions,
        )
    foreign = {
        key
        for key in replaced
        if key.table not in dropped and (key.table not in models.row_security or key not in ours.policies)
    }
    _refuse_missing_auth_functions(live.auth, models, tables, calls)
    _say_what_is_left_alone(ours, models, tables)
    _say_what_stands_in_the_way(foreign & lost.keys())
    recreated = recreated_functions(function_changes) | view_changes.recreated
    changes = diff(
        past.in_common(ours, models, looked_into) if past else ours,
        models,
        default_schema=default_schema,
        current_user=live.role_keywords["CURRENT_USER"],
        dropped=dropped,
        recreated=recreated,
        replaced=replaced,
        restored=[policy for key, policy in held.items() if key in foreign - lost.keys()],
        made_roles=None if past is None else past.roles,
        made_auth_functions=auth_is_made,
        out_of_reach=live.out_of_reach,
    )
    say_who_must_grant(live, changes.privileges.left_out)
    _log(changes)
    log_functions(function_changes)
    log_views(view_changes, views.in_the_way)
    say_what_callers_can_drop(models, live.memberships)
    say_what_callers_reach(ours, models, dropped | {view.key for view in past_row_security})
    say_what_opens_partitions(
        ours,
        models,
        {_key(one, default_schema) for one in tables if one.dialect_options["postgresql"]["partition_by"]},
        changes.privileges.default_revokes,
    )
    say_what_callers_hold_past_row_security(ours, models, changes.privileges.revokes)
    to_confirm = list(openings(changes, ours, dropped))
    say_which_views_open(view_changes)
    remarks = kept_from_the_owner(ours, models) | _circles(read)
    above, beneath = (
        [change for change in function_changes if (change.key in found.beneath_tables) is side]
        for side in (False, True)
    )
    unchecked = [change for change in beneath if change.key in found.unchecked]
    operations = [
        *to_confirm,
        *_before_tables(
            changes,
            live,
            dropped,
            auth_is_made=auth_is_made,
            keep_memberships=bool(ignored.roles),
            revokes_first=past is not None and past.lacks_revoke(live, models),
        ),
        *dropped_views(view_changes, live),
        *checked_functions(unchecked, dropped=True),
        *dropped_functions(above, live),
        *created_functions(beneath, found.unchecked),
        *_before_what_defaults_read(upgrade_ops.ops, [change.key.name for change in beneath if unchecked]),
        *dropped_functions(beneath, live, found.unchecked),
        *created_functions(above),
        *checked_functions(unchecked, dropped=False),
        *created_views(view_changes, live.privileges - ours.privileges),
        *_remarked(_after_tables(changes, models, created, recreated), remarks),
    ]
    if past is not None:
        operations = list(_repairs(operations, past, created, default_schema))
    everywhere = None if past is None else {*past.roles, *models.roles}
    heirs = live.heirs_of(models.managed)
    upgrade_ops.ops[:] = _runs_elsewhere(operations, default_schema, everywhere, heirs)
    return PriorityDispatchResult.CONTINUE


def _in_the_way(
    connection: Connection,
    default_schema: str,
    taken: tuple[set[_Taken], set[_Taken]],
    function_changes: Collection[FunctionChange],
    views: Views,
    view_changes: ViewChanges,
) -> Iterator[dict[PolicyKey, Policy]]:
    """The policies that depend on what goes for good, and those on what comes back changed.

    *taken* are the columns of both kinds.
    """
    made = recreated_functions(function_changes)
    again = made & {ObjectKey("FUNCTION", *change.key) for change in function_changes if change.after}
    gone = {(view.key, None) for view in view_changes.gone}
    anew = {(key, None) for key in views.recreated}
    dropped, retyped = taken
    for columns, called in ((dropped | gone, made - again), (retyped | anew, again)):
        policies = (
            *dependent_policies(connection, default_schema=default_schema, columns=columns),
            *calling_policies(connection, default_schema=default_schema, functions=called),
        )
        yield {policy.key: policy for policy in policies}


def _before_tables(
    changes: Changes,
    live: Live,
    dropped: set[TableKey],
    *,
    auth_is_made: bool,
    keep_memberships: bool,
    revokes_first: bool,
) -> Iterator[Call]:
    yield from revokes_from_public(changes.privileges, is_first=revokes_first)
    yield from roles(changes.roles, keep_memberships=keep_memberships)
    if changes.auth_functions:
        # What was mended only is kept.
        signed = live.auth.signed and not live.auth_functions
        # A database that verifies callers got its functions, and its key, by another way than this revision.
        undo = Call("drop_auth_functions", signed=False, silent=auth_is_made and bool(live.auth.ours))
        yield Call("create_auth_functions", signed=signed or None).undone_by(undo)
    # First, so that its undo comes last: it depends on the policies that are left then.
    yield from grants(one for one in changes.privileges.grants if one.object == _ON_AUTH)
    yield from revokes(one for one in changes.privileges.revokes if one.object != _ON_AUTH)
    owned = (one for one in live.owned_sequences if one.table in dropped)
    yield from restored(live, live.objects_of(dropped), owned)
    # What narrows access goes last and comes first, here and on the way back.
    for policy in sorted(_removed(changes), key=lambda policy: not policy.permissive):
        yield _create_policy(policy).undo
    # What DROP TABLE takes along: nothing to do now, but to be restored by the downgrade.
    for table in sorted(dropped & live.row_security.keys(), key=str):
        closed, gone = live.row_security[table], RowSecurity(table=table, enabled=False)
        for call in _row_security(RowSecurityChange(closed, gone)):
            call.silent = True
            yield call


def _after_tables(
    changes: Changes, models: Snapshot, created: set[TableKey], recreated: set[ObjectKey]
) -> Iterator[Call]:
    for flags in changes.row_security:
        for call in _row_security(flags):
            call.undo.silent = flags.after.table in created
            yield call
    for change in changes.policies:
        if change.before and change.after:
            yield _alter_policy(change.before, change.after)
    for policy in sorted(_added(changes), key=lambda policy: policy.permissive):
        yield _create_policy(policy)
    created_objects = models.objects_of(created) | recreated
    # Of a sequence that this migration makes, the migration knows the column alone.
    created_objects |= {ObjectKey("SEQUENCE", *table) for table in created}
    privileges = changes.privileges
    for call in revokes(privileges.revokes_on_new):
        call.undo.silent = True
        yield call
    to_grant = [one for one in privileges.grants if one.object != _ON_AUTH]
    for goes_with_its_table in (True, False):
        for call in grants(one for one in to_grant if (one.object in created_objects) is goes_with_its_table):
            call.undo.silent = goes_with_its_table
            yield call
    yield from default_privileges(changes.privileges)
    yield from revokes(one for one in privileges.revokes if one.object == _ON_AUTH)


def _runs_elsewhere(
    operations: Iterable[MigrateOperation],
    default_schema: str,
    roles: Collection[str] | None,
    heirs: Collection[TableKey],
) -> Iterator[MigrateOperation]:
    """*operations*, such that they also run in another schema, and where drift was never there.

    *roles* are those that every database has which runs the migrations; *heirs* are tables that it may lack.
    """
    for operation in operations:
        if isinstance(operation, Call):
            for call in (operation, operation.undo):
                if call.kwargs.get("object_type") == "SCHEMA" and call.args[1] == default_schema:
                    call.args = (call.args[0], None, *call.args[2:])
                elif call.function.endswith("_default_privileges") and (
                    call.kwargs.get("schema") == default_schema
                ):
                    del call.kwargs["schema"]
                    call.kwargs["current_schema"] = True
            if operation.function in ("revoke", "drop_policy", "revoke_role") and roles is not None:
                undo = operation.undo
                named = undo.kwargs.get("roles") or (
                    undo.args if undo.function == "grant_role" else undo.args[2]
                )
                if {*named} - {*roles, PUBLIC} - ROLE_KEYWORDS:
                    undo.kwargs["if_roles_exist"] = True
            if (
                operation.function == "revoke"
                and TableKey(operation.kwargs.get("schema"), operation.args[1]) in heirs
                and "object_type" not in operation.kwargs
            ):
                operation.undo.kwargs.pop("if_roles_exist", None)
                operation.undo.kwargs["if_exists"] = True
        yield operation


def _repairs(
    operations: Iterable[MigrateOperation], past: History, created: Collection[TableKey], default_schema: str
) -> Iterator[MigrateOperation]:
    """*operations*, of which the downgrade leaves those that restore the work of an earlier revision.

    In another database that work was never lost, and undoing them would take it away.
    """
    replaced: set[Made] = set()
    made: set[Made] | None = None
    for operation in operations:
        if isinstance(operation, Call) and operation.function in (
            "create_policy",
            "drop_policy",
            "enable_row_level_security",
            "force_row_level_security",
        ):
            is_policy = operation.function.endswith("policy")
            key = TableKey(operation.kwargs.get("schema"), operation.args[is_policy])
            one: Made = (operation.function, key, operation.args[0] if is_policy else None)
            if operation.function == "drop_policy":
                replaced.add(("create_policy", *one[1:]))
            elif key not in created and one not in replaced:
                made = past.protection(default_schema) if made is None else made
                operation.undo.silent = operation.undo.silent or one in made
        yield operation


def _circles(wanted: Snapshot) -> dict[TableKey | PolicyKey, str]:
    """A remark for each policy in a circle, which is logged, too."""
    remarks: dict[TableKey | PolicyKey, str] = {}
    for circle in circles(wanted):
        log.warning("%s", said := explanation(circle))
        remarks |= {policy.key: f"{said}." for policy in circle}
    return remarks


def _remarked(calls: Iterable[Call], remarks: Mapping[TableKey | PolicyKey, str]) -> Iterator[Call]:
    """*calls*, with the remarks on tables that are forced, and on policies."""
    for call in calls:
        schema = call.kwargs.get("schema")
        if call.function == "force_row_level_security":
            call.remark = remarks.get(TableKey(schema, call.args[0]))
        elif call.function in ("create_policy", "alter_policy"):
            call.remark = remarks.get(PolicyKey(TableKey(schema, call.args[1]), call.args[0]))
        yield call


def _removed(changes: Changes) -> list[Policy]:
    return [change.before for change in changes.policies if change.before and not change.after]


def _added(changes: Changes) -> list[Policy]:
    return [change.after for change in changes.policies if change.after and not change.before]


def _create_policy(policy: Policy) -> Call:
    schema, table = policy.table
    return Call(
        "create_policy",
        policy.name,
        table,
        command=policy.command,
        roles=sorted(policy.roles),
        using=policy.using,
        with_check=policy.with_check,
        permissive=None if policy.permissive else False,
        comment=policy.comment,
        schema=schema,
    ).undone_by(Call("drop_policy", policy.name, table, schema=schema))


def _alter_policy(before: Policy, after: Policy) -> Call:
    def call(old: Policy, new: Policy) -> Call:
        schema, table = old.table
        return Call(
            "alter_policy",
            old.name,
            table,
            roles=sorted(new.roles) if new.roles != old.roles else None,
            using=new.using if new.using != old.using else None,
            with_check=new.with_check if new.with_check != old.with_check else None,
            new_policy_name=new.name if new.name != old.name else None,
            schema=schema,
        )

    return call(before, after).undone_by(call(after, before))


def _row_security(change: RowSecurityChange) -> Iterator[Call]:
    schema, table = change.after.table
    for old, new, words in (
        (change.before.enabled, change.after.enabled, ("disable", "enable")),
        (change.before.forced, change.after.forced, ("no_force", "force")),
    ):
        if old != new:
            yield Call(f"{words[new]}_row_level_security", table, schema=schema).undone_by(
                Call(f"{words[old]}_row_level_security", table, schema=schema)
            )


def _key(item: Any, default_schema: str) -> TableKey:
    """Of a Table or an operation on one."""
    name = item.name if isinstance(item, Table) else item.table_name
    return TableKey.of(item.schema, name, default_schema)


def _included(autogen_context: Any, table: Table, key: TableKey) -> bool:
    parents = {"schema_name": key.schema}
    return bool(
        autogen_context.run_name_filters(table.name, "table", parents)
        and autogen_context.run_object_filters(table, table.name, "table", False, None)
    )


def _taken_away(
    operations: Iterable[MigrateOperation], default_schema: str
) -> tuple[set[_Taken], set[_Taken]]:
    """The columns that *operations* drop, and those whose type they change."""
    dropped: set[_Taken] = set()
    retyped: set[_Taken] = set()
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            for taken, more in zip(
                (dropped, retyped), _taken_away(operation.ops, default_schema), strict=True
            ):
                taken |= more
        elif isinstance(operation, ops.DropTableOp):
            dropped.add((_key(operation, default_schema), None))
        elif isinstance(operation, ops.DropColumnOp):
            dropped.add((_key(operation, default_schema), operation.column_name))
        elif isinstance(operation, ops.AlterColumnOp) and operation.modify_type is not None:
            retyped.add((_key(operation, default_schema), operation.column_name))
    return dropped, retyped


def _with_new_defaults(
    operations: Iterable[MigrateOperation], default_schema: str
) -> Iterator[tuple[SequenceKey, bool]]:
    """The columns whose defaults *operations* make, as a sequence is known by them; and which are new."""
    for operation in operations:
        if isinstance(operation, ops.ModifyTableOps):
            yield from _with_new_defaults(operation.ops, default_schema)
        elif isinstance(operation, ops.AddColumnOp):
            yield SequenceKey(*_key(operation, default_schema), operation.column.name), True
        elif isinstance(operation, ops.AlterColumnOp) and operation.modify_server_default is not False:
            yield SequenceKey(*_key(operation, default_schema), operation.column_name), False


def _defaults(operations: Iterable[MigrateOperation]) -> Iterator[str]:
    """SQL text that holds what the columns, constraints and indexes of *operations* call."""
    for operation in operations:
        table = Table("t", MetaData())
        if isinstance(operation, ops.ModifyTableOps):
            yield from _defaults(operation.ops)
        elif isinstance(operation, ops.CreateTableOp):
            table = operation.to_table()
        elif isinstance(operation, ops.AddColumnOp):
            table.append_column(operation.column._copy())
        elif isinstance(operation, ops.AlterColumnOp) and operation.modify_server_default:
            default: Any = operation.modify_server_default
            computed = [default._copy()] if isinstance(default, Computed | Identity) else []
            said = None if computed else getattr(default, "arg", default)
            table.append_column(Column("c", Text, *computed, server_default=said))
        elif isinstance(operation, ops.CreateIndexOp):
            yield str(CreateIndex(operation.to_index()).compile(**literally(None)))
        yield str(CreateTable(table, include_foreign_key_constraints=[]).compile(**literally(None)))


def _before_what_defaults_read(
    operations: list[MigrateOperation], functions: Collection[str]
) -> list[MigrateOperation]:
    """*operations*, such that the downgrade restores tables before columns whose defaults read them.

    ADD COLUMN calls the default, of *functions*, at once.
    """
    if not functions:
        return operations
    columns = [
        operation
        for operation in operations
        if isinstance(operation, ops.ModifyTableOps)
        and any(
            name in text
            for one in operation.ops
            if isinstance(one, ops.DropColumnOp)
            for text in _defaults([one.reverse()])
            for name in functions
        )
    ]
    others = [operation for operation in operations if operation not in columns]
    place = next((i for i, one in enumerate(others) if isinstance(one, ops.DropTableOp)), len(others))
    return [*others[:place], *columns, *others[place:]]


def _missing_calls(
    connection: Connection,
    auth: AuthFunctions,
    models: Snapshot,
    operations: Iterable[MigrateOperation],
) -> list[tuple[str, str]]:
    if not (auth.settled and auth.missing):
        return []
    new_tables = [one.to_table() for one in operations if isinstance(one, ops.CreateTableOp)]
    return list(missing_calls(connection, models, auth.missing, new_tables))


def _refuse_missing_auth_functions(
    auth: AuthFunctions,
    models: Snapshot,
    tables: Iterable[Table],
    calls: Iterable[tuple[str, str]],
) -> None:
    """Raise DeclarationError for a call of a function of schema ``auth`` that nothing here can make.

    *calls* are those that Postgres has found in views and functions.
    """
    if not (auth.settled and auth.missing):
        return
    texts = [
        (f"policy {policy.name!r} on {policy.table.name}", sql)
        for policy in models.policies.values()
        for sql in (policy.using, policy.with_check)
    ]
    texts += [
        (f"the default of {column}", str(getattr(column.server_default, "arg", "")))
        for table in tables
        for column in table.columns
    ]
    found = [(what, name) for what, sql in texts for name in _named(auth.missing, sql)]
    for what, name in (*found, *calls):
        cure = (
            "Update the extension: ALTER EXTENSION pg_session_jwt UPDATE"
            if auth.extension
            else "Call auth.jwt() and auth.uid(), which every provider has: jwt_claim('sub') in a policy or "
            "view, auth.jwt()['sub'].astext in a default"
        )
        raise DeclarationError(
            f"{what} can't be made: it calls auth.{name}(), which this database lacks, and the "
            f"migrating role may not create it in schema auth. {cure}"
        )
    for function in models.functions.values():
        for name in _named(auth.missing, function.body) if function.language != "sql" else ():
            log.warning(
                "function %s names auth.%s(), which this database lacks: a call of it fails. "
                "Call auth.jwt() and auth.uid(), which every provider has",
                function.name,
                name,
            )


def _named(functions: Iterable[str], sql: str | None) -> list[str]:
    return [name for name in sorted(functions) if f"{AUTH_SCHEMA}.{name}(" in (sql or "")]


def _say_what_is_left_alone(live: Live, models: Snapshot, tables: Iterable[Table]) -> None:
    left_alone = {policy.table for policy in live.policies.values()} - models.row_security.keys()
    for table in tables:
        if _key(table, live.default_schema) in left_alone:
            log.warning(
                "table %s has policies in the database and declares none: it is left as it is. "
                "Declare disable_row_level_security() to drop them and open it",
                table.fullname,
            )
    if models.auth_functions:
        for remark in live.auth.remarks():
            log.warning("%s", remark)


def _say_what_stands_in_the_way(policies: Iterable[PolicyKey]) -> None:
    for table, name in sorted(policies, key=str):
        log.warning(
            "policy %s on %s depends on what this migration drops: the migration will fail. "
            "The models don't declare it; declare what it shall be, or drop it by hand",
            name,
            table.name,
        )


def _log(changes: Changes) -> None:
    added, removed = ({policy.key for policy in one} for one in (_added(changes), _removed(changes)))
    altered = {change.after.key for change in changes.policies if change.before and change.after}
    for verb, keys in (
        ("added", added - removed),
        ("removed", removed - added),
        ("changed", altered | (added & removed)),
    ):
        for table, name in sorted(keys, key=str):
            log.info("Detected %s policy %r on %r", verb, name, table.name)
    for flags in changes.row_security:
        log.info("Detected changed row security of %r", flags.after.table.name)
    log_roles(changes.roles)
    log_privileges(changes.privileges)
