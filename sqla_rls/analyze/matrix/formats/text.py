"""A matrix for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.matrix.difference import MatrixDiff
from sqla_rls.analyze.matrix.entry import Matrix
from sqla_rls.analyze.matrix.formats.told import (
    counted,
    examples,
    grouped,
    has_privilege,
    told,
    told_way,
    told_way_change,
)
from sqla_rls.analyze.report.report import plain


def text(found: Matrix | MatrixDiff) -> str:
    """Return *found* as text: a paragraph for each object, or for each change."""
    return "\n".join(_of_diff(found) if isinstance(found, MatrixDiff) else _of_matrix(found)) + "\n"


def _of_matrix(matrix: Matrix) -> Iterator[str]:
    objects, roles = counted(len(matrix.objects), "object"), counted(len(matrix.roles), "role")
    yield plain(f"{matrix.name}: {objects}, {roles}")
    width = max((len(plain(role)) for role in matrix.roles), default=0)
    for name in matrix.objects:
        kind = matrix.of(name, matrix.roles[0])[0].kind
        yield ""
        yield plain(f"{name} ({kind})")
        without = []
        for role in matrix.roles:
            entries = [entry for entry in matrix.of(name, role) if has_privilege(entry)]
            if not entries:
                without.append(plain(role))
            for number, (commands, words) in enumerate(grouped(entries)):
                shown = plain(role) if number == 0 else ""
                yield f"  {shown.ljust(width)}  {commands}: {words}"
        if without:
            yield f"  no privilege: {', '.join(without)}"
    if matrix.ways:
        yield ""
        yield "Ways around the policies"
    for way in matrix.ways:
        yield f"  {plain(f'{way.kind} {way.object}, as {way.role}')}: {told_way(way)}"
    yield from _left_out(matrix.left_out)


def _of_diff(found: MatrixDiff) -> Iterator[str]:
    changes = counted(len(found.entries) + len(found.ways), "change")
    yield plain(f"{found.before.name} → {found.after.name}: {changes}")
    for change in found.entries:
        entry = change.entry
        yield ""
        yield plain(f"{change.direction}: {entry.object}, {entry.command} as {entry.role}")
        yield f"  before: {told(change.before)}"
        yield f"  after: {told(change.after)}"
        yield from (f"  {example}" for example in examples(change))
    if found.ways:
        yield ""
        yield "Ways around the policies"
    for one in found.ways:
        way = one.way
        about = plain(f"{way.kind} {way.object}, as {way.role}")
        yield f"  {one.direction}: {about}: {told_way_change(one)}"
    yield from _left_out(found.left_out)


def _left_out(sentences: tuple[str, ...]) -> Iterator[str]:
    if sentences:
        yield ""
    yield from (plain(f"Left out: {one.rstrip('.')}.") for one in sentences)
