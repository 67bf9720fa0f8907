"""A comparison with the names of its sides and the reviewed changes, ready to be written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqla_rls.analyze.report.baseline import Baseline, Entry
from sqla_rls.analyze.verdict import Change, Comparison, Counterexample, Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A comparison, ready to be written.

    Attributes:
        comparison: the comparison.
        before: the name of the first side, without a password.
        after: the name of the second side.
        baseline: the reviewed changes; None if no baseline was given.
        path: a file that SARIF names as the place of the changes.
    """

    comparison: Comparison
    before: str
    after: str
    baseline: Baseline | None = field(default=None)
    path: str | None = None

    def is_reviewed(self, change: Change) -> bool:
        """Return whether the baseline has *change*."""
        return self.baseline is not None and self.baseline.has(change)

    @property
    def stale(self) -> Sequence[Entry]:
        """The entries of the baseline whose changes are gone."""
        return () if self.baseline is None else self.baseline.stale(self.comparison)


STALE: Final = "The baseline has this change, and the comparison doesn't. Remove it from the baseline."


def title(change: Change) -> str:
    """Return a heading for *change*: its verdict, its object, its command and its role."""
    return plain(f"{change.verdict}: {change.object}, {change.command} as {change.role}")


def unknown_title(unknown: Unknown) -> str:
    """Return a heading for an unknown result."""
    return plain(f"unknown: {unknown.object}, {unknown.command} as {unknown.role}")


def stale_title(entry: Entry) -> str:
    """Return a heading for an entry of the baseline whose change is gone."""
    return plain(f"stale: {entry.object}, {entry.command} as {entry.role} ({entry.verdict})")


def examples(change: Change) -> Iterator[tuple[str, Counterexample]]:
    """Yield the counterexamples of *change*, each after its direction."""
    yield ("opens" if change.verdict == "both" else change.verdict), change.counterexample
    if change.closing is not None:
        yield "closes", change.closing


def details(change: Change) -> Iterator[str]:
    """Yield the counterexamples of *change* in lines: the words, then the data to replay them."""
    for direction, example in examples(change):
        prefix = f"{direction}: " if change.closing is not None else ""
        yield plain(f"{prefix}{example.text}")
        yield from facts(example)


def facts(example: Counterexample) -> Iterator[str]:
    """Yield the parts of a counterexample, a line each."""
    yield "claims: none" if example.claims is None else plain(f"claims: {as_json(example.claims)}")
    for name, value in example.settings.items():
        yield plain(f"setting: {name} = {as_json(value)}")
    for table, rows in example.rows.items():
        for row in rows:
            yield plain(f"row: {table} {as_json(row)}")
    yield plain(f"statement: {example.statement}")
    yield plain(f"before: {example.before}")
    yield plain(f"after: {example.after}")


def plain(words: str) -> str:
    """Return *words* in one line: a name may hold a line feed or a control character."""
    return " ".join("".join(one if one.isprintable() else " " for one in words).split())


def as_json(value: Any) -> str:
    """Return *value* as JSON, where Postgres's text stands for values that JSON doesn't have."""
    return json.dumps(value, ensure_ascii=False, default=str)


def summary(report: Report) -> str:
    """Return the numbers of the results."""
    comparison = report.comparison
    found = Counter[str](change.verdict for change in comparison.changes)
    found["unknown"] = len(comparison.unknown)
    parts = [f"{one} {found[one]}" for one in ("opens", "both", "closes", "unknown") if found[one]]
    reviewed = sum(map(report.is_reviewed, comparison.changes))
    return f"{', '.join(parts) or 'no difference found'}{f' ({reviewed} reviewed)' if reviewed else ''}"


def scope(report: Report) -> list[str]:
    """Return sentences about the extent of the comparison."""
    comparison = report.comparison
    found = comparison.scope
    sentences = [
        (
            "Tables and views whose definition, or a definition that they depend on, differs: "
            f"{found.objects:,}."
        ),
        (
            f"Tried: {found.statements:,} statements in {found.worlds:,} worlds with up to "
            f"{found.rows_per_table} rows per table."
        ),
    ]
    same = [one for one in comparison.same if one.worlds]
    if same:
        sentences.append(
            f"Combinations of object, role and command without a difference in these worlds: {len(same):,}."
        )
    if proved := sum(one.proved for one in same):
        sentences.append(
            f"Proved among these, since the worlds are all that the policies can tell apart: {proved:,}."
        )
    sentences += [plain(f"Left out: {one.rstrip('.')}.") for one in found.left_out]
    return sentences
