"""A report as workflow commands of GitHub Actions, which shows them as annotations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqla_rls.analyze.report.report import (
    STALE,
    Report,
    details,
    plain,
    stale_title,
    summary,
    title,
    unknown_title,
)

_LEVELS: Final = {"opens": "error", "both": "error", "closes": "notice"}


def github(report: Report) -> str:
    """Return *report* as lines ``::error title=…::…``, and a line for people."""
    return "\n".join([*_commands(report), f"{report.before} → {report.after}: {summary(report)}."]) + "\n"


def _commands(report: Report) -> Iterator[str]:
    for change in report.comparison.changes:
        level = "notice" if report.is_reviewed(change) else _LEVELS[change.verdict]
        yield command(level, title(change), "\n".join(details(change)))
    for one in report.comparison.unknown:
        yield command("warning", unknown_title(one), plain(one.reason))
    for entry in report.stale:
        yield command("warning", stale_title(entry), STALE)


def command(level: str, title: str, message: str, *, path: str | None = None, line: int | None = None) -> str:
    """Return a workflow command; *path* and *line* are the place of the annotation."""
    # The message ends at a line feed, and the title at a comma or at two colons.
    ends = "%\r\n"
    place = f"file={_escaped(path, ends + ':,')},line={line or 1}," if path is not None else ""
    return f"::{level} {place}title={_escaped(title, ends + ':,')}::{_escaped(message, ends)}"


def _escaped(words: str, special: str) -> str:
    return "".join(f"%{ord(one):02X}" if one in special else one for one in words)
