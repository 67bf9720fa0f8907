"""A report as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

from sqla_rls.analyze.report.report import Report


def json_(report: Report) -> str:
    """Return *report* as JSON; with a baseline, changes have ``reviewed``, and ``stale`` has old entries."""
    found = report.comparison.as_dict()
    if report.baseline is not None:
        for written, change in zip(found["changes"], report.comparison.changes, strict=True):
            written["reviewed"] = report.is_reviewed(change)
        found["stale"] = [asdict(entry) for entry in report.stale]
    return json.dumps(found, indent=2, ensure_ascii=False, default=str) + "\n"
