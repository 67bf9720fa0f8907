"""Which functions must be made, replaced or dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqla_rls.snapshot import ObjectKey, SQLFunction, TableKey


@dataclass(frozen=True, slots=True)
class FunctionChange:
    """*before* is None for a new function, *after* for one that goes."""

    key: TableKey
    before: SQLFunction | None
    after: SQLFunction | None

    @property
    def replaces(self) -> bool:
        """Whether CREATE OR REPLACE will do: it changes neither the arguments nor the result."""
        return (
            self.before is not None
            and self.after is not None
            and (self.before.arguments, self.before.returns) == (self.after.arguments, self.after.returns)
        )

    @property
    def with_comment(self) -> FunctionChange:
        """The same, such that the comment comes back with what is dropped and made."""
        if self.before is None or self.after is None:
            return self
        comment = None if self.replaces else self.before.comment
        before, after = (replace(one, comment=comment) for one in (self.before, self.after))
        return replace(self, before=before, after=after)


def diff_functions(
    live: Mapping[TableKey, SQLFunction], declared: Mapping[TableKey, SQLFunction]
) -> list[FunctionChange]:
    """What must happen to *live* for it to match *declared*.

    Both are in the order in which they can be made; what goes, goes in the reverse order.
    """
    gone = [key for key in live if key not in declared]
    keys = [*declared, *reversed(gone)]
    pairs = [FunctionChange(key, live.get(key), declared.get(key)) for key in keys]
    return [pair.with_comment for pair in pairs if pair.before != pair.after]


def recreated_functions(changes: Iterable[FunctionChange]) -> set[ObjectKey]:
    """What *changes* drop or make, and with it all privileges on it."""
    return {ObjectKey("FUNCTION", *change.key) for change in changes if not change.replaces}
