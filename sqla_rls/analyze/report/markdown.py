"""A report for the comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import islice
from typing import Final

from sqla_rls.analyze.report.baseline import Entry
from sqla_rls.analyze.report.report import STALE, Report, details, plain, scope, summary, title
from sqla_rls.analyze.verdict import Change, Unknown

#: GitHub accepts 65,536 characters.
_MOST_DETAILS: Final = 25
_MOST_ROWS: Final = 200


def markdown(report: Report) -> str:
    """Return *report* as Markdown: a table of the results, and a section to unfold for each change."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    found = report.comparison
    yield f"### Who can do what: {summary(report)}"
    yield ""
    yield f"{as_code(report.before)} → {as_code(report.after)}"
    rows = list(_rows(report))
    if rows:
        yield ""
        yield "| Verdict | Object | Command | Role | Example or reason |"
        yield "| --- | --- | --- | --- | --- |"
        yield from rows[:_MOST_ROWS]
        yield from _rest(len(rows) - _MOST_ROWS, "results")
    for change in islice(found.changes, _MOST_DETAILS):
        yield from _details(change)
    yield from _rest(len(found.changes) - _MOST_DETAILS, "changes")
    yield ""
    yield from _list(scope(report))


def _rows(report: Report) -> Iterator[str]:
    for change in report.comparison.changes:
        verdict = f"**{change.verdict}**{' (reviewed)' * report.is_reviewed(change)}"
        yield _row(verdict, change, change.counterexample.text)
    for one in report.comparison.unknown:
        yield _row("unknown", one, one.reason)
    for entry in report.stale:
        yield _row("stale", entry, STALE)


def _row(verdict: str, one: Change | Unknown | Entry, words: str) -> str:
    cells = [verdict, as_code(one.object), one.command, as_code(one.role), as_text(words)]
    # Also in code: a table is split first.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _details(change: Change) -> Iterator[str]:
    yield ""
    yield f"<details><summary>{escape(title(change))}</summary>"
    yield ""
    content = list(details(change))
    fence = "`" * max(3, _longest_run("\n".join(content)) + 1)
    yield from (f"{fence}text", *content, fence)
    yield ""
    yield "</details>"


def _rest(number: int, noun: str) -> Iterator[str]:
    if number > 0:
        yield ""
        yield f"{number} more {noun} are in the report as text or JSON."


def _list(sentences: Iterable[str]) -> Iterator[str]:
    yield from (f"- {as_text(sentence)}" for sentence in sentences)


def as_text(words: str) -> str:
    """Return *words* as Markdown that shows them as they are."""
    escaped = "".join(f"\\{one}" if one in "\\`*_[]<>#~" else one for one in words.replace("&", "&amp;"))
    return plain(escaped)


def as_code(name: str) -> str:
    fence = "`" * (_longest_run(name) + 1)
    space = " " if "`" in name else ""
    return f"{fence}{space}{plain(name)}{space}{fence}"


def _longest_run(content: str) -> int:
    longest = run = 0
    for one in content:
        run = run + 1 if one == "`" else 0
        longest = max(longest, run)
    return longest
