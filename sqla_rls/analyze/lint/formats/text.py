"""Findings for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from sqla_rls.analyze.lint.finding import LEVELS, Finding
from sqla_rls.analyze.lint.run import Report
from sqla_rls.analyze.report.report import plain


def text(report: Report) -> str:
    """Return *report* as text: a paragraph for each finding, then the numbers."""
    paragraphs = ["\n  ".join(_lines(one)) for one in report.findings]
    paragraphs.append("\n".join(_end(report)))
    return "\n\n".join(paragraphs) + "\n"


def title(finding: Finding) -> str:
    """Return a heading: the level, the rule, the object and its part."""
    parts = [
        finding.object,
        finding.policy and f"policy {finding.policy}",
        finding.column and f"column {finding.column}",
        finding.command,
        finding.role and f"role {finding.role}",
    ]
    return plain(f"{finding.level} {finding.rule}: {', '.join(filter(None, parts))}")


def details(finding: Finding) -> Iterator[str]:
    """Yield the sentence, the evidence and the remedy, a line each."""
    yield plain(finding.text)
    yield from (plain(f"{one.kind}: {one.text}") for one in finding.evidence)
    remedy = finding.remedy
    if remedy.text is not None:
        yield plain(f"remedy: {remedy.text}")
    if remedy.sql is not None:
        yield plain(f"SQL: {remedy.sql}")
    if remedy.python is not None:
        yield plain(f"Python: {remedy.python}")


def _lines(finding: Finding) -> Iterator[str]:
    yield title(finding)
    if finding.source is not None:
        yield f"{finding.source.path}:{finding.source.line}"
    yield from details(finding)


def summary(report: Report) -> str:
    """Return the numbers of the findings."""
    found = Counter(one.level for one in report.findings)
    parts = [f"{level} {found[level]}" for level in LEVELS if found[level]]
    parts += [f"exempt {len(report.exempt)}"] if report.exempt else []
    parts += [f"reviewed {len(report.reviewed)}"] if report.reviewed else []
    return ", ".join(parts) or "nothing found"


def _end(report: Report) -> Iterator[str]:
    yield from map(plain, report.stale)
    yield from (plain(f"Left out: {one.rstrip('.')}.") for one in report.left_out)
    looking = [one for one in report.rules if one.group != "unknown"]
    # The last line: sqla-rls check prints it alone.
    yield plain(f"{report.target}: {summary(report)} ({len(looking)} rules).")
