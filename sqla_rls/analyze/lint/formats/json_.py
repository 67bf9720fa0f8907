"""Findings as JSON."""

from __future__ import annotations

import json

from sqla_rls.analyze.lint.run import Report, as_dict


def json_(report: Report) -> str:
    """Return *report* as JSON: ``{"findings": [{"rule", "level", "object", …}]}``."""
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False, default=str) + "\n"
