"""Findings as workflow commands of GitHub Actions, which shows them as annotations."""

from __future__ import annotations

from typing import Final

from sqla_rls.analyze.lint.finding import Finding
from sqla_rls.analyze.lint.formats.text import details, summary, title
from sqla_rls.analyze.lint.run import Report
from sqla_rls.analyze.report.github import command
from sqla_rls.analyze.report.report import plain

_LEVELS: Final = {"error": "error", "warning": "warning", "info": "notice"}


def github(report: Report) -> str:
    """Return *report* as lines ``::error file=…,line=…,title=…::…``, and a line for people."""
    lines = [_command(one) for one in report.findings]
    lines += [command("warning", "stale", plain(one)) for one in report.stale]
    lines += [command("notice", "left out", plain(one)) for one in report.left_out]
    return "\n".join([*lines, f"{plain(report.target)}: {summary(report)}."]) + "\n"


def _command(finding: Finding) -> str:
    source = finding.source
    return command(
        _LEVELS[finding.level or "info"],
        title(finding),
        "\n".join(details(finding)),
        path=source.path if source is not None else None,
        line=source.line if source is not None else None,
    )
