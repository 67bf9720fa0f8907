"""Autogenerate compares the models with the database in five steps: read → normalize → diff → warn → order.

The diff is below; each other step is the module of its name.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic.operations import MigrateOperation, ops
from alembic.util import PriorityDispatchResult

from sqla_rls.alembic.autogenerate.defaults import (
    say_which_defaults_stay,
    uncompared_defaults,
    without_equal_defaults,
)
from sqla_rls.alembic.autogenerate.normalize import Normalized, normalize, undeclared_dependents
from sqla_rls.alembic.autogenerate.order import order
from sqla_rls.alembic.autogenerate.read import Context, Read, read
from sqla_rls.alembic.autogenerate.render import Call, Notes, Remarks
from sqla_rls.alembic.autogenerate.tables import without_tables_of_others
from sqla_rls.alembic.autogenerate.verdicts import verdicts
from sqla_rls.alembic.autogenerate.warn import warn
from sqla_rls.catalog.query import is_autocommit, pinned
from sqla_rls.declare.ignore import Ignored
from sqla_rls.diff.policies import Changes
from sqla_rls.diff.policies import diff as diff_snapshots
from sqla_rls.log import hearing_warnings
from sqla_rls.snapshot import SECRET_SCHEMA

#: The key of UpgradeOps.info that says that this ran, for reminder.py.
COMPARED = "sqla_rls.compared"
#: The key of UpgradeOps.info with the function that undoes ``collect_rarely()``.
_COLLECT = "sqla_rls.collect"
#: The new objects between two collections: 700 by default.
_RARELY = 100_000


def leave_out_schemas(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Keep ``include_schemas`` from dropping the table of the signing key, and those in ignored schemas.

    An ignored schema with a table of the models stays, so that Alembic doesn't create the table again.
    """
    ignored = _ignored(autogen_context)
    named = {table.schema for table in autogen_context.sorted_tables}
    schemas -= {one for one in schemas - named if one is not None and ignored.schema(one)}
    schemas.discard(SECRET_SCHEMA)
    return PriorityDispatchResult.CONTINUE


def _ignored(autogen_context: Any) -> Ignored:
    metadata = autogen_context.metadata
    return Ignored.by(metadata if isinstance(metadata, list | tuple) else [metadata])


def collect_rarely(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: set[str | None]
) -> PriorityDispatchResult:
    """Make garbage collection rare, and keep it from the models, while Alembic compares the tables.

    With 1,000 tables and their policies, it takes a tenth of the time, and frees nothing.  If the comparison
    fails, collection is as before once *upgrade_ops* is gone.
    """
    thresholds, has_frozen = gc.get_threshold(), not gc.get_freeze_count()
    if has_frozen:
        gc.freeze()
    if 0 < thresholds[0] < _RARELY:
        gc.set_threshold(_RARELY, *thresholds[1:])
    upgrade_ops.info[_COLLECT] = weakref.finalize(upgrade_ops, _collect, thresholds, has_frozen)
    return PriorityDispatchResult.CONTINUE


def _collect(thresholds: tuple[int, int, int], has_frozen: bool) -> None:
    """Undo ``collect_rarely()``."""
    if gc.get_threshold()[0] == _RARELY:
        gc.set_threshold(*thresholds)
    if has_frozen:
        # The objects of the comparison are old, too: no collection visits them right away.
        gc.freeze()
        gc.unfreeze()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Switch off garbage collection in the block.

    With 1,000 tables, it takes half of the time: it visits all reflected objects, and frees none.
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
    """Add the operations to *upgrade_ops* that make the database's row security match the models.

    The logged warnings become comments above the operations.
    """
    upgrade_ops.info[COMPARED] = True
    with hearing_warnings() as warnings:
        upgrade_ops.ops[:] = _compared(autogen_context, upgrade_ops, schemas)
    written = [one for one in upgrade_ops.ops if not (isinstance(one, Call) and one.implicit)]
    remarks = {one.remark for one in written if isinstance(one, Call)}
    if written and (unsaid := [one for one in dict.fromkeys(warnings) if one not in remarks]):
        upgrade_ops.ops.insert(0, Remarks(*unsaid))
    if collect := upgrade_ops.info.pop(_COLLECT, None):
        collect()
    return PriorityDispatchResult.CONTINUE


def _compared(
    autogen_context: Any, upgrade_ops: ops.UpgradeOps, schemas: Iterable[str | None]
) -> list[MigrateOperation]:
    connection = autogen_context.connection
    upgrade_ops.ops[:] = without_tables_of_others(connection, upgrade_ops.ops, _ignored(autogen_context))
    if any(isinstance(op, ops.ModifyTableOps) for op in upgrade_ops.ops):
        with pinned(connection):
            upgrade_ops.ops[:] = without_equal_defaults(connection, list(upgrade_ops.ops))
    context = Context.of(autogen_context, upgrade_ops, schemas)
    with pinned(connection):
        found = read(context)
        normalized = normalize(context, found)
        stay = uncompared_defaults(context, found.tables)
    say_which_defaults_stay(stay)
    changes = diff(context, found, normalized)
    warned = warn(context, found, normalized, changes)
    access = verdicts(context, found, normalized, changes)
    known = {(call.args[0], call.kwargs.get("schema")) for call in warned.to_confirm}
    # One confirmation for each table.
    warned.to_confirm.extend(
        call for call in access.to_confirm if (call.args[0], call.kwargs.get("schema")) not in known
    )
    operations = order(context, found, normalized, changes, warned)
    # A function of comments only is no Python.
    if any(not (isinstance(one, Call) and one.implicit) for one in operations):
        operations.insert(0, Notes(*access.upgrade))
    if any(not (isinstance(one, Call) and one.undo.implicit) for one in operations[1:]):
        # The last of the upgrade is the first of the downgrade.
        operations.append(Notes(downgrade=access.downgrade))
    return operations


def diff(context: Context, read: Read, normalized: Normalized) -> Changes:
    """Return the changes: the third step, without a connection."""
    live, declared, past = normalized.live, normalized.declared, context.past
    undeclared = undeclared_dependents(context, read, normalized)
    return diff_snapshots(
        past.in_common(live, declared, context.schemas) if past else live,
        declared,
        default_schema=context.default_schema,
        current_user=live.role_keywords["CURRENT_USER"],
        dropped=context.tables.dropped,
        recreated_objects=read.recreated,
        recreated=read.dependents.keys,
        foreign_recreated=[
            policy
            for key, policy in read.dependents.recreated.items()
            if key in undeclared - read.dependents.dropped.keys()
        ],
        made_roles=past.roles if past else None,
        made_auth_functions=normalized.auth_is_made,
        out_of_reach=live.out_of_reach,
        policies_only=read.policies_only,
        # env.py runs the migrations as it runs this.
        is_stepwise=is_autocommit(context.connection),
    )
