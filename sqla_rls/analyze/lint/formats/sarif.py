"""Findings as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from sqla_rls.analyze.lint.finding import Finding, SourceLine
from sqla_rls.analyze.lint.formats.text import details
from sqla_rls.analyze.lint.run import Report
from sqla_rls.analyze.report.report import plain
from sqla_rls.analyze.report.sarif import HOME, SCHEMA, as_uri, version_of_tool

_LEVELS: Final = {"error": "error", "warning": "warning", "info": "note"}


def sarif(report: Report) -> str:
    """Return *report* as SARIF; exempt and reviewed findings are suppressed results."""
    driver = {
        "name": "sqla-rls",
        "informationUri": HOME,
        **version_of_tool(),
        "rules": [
            {
                "id": one.name,
                "shortDescription": {"text": one.summary},
                "fullDescription": {"text": one.reason or one.summary},
                "helpUri": f"{HOME}/blob/main/docs/reference/lint/{one.name}.md",
                "defaultConfiguration": {"level": _LEVELS[one.level]},
            }
            for one in report.rules
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": list(_results(report)),
        "properties": {
            "target": report.target,
            "stale": list(report.stale),
            "leftOut": list(report.left_out),
        },
    }
    found = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n"


def _results(report: Report) -> Iterator[dict[str, Any]]:
    names = [one.name for one in report.rules]
    yield from (_result(one, names, report.path) for one in report.findings)
    for one in report.reviewed:
        yield {
            **_result(one, names, report.path),
            "suppressions": [{"kind": "external", "status": "accepted"}],
        }
    for one, exemption in report.exempt:
        suppression = {"kind": "external", "status": "accepted", "justification": exemption.reason}
        yield {**_result(one, names, report.path), "suppressions": [suppression]}


def _result(finding: Finding, names: list[str], path: str | None) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": finding.object, "kind": "resource"}]
    }
    source = finding.source or (None if path is None else SourceLine(path=path, line=1))
    if source is not None:
        # GitHub refuses results without a file.
        location["physicalLocation"] = {
            "artifactLocation": {"uri": as_uri(source.path)},
            "region": {"startLine": source.line},
        }
    return {
        "ruleId": finding.rule,
        # A rule of another program isn't one of the driver's.
        **({"ruleIndex": names.index(finding.rule)} if finding.rule in names else {}),
        "level": _LEVELS[finding.level or "info"],
        "message": {"text": plain("\n".join(details(finding)))},
        "locations": [location],
        "partialFingerprints": {"finding/v1": " ".join(finding.key)},
        "properties": finding.as_dict(),
    }
