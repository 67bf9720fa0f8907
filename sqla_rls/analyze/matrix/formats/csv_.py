"""A matrix as CSV: a line for each entry and each way around."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Final

from sqla_rls.analyze.matrix.difference import MatrixDiff
from sqla_rls.analyze.matrix.entry import Entry, Matrix, WayAround
from sqla_rls.analyze.matrix.formats.told import examples, told, told_way

_HEAD: Final = ("object", "kind", "role", "command", "verdict", "words", "reason", "columns", "sql")
#: A spreadsheet runs a cell that begins with one of them as a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def csv_(found: Matrix | MatrixDiff) -> str:
    """Return *found* as CSV with a head; an apostrophe keeps a spreadsheet from running a cell."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    if isinstance(found, MatrixDiff):
        writer.writerow((*_HEAD, "direction", "before", "counterexample"))
        writer.writerows(map(_safe, _of_diff(found)))
    else:
        writer.writerow(_HEAD)
        writer.writerows(map(_safe, _of_matrix(found)))
    return written.getvalue()


def _of_matrix(matrix: Matrix) -> Iterator[tuple[str, ...]]:
    yield from map(_entry, matrix.entries)
    yield from map(_way, matrix.ways)


def _of_diff(found: MatrixDiff) -> Iterator[tuple[str, ...]]:
    for change in found.entries:
        shown = "; ".join(examples(change))
        yield (*_entry(change.entry), change.direction, told(change.before), shown)
    for one in found.ways:
        before = "" if one.before is None else told_way(one.before)
        yield (*_way(one.way), one.direction, before, "")


def _entry(entry: Entry) -> tuple[str, ...]:
    columns = ", ".join(entry.columns)
    return (
        *(entry.object, entry.kind, entry.role, entry.command, entry.verdict),
        *(entry.words, entry.reason, columns, entry.sql),
    )


def _way(way: WayAround) -> tuple[str, ...]:
    return (
        *(way.object, f"way around: {way.kind}", way.role, ", ".join(way.commands), "way around"),
        *(told_way(way), "", "", way.sql),
    )


def _safe(row: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in row)
