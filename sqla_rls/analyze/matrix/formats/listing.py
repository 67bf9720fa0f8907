"""A matrix as a file to commit: one sorted line for each entry with a privilege, and for each way around."""

from __future__ import annotations

from typing import Final

from sqla_rls.analyze.matrix.entry import Entry, Matrix, WayAround
from sqla_rls.analyze.matrix.formats.told import has_privilege, told_way
from sqla_rls.analyze.report.report import plain

_HEAD: Final = (
    "# Who can do what: written by `sqla-rls matrix --write`, compared by `sqla-rls matrix --check`.\n"
    "# Object, role, command: rows | definition. A command that has no line is never permitted.\n"
)


def listing(matrix: Matrix) -> str:
    """Return the lines of *matrix*; the same access and definitions give the same text."""
    lines = [_entry(entry) for entry in matrix.entries if has_privilege(entry)]
    lines += [_way(way) for way in matrix.ways]
    return _HEAD + "".join(f"{line}\n" for line in sorted(lines))


def _entry(entry: Entry) -> str:
    columns = f" (columns {', '.join(entry.columns)})" if entry.columns else ""
    # The number of trials may differ from version to version.
    reason = f" ({entry.reason})" if entry.reason and entry.basis != "worlds" else ""
    sql = f" | {entry.sql}" if entry.sql else ""
    return plain(f"{entry.object}, {entry.role}, {entry.command}: {entry.words}{reason}{columns}{sql}")


def _way(way: WayAround) -> str:
    sql = f" | {way.sql}" if way.sql else ""
    return plain(f"way around: {way.kind} {way.object}, {way.role}, {told_way(way)}{sql}")
