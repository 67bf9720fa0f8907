"""Which views must be made, replaced or dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqla_rls.snapshot import ObjectKey, TableKey, View


@dataclass(frozen=True, slots=True)
class ViewChange:
    """*before* is None for a new view; *replaces*: CREATE OR REPLACE will do."""

    before: View | None
    after: View
    replaces: bool


@dataclass(frozen=True, slots=True)
class ViewChanges:
    #: Of those declared: new, changed, or made again since what they read changes.  They follow the tables.
    created: Sequence[ViewChange] = ()
    #: What goes before the tables change, for good or not; each before those that it reads.
    dropped: Sequence[View] = ()
    #: Those that a migration made, and that no model declares any more.
    gone: Sequence[View] = ()

    @property
    def recreated(self) -> set[ObjectKey]:
        """What a migration drops or makes, and with it all privileges on it."""
        made = [change.after for change in self.created if not change.replaces]
        return {view.object for view in (*self.dropped, *made)}


def diff_views(
    live: Mapping[TableKey, View], declared: Mapping[TableKey, View], recreated: Collection[TableKey]
) -> ViewChanges:
    """What must happen to *live* for it to match *declared*; both are in the order of making.

    CREATE OR REPLACE won't do for those *recreated*: their columns differ, or what they read makes room.
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
