"""A matrix as JSON."""

from __future__ import annotations

import json

from sqla_rls.analyze.matrix.difference import MatrixDiff
from sqla_rls.analyze.matrix.entry import Matrix


def json_(found: Matrix | MatrixDiff) -> str:
    """Return *found* as JSON."""
    return json.dumps(found.as_dict(), indent=2, ensure_ascii=False, default=str) + "\n"
