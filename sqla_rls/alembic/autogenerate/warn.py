"""The fourth step: warn of exposures, of unmanaged objects, and of conflicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Table

from sqla_rls.alembic.autogenerate.exposures import (
    exposures,
    say_what_callers_can_drop,
    say_what_callers_hold_past_row_security,
    say_which_views_expose,
    views_without_triggers,
)
from sqla_rls.alembic.autogenerate.forced import kept_from_the_owner
from sqla_rls.alembic.autogenerate.functions import (
    log_functions,
)
from sqla_rls.alembic.autogenerate.normalize import Normalized, undeclared_dependents
from sqla_rls.alembic.autogenerate.policies import log_changes
from sqla_rls.alembic.autogenerate.privileges import (
    say_who_must_grant,
)
from sqla_rls.alembic.autogenerate.read import Context, Read
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.alembic.autogenerate.tables import key_of
from sqla_rls.alembic.autogenerate.unmanaged import say_what_is_unmanaged
from sqla_rls.alembic.autogenerate.unprotected import say_what_callers_reach, say_what_opens_partitions
from sqla_rls.alembic.autogenerate.views import log_views
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.circles import circles, explanation
from sqla_rls.diff.policies import Changes
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    PolicyKey,
    Snapshot,
    TableKey,
)

log = autogenerate_log(__name__)


class Warned(NamedTuple):
    """The warnings that the revision repeats."""

    to_confirm: list[Call]
    remarks: Mapping[TableKey | PolicyKey, str]


def warn(context: Context, read: Read, normalized: Normalized, changes: Changes) -> Warned:
    """Log the changes, and warn of exposures, of unmanaged objects, and of conflicts."""
    live, declared, tables = normalized.live, normalized.declared, context.tables
    for remark in read.live.auth.remarks_on_edits():
        log.warning("%s", remark)
    for view in read.past_row_security:
        log.warning("%s", view)
    say_what_is_unmanaged(read.unmanaged)
    _say_what_is_left_alone(live, declared, read.tables)
    _say_what_stands_in_the_way(
        undeclared_dependents(context, read, normalized) & read.dependents.dropped.keys()
    )
    say_who_must_grant(read.live, changes.privileges.left_out)
    log_changes(changes)
    log_functions(read.function_changes)
    log_views(read.view_changes, read.views.in_the_way)
    say_what_callers_can_drop(declared, read.live.memberships)
    say_what_callers_reach(live, declared, tables.dropped | {view.key for view in read.past_row_security})
    say_what_opens_partitions(
        live,
        declared,
        (context.key(one) for one in read.tables if one.dialect_options["postgresql"]["partition_by"]),
        changes.privileges.default_revokes,
    )
    say_what_callers_hold_past_row_security(live, declared, changes.privileges.revokes)
    to_confirm = [
        *exposures(changes, live, tables.dropped),
        *views_without_triggers(read.lost_with_views),
    ]
    say_which_views_expose(read.view_changes)
    return Warned(to_confirm, kept_from_the_owner(live, declared) | _circles(read.declared))


def _circles(wanted: Snapshot) -> dict[TableKey | PolicyKey, str]:
    """Log a warning for each circle of policies, and return them by policy."""
    remarks: dict[TableKey | PolicyKey, str] = {}
    for circle in circles(wanted):
        log.warning("%s", remark := explanation(circle))
        remarks |= {policy.key: remark for policy in circle}
    return remarks


def _say_what_is_left_alone(live: DatabaseSnapshot, models: Snapshot, tables: Iterable[Table]) -> None:
    left_alone = {policy.table for policy in live.policies.values()} - models.row_security.keys()
    for table in tables if left_alone else ():
        if key_of(table, live.default_schema) in left_alone:
            log.warning(
                "autogenerate leaves table %s as it is: the table has policies in the database, and the "
                "model declares none. Declare them, or declare disable_row_level_security() to drop them "
                "and expose the table",
                table.fullname,
            )
    if models.auth_functions:
        for remark in live.auth.remarks():
            log.warning("%s", remark)


def _say_what_stands_in_the_way(policies: Iterable[PolicyKey]) -> None:
    for table, name in sorted(policies, key=str):
        log.warning(
            "this migration will fail: undeclared policy %s on %s depends on an object that it drops. "
            "Declare the policy, or drop it by hand",
            name,
            table.name,
        )
