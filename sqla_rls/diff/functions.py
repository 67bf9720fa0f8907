"""The functions to create, replace or drop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from sqla_rls.snapshot import ObjectKey, SQLFunction, TableKey


class FunctionChange(NamedTuple):
    """A change of a function; *before* is None for a new one, and *after* for a dropped one."""

    key: TableKey
    before: SQLFunction | None
    after: SQLFunction | None

    @property
    def replaces(self) -> bool:
        """Whether CREATE OR REPLACE suffices, since arguments and result stay the same."""
        return (
            self.before is not None
            and self.after is not None
            and (self.before.arguments, self.before.returns) == (self.after.arguments, self.after.returns)
        )

    @property
    def with_comment(self) -> FunctionChange:
        """The change with the comment of the dropped function on the created one."""
        if self.before is None or self.after is None:
            return self
        comment = None if self.replaces else self.before.comment
        before, after = (replace(one, comment=comment) for one in (self.before, self.after))
        return self._replace(before=before, after=after)


def diff_functions(
    live: Mapping[TableKey, SQLFunction], declared: Mapping[TableKey, SQLFunction]
) -> list[FunctionChange]:
    """Return the changes that turn *live* into *declared*.

    Both are in an order in which they can be created; the drops are in the reverse order.
    """
    gone = [key for key in live if key not in declared]
    keys = [*declared, *reversed(gone)]
    pairs = [FunctionChange(key, live.get(key), declared.get(key)) for key in keys]
    return [pair.with_comment for pair in pairs if pair.before != pair.after]


def recreated_functions(changes: Iterable[FunctionChange]) -> set[ObjectKey]:
    """Return the functions that *changes* drop or create, so that their privileges are lost."""
    return {ObjectKey("FUNCTION", *change.key) for change in changes if not change.replaces}
