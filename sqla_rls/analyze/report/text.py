"""A report for a terminal."""

from __future__ import annotations

from sqla_rls.analyze.report.report import (
    STALE,
    Report,
    details,
    plain,
    scope,
    stale_title,
    summary,
    title,
    unknown_title,
)
from sqla_rls.analyze.verdict import Change


def text(report: Report) -> str:
    """Return *report* as text: a paragraph for each change and for each unknown result."""
    found = report.comparison
    paragraphs = [_change(report, change) for change in found.changes]
    paragraphs += [f"{unknown_title(one)}\n  {plain(one.reason)}" for one in found.unknown]
    paragraphs += [f"{stale_title(one)}\n  {STALE}" for one in report.stale]
    paragraphs.append("\n".join([f"{report.before} → {report.after}: {summary(report)}.", *scope(report)]))
    return "\n\n".join(paragraphs) + "\n"


def _change(report: Report, change: Change) -> str:
    reviewed = " (reviewed)" if report.is_reviewed(change) else ""
    return "\n  ".join([f"{title(change)}{reviewed}", *details(change)])
