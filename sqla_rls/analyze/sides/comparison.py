"""The comparison of two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import text

from sqla_rls.analyze.sides.dump import read_dump
from sqla_rls.analyze.sides.side import Built, Side, build_sides
from sqla_rls.analyze.verdict import Budget, Change, Comparison, Progress, Same, Unknown
from sqla_rls.analyze.why.explanation import COMMANDS
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.analyze.worlds.objects import PUBLIC
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.exc import AnalysisError


def compare_sides(
    before: Side,
    after: Side,
    *,
    budget: Budget | None = None,
    schemas: Sequence[str] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Compare who can do what on two sides, in scratch databases.

    Args:
        before: the first side.
        after: the second side.
        budget: how much is tried.
        schemas: the schemas whose tables and views are compared; without them, all.
        progress: is called with the number of objects done, their number, and the next object.

    Returns:
        The changes, each with its smallest counterexample.  A table that one scratch database has only in
        part is unknown, and so is an object that reads it.

    Raises:
        AnalysisError: a side can't be read or built.
    """
    with build_sides(before, after) as built:
        return compare_built(built, budget=budget, schemas=schemas, progress=progress)


def compare_built(
    built: tuple[Built, Built],
    *,
    budget: Budget | None = None,
    schemas: Sequence[str] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Compare the scratch databases of two sides, as ``compare_sides()``."""
    comparison = compare_databases(
        built[0].connection,
        built[1].connection,
        budget=budget,
        schemas=schemas,
        left_out=dict.fromkeys(
            f"{name}: {sentence}"
            for name, one in zip(("before", "after"), built, strict=True)
            for sentence in one.left_out
        ),
        progress=progress,
        have_same_catalog=lambda: _have_same_catalog(built),
    )
    comparison = _without_versions(comparison, built)
    if not any(one.incomplete for one in built):
        return comparison
    read = [Schema.read(one.connection) for one in built]
    return _without_verdicts(comparison, _Parts(built, read, schemas))


def _have_same_catalog(built: tuple[Built, Built]) -> bool:
    """Return whether dumps of the scratch databases and their roles are the same; False: nothing shows it."""
    if any(one.incomplete for one in built):
        return False
    try:
        before, after = (read_dump(one.url) for one in built)
    except AnalysisError:
        return False
    return before == after


def _without_versions(comparison: Comparison, built: tuple[Built, Built]) -> Comparison:
    """Return *comparison* without a table of Alembic that one side has: models don't declare it."""
    before, after = (set(one.connection.scalars(_VERSION_TABLES)) for one in built)
    found = before ^ after
    if not found:
        return comparison
    left_out = [f"{name} is on one side only: the table of Alembic isn't compared." for name in sorted(found)]
    return replace(
        comparison,
        changes=tuple(one for one in comparison.changes if one.object not in found),
        same=tuple(one for one in comparison.same if one.object not in found),
        unknown=tuple(one for one in comparison.unknown if one.object not in found),
        scope=replace(comparison.scope, left_out=(*comparison.scope.left_out, *left_out)),
    )


_VERSION_TABLES: Final = text(
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class AS c "
    "JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relname = 'alembic_version'"
)


class _Parts:
    """The tables and views that a scratch database has only in part."""

    def __init__(self, built: tuple[Built, Built], read: Sequence[Schema], schemas: Collection[str]) -> None:
        before, after = (one.incomplete for one in built)
        self._incomplete = {*before, *after}
        self._different = {name for name in self._incomplete if before.get(name) != after.get(name)}
        self._read = read
        self._schemas = schemas

    def of(self, name: str) -> set[str]:
        """Return the incomplete ones among *name* and the relations that it reads."""
        return self._reached(name) & self._incomplete

    def differing(self) -> Iterator[str]:
        """Yield the objects that read one which lacks different parts on the two sides."""
        names = {name for schema in self._read for name in schema.relations} | self._different
        for name in sorted(names):
            if self._reached(name) & self._different and self._is_compared(name):
                yield name

    def _reached(self, name: str) -> set[str]:
        found = {name}
        for schema in self._read:
            if name in schema.relations:
                found |= schema.reads(name)
        return found

    def _is_compared(self, name: str) -> bool:
        found = [schema.relations[name].schema for schema in self._read if name in schema.relations]
        # An object that neither database has counts as compared.
        return not self._schemas or not found or found[0] in self._schemas


def _without_verdicts(comparison: Comparison, parts: _Parts) -> Comparison:
    """Return *comparison* with unknown results in place of verdicts on incomplete objects."""
    verdicts: list[Change | Same] = [*comparison.changes, *comparison.same]
    unknown = {(one.object, one.role, one.command): one for one in comparison.unknown}
    for one in verdicts:
        if found := parts.of(one.object):
            unknown[one.object, one.role, one.command] = Unknown(
                object=one.object, role=one.role, command=one.command, reason=_reason(found)
            )
    known = {name for name, _, _ in unknown}
    for name in parts.differing():
        if name not in known:
            for command in COMMANDS:
                unknown[name, PUBLIC, command] = Unknown(
                    object=name, role=PUBLIC, command=command, reason=_reason(parts.of(name))
                )
    return replace(
        comparison,
        changes=tuple(one for one in comparison.changes if not parts.of(one.object)),
        same=tuple(one for one in comparison.same if not parts.of(one.object)),
        unknown=tuple(unknown[key] for key in sorted(unknown)),
    )


def _reason(names: Collection[str]) -> str:
    return f"the scratch database has {', '.join(sorted(names))} only in part: see what is left out"
