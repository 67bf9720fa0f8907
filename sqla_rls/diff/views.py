"""The views to create, replace or drop."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sqla_rls.snapshot import ObjectKey, TableKey, View


class ViewChange(NamedTuple):
    """A change of a view; *before* is None for a new one.  *replaces*: CREATE OR REPLACE suffices."""

    before: View | None
    after: View
    replaces: bool


class ViewChanges(NamedTuple):
    """The changes of views, in the order of the migration."""

    #: The declared views that are new, changed, or recreated; the migration creates them after the tables.
    created: Sequence[ViewChange]
    #: The views to drop before the tables change, each before the views that it reads.
    dropped: Sequence[View]
    #: The dropped views that no model declares any more.
    gone: Sequence[View]

    @property
    def recreated(self) -> set[ObjectKey]:
        """The views that the migration drops or creates, so that their privileges are lost."""
        made = [change.after for change in self.created if not change.replaces]
        return {view.object for view in (*self.dropped, *made)}


def diff_views(
    live: Mapping[TableKey, View], declared: Mapping[TableKey, View], recreated: Collection[TableKey]
) -> ViewChanges:
    """Return the changes that turn *live* into *declared*; both are in an order of creation.

    CREATE OR REPLACE doesn't suffice for views *recreated*: their columns or an object that they read change.
    """
    return ViewChanges(
        created=[
            ViewChange(
                before, _with_comments(view, before), replaces=before is not None and key not in recreated
            )
            for key, view in declared.items()
            if (before := live.get(key)) != view or key in recreated
        ],
        dropped=[view for key, view in reversed([*live.items()]) if key in recreated or key not in declared],
        gone=[view for key, view in live.items() if key not in declared],
    )


def _with_comments(view: View, before: View | None) -> View:
    if before is None:
        return view
    return replace(view, comment=before.comment, column_comments=before.column_comments)
