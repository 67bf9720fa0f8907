"""Changes of views as operations."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqla_rls.alembic.autogenerate.privileges import privileges_to_restore, restored_grants
from sqla_rls.alembic.autogenerate.render import Call
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.diff.views import ViewChanges
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import Privilege, TableKey, View

log = autogenerate_log(__name__)


def dropped_views(views: ViewChanges, live: DatabaseSnapshot) -> Iterator[Call]:
    """Yield the drops of views, with the privileges that the downgrade restores."""
    for view in views.dropped:
        yield from privileges_to_restore(live, [view.object])
        yield _create(view).undo


def created_views(views: ViewChanges, left_alone: Collection[Privilege]) -> Iterator[Call]:
    """Yield the new, changed and recreated views, with the privileges of ignored roles, *left_alone*."""
    for change in views.created:
        if change.replaces and change.before:
            yield _call("replace_rls_view", change.after).undone_by(_call("replace_rls_view", change.before))
            continue
        yield _create(change.after)
        yield from restored_grants(left_alone, change.after.object)


def log_views(views: ViewChanges, in_the_way: Collection[TableKey]) -> None:
    for change in views.created:
        if change.before != change.after:
            log.info("Detected %s view %r", "changed" if change.before else "added", change.after.name)
    for view in views.gone:
        log.info("Detected removed view %r", view.name)
    for schema, name in sorted(in_the_way, key=str):
        log.warning(
            "this migration will fail: undeclared view %s reads an object that it drops or alters. "
            "Declare the view by view(), or drop it by hand",
            f"{schema}.{name}" if schema else name,
        )


def _create(view: View) -> Call:
    comments = {"comment": view.comment, "column_comments": dict(view.column_comments) or None}
    return _call("create_rls_view", view, **comments).undone_by(
        Call("drop_rls_view", view.name, schema=view.schema)
    )


def _call(operation: str, view: View, **comments: Any) -> Call:
    return Call(
        operation,
        view.name,
        view.definition,
        security_invoker=view.security_invoker,
        security_barrier=view.security_barrier or None,
        check_option=view.check_option,
        **comments,
        schema=view.schema,
    )
