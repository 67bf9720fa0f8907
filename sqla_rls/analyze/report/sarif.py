"""A report as SARIF 2.1.0, for code scanning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqla_rls.analyze.report.baseline import digest
from sqla_rls.analyze.report.report import Report, details, plain, title, unknown_title

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
HOME: Final = "https://github.com/sqla-rls/sqla-rls"
#: Each rule with its level and its description.
_RULES: Final = {
    "opens": ("error", "Callers can do more after the change than before."),
    "both": ("error", "Callers can do more in one case, and less in another."),
    "closes": ("note", "Callers can do less after the change than before."),
    "unknown": ("warning", "No verdict was found."),
}


def sarif(report: Report) -> str:
    """Return *report* as SARIF; reviewed changes are suppressed results."""
    driver = {
        "name": "sqla-rls",
        "informationUri": HOME,
        **version_of_tool(),
        "rules": [
            {
                "id": f"access-{name}",
                "name": f"Access{name.capitalize()}",
                "shortDescription": {"text": description},
                "defaultConfiguration": {"level": level},
            }
            for name, (level, description) in _RULES.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": list(_results(report)),
        "properties": {
            "before": report.before,
            "after": report.after,
            "scope": asdict(report.comparison.scope),
            "stale": [asdict(entry) for entry in report.stale],
        },
    }
    found = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n"


def version_of_tool() -> dict[str, str]:
    try:
        return {"version": version("sqla-rls")}
    except PackageNotFoundError:
        return {}


def _results(report: Report) -> Iterator[dict[str, Any]]:
    for change in report.comparison.changes:
        message = "\n".join([title(change), *details(change)])
        result = _result(report, change.verdict, message, change.object)
        result["partialFingerprints"] = {
            "change/v1": f"{change.object} {change.role} {change.command} {digest(change)}"
        }
        result["properties"] = asdict(change)
        if report.is_reviewed(change):
            result["suppressions"] = [{"kind": "external", "status": "accepted"}]
        yield result
    for one in report.comparison.unknown:
        message = f"{unknown_title(one)}: {plain(one.reason)}"
        yield _result(report, "unknown", message, one.object)


def _result(report: Report, rule: str, message: str, name: str) -> dict[str, Any]:
    location: dict[str, Any] = {"logicalLocations": [{"fullyQualifiedName": name, "kind": "resource"}]}
    if report.path is not None:
        # GitHub refuses results without a file.
        location["physicalLocation"] = {
            "artifactLocation": {"uri": as_uri(report.path)},
            "region": {"startLine": 1},
        }
    return {
        "ruleId": f"access-{rule}",
        "ruleIndex": list(_RULES).index(rule),
        "level": _RULES[rule][0],
        "message": {"text": message},
        "locations": [location],
    }


def as_uri(path: str) -> str:
    """Return the URI of *path*, relative to the current directory if it lies there."""
    found, here = Path(path), Path.cwd()
    if found.is_absolute() and found.is_relative_to(here):
        found = found.relative_to(here)
    return found.as_uri() if found.is_absolute() else quote(found.as_posix())
