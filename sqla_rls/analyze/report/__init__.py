"""The formats of a comparison, the baseline of reviewed changes, and the gate of a pipeline."""

from collections.abc import Callable, Mapping
from typing import Final

from sqla_rls.analyze.report.baseline import Baseline
from sqla_rls.analyze.report.gate import FAIL_ON, FailOn, is_closed
from sqla_rls.analyze.report.github import github
from sqla_rls.analyze.report.json_ import json_
from sqla_rls.analyze.report.markdown import markdown
from sqla_rls.analyze.report.report import Report
from sqla_rls.analyze.report.sarif import sarif
from sqla_rls.analyze.report.text import text

#: The functions that write a report, by the names of their formats.
FORMATS: Final[Mapping[str, Callable[[Report], str]]] = {
    "text": text,
    "json": json_,
    "markdown": markdown,
    "sarif": sarif,
    "github": github,
}

__all__ = ["FAIL_ON", "FORMATS", "Baseline", "FailOn", "Report", "is_closed"]
