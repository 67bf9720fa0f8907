"""A matrix for the comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sqla_rls.analyze.matrix.difference import MatrixDiff
from sqla_rls.analyze.matrix.entry import Matrix
from sqla_rls.analyze.matrix.formats.told import (
    examples,
    has_privilege,
    told,
    told_way,
    told_way_change,
)
from sqla_rls.analyze.report.markdown import as_code, as_text
from sqla_rls.analyze.why.explanation import COMMANDS

#: GitHub accepts 65,536 characters.
_MOST_ROWS: Final = 200


def markdown(found: Matrix | MatrixDiff) -> str:
    """Return *found* as Markdown: tables of the entries and of the ways around."""
    return "\n".join(_of_diff(found) if isinstance(found, MatrixDiff) else _of_matrix(found)) + "\n"


def _of_matrix(matrix: Matrix) -> Iterator[str]:
    yield f"### Access in {as_code(matrix.name)}"
    rows = []
    for name in matrix.objects:
        for role in matrix.roles:
            entries = matrix.of(name, role)
            if any(map(has_privilege, entries)):
                cells = [as_text(told(entry)) if has_privilege(entry) else "never" for entry in entries]
                rows.append([as_code(name), as_code(role), *cells])
    yield from _table(("Object", "Role", *COMMANDS), rows)
    ways = [
        [f"{way.kind} {as_code(way.object)}", as_code(way.role), as_text(told_way(way))]
        for way in matrix.ways
    ]
    yield from _table(("Way around the policies", "Role", "Reason"), ways)
    yield from _left_out(matrix.left_out)


def _of_diff(found: MatrixDiff) -> Iterator[str]:
    yield f"### Access: {as_code(found.before.name)} → {as_code(found.after.name)}"
    rows = []
    for change in found.entries:
        entry = change.entry
        rows.append(
            [
                f"**{change.direction}**",
                as_code(entry.object),
                as_code(entry.role),
                entry.command,
                as_text(told(change.before)),
                as_text(told(change.after)),
                as_text("; ".join(examples(change))),
            ]
        )
    yield from _table(("Change", "Object", "Role", "Command", "Before", "After", "Example"), rows)
    ways = [
        [
            f"**{one.direction}**",
            f"{one.way.kind} {as_code(one.way.object)}",
            as_code(one.way.role),
            as_text(told_way_change(one)),
        ]
        for one in found.ways
    ]
    yield from _table(("Change", "Way around the policies", "Role", "Reason"), ways)
    if not rows and not ways:
        yield ""
        yield "No entry differs."
    yield from _left_out(found.left_out)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows[:_MOST_ROWS]:
        # Also in code: a table is split first.
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    if len(rows) > _MOST_ROWS:
        yield ""
        yield f"{len(rows) - _MOST_ROWS} more rows are in the other formats."


def _left_out(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield ""
    yield from (f"- Left out: {as_text(one)}" for one in sentences)
