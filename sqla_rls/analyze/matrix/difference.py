"""The differences of two matrices: which entries and ways open and which close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

from sqla_rls.analyze.matrix.entry import Entry, Key, Matrix, WayAround
from sqla_rls.analyze.matrix.read import BUDGET, matrix_of
from sqla_rls.analyze.sides import Built, Side, build_sides, compare_built
from sqla_rls.analyze.verdict import Budget, Change, Comparison, Counterexample, Progress, Unknown
from sqla_rls.analyze.why.explanation import COMMANDS

#: "rewritten": the definition differs, and no world shows a difference.
Direction: TypeAlias = Literal["opens", "closes", "both", "unknown", "rewritten"]

_NEVER: Final = ("never", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryChange:
    """An entry that differs; an object or role that one side lacks has none there."""

    before: Entry | None
    after: Entry | None
    direction: Direction
    counterexamples: tuple[Counterexample, ...] = ()
    #: Why the direction is unknown.
    reason: str = ""

    @property
    def entry(self) -> Entry:
        """The entry after the change, or the one that is gone."""
        found = self.after or self.before
        assert found is not None
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WayChange:
    """A way around the policies that one side lacks, or that reaches others."""

    before: WayAround | None
    after: WayAround | None

    @property
    def way(self) -> WayAround:
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def direction(self) -> Direction:
        if self.before is None:
            return "opens"
        return "closes" if self.after is None else "unknown"


@dataclass(frozen=True, kw_only=True)
class MatrixDiff:
    """Two matrices and their changes."""

    before: Matrix
    after: Matrix
    entries: tuple[EntryChange, ...]
    ways: tuple[WayChange, ...]
    left_out: tuple[str, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[Key, EntryChange]:
        return {change.entry.key: change for change in self.entries}

    @cached_property
    def ways_by_key(self) -> Mapping[tuple[str, str, str], WayChange]:
        return {change.way.key: change for change in self.ways}

    def as_dict(self) -> dict[str, Any]:
        """Return JSON objects."""
        return {
            "before": self.before.name,
            "after": self.after.name,
            "entries": [asdict(change) for change in self.entries],
            "ways_around": [{**asdict(change), "direction": change.direction} for change in self.ways],
            "left_out": list(self.left_out),
        }


def diff_matrices(
    before: Side,
    after: Side,
    *,
    roles: Sequence[str] = (),
    schemas: Sequence[str] = (),
    budget: Budget = BUDGET,
    progress: Progress | None = None,
) -> MatrixDiff:
    """Return both matrices, with the counterexamples of ``compare_built()``.

    Args:
        before: the first side.
        after: the second side.
        roles: the roles; without them, those of either matrix.
        schemas: the schemas of the objects; without them, all.
        budget: how much is tried.
        progress: is called with the number of objects done, their number, and the next object.

    Raises:
        AnalysisError: a side can't be read or built.
    """
    options: dict[str, Any] = {"schemas": schemas, "budget": budget, "progress": progress}
    with build_sides(before, after) as built:
        comparison = compare_built(built, **options)
        first = _matrix(before, built[0], roles, options)
        second = _matrix(after, built[1], roles, options)
        if not roles and first.roles != second.roles:
            # A role that lost its last privilege has a column, too.
            first, second = (
                _with_roles(before, built[0], first, second.roles, options),
                _with_roles(after, built[1], second, first.roles, options),
            )
    return MatrixDiff(
        before=first,
        after=second,
        entries=tuple(_entries(first, second, comparison)),
        ways=tuple(_ways(first, second)),
        left_out=comparison.scope.left_out,
    )


def _matrix(side: Side, built: Built, roles: Sequence[str], options: Mapping[str, Any]) -> Matrix:
    return matrix_of(
        built.connection,
        name=side.name,
        roles=roles,
        left_out=built.left_out,
        incomplete=built.incomplete,
        **options,
    )


def _with_roles(
    side: Side, built: Built, matrix: Matrix, others: Sequence[str], options: Mapping[str, Any]
) -> Matrix:
    roles = sorted({*matrix.roles, *others} & {*matrix.all_roles})
    return matrix if set(roles) == set(matrix.roles) else _matrix(side, built, roles, options)


def _entries(before: Matrix, after: Matrix, comparison: Comparison) -> Iterator[EntryChange]:
    changes: dict[Key, Change] = {(one.object, one.role, one.command): one for one in comparison.changes}
    unknown: dict[Key, Unknown] = {(one.object, one.role, one.command): one for one in comparison.unknown}
    keys = {*before.by_key, *after.by_key}
    for key in sorted(keys, key=lambda one: (one[0], one[1], COMMANDS.index(one[2]))):
        old, new = before.by_key.get(key), after.by_key.get(key)
        if (change := changes.get(key)) is not None:
            examples = (change.counterexample, *filter(None, [change.closing]))
            yield EntryChange(before=old, after=new, direction=change.verdict, counterexamples=examples)
        elif (unclear := unknown.get(key)) is not None:
            yield EntryChange(before=old, after=new, direction="unknown", reason=unclear.reason)
        elif _told(old) != _told(new):
            direction: Direction = "rewritten"
            if _verdict(old) != _verdict(new):
                direction = "opens" if _rank(new) > _rank(old) else "closes"
            yield EntryChange(before=old, after=new, direction=direction)


def _told(entry: Entry | None) -> object:
    return (
        None
        if _verdict(entry) in _NEVER
        else entry and (entry.verdict, entry.words, entry.sql, entry.columns)
    )


def _verdict(entry: Entry | None) -> str | None:
    return None if entry is None or entry.verdict == "never" else entry.verdict


def _rank(entry: Entry | None) -> int:
    verdict = _verdict(entry)
    return 0 if verdict is None else ("unknown", "condition", "always").index(verdict) + 1


def _ways(before: Matrix, after: Matrix) -> Iterator[WayChange]:
    old, new = ({way.key: way for way in one.ways} for one in (before, after))
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield WayChange(before=old.get(key), after=new.get(key))
