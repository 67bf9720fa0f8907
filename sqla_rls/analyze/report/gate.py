"""The decision of a pipeline: which results fail it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from sqla_rls.analyze.report.report import Report

#: Each value fails on the results of those before it, too, except "never".
FailOn: TypeAlias = Literal["opens", "unknown", "any", "never"]
FAIL_ON: Final[tuple[str, ...]] = get_args(FailOn)


def is_closed(report: Report, fail_on: FailOn) -> bool:
    """Return whether *report* fails a pipeline; reviewed changes don't.

    Args:
        report: the report.
        fail_on: "opens" fails on a change that opens, and "never" on nothing.  "unknown" and "any" fail on an
            unknown result, too, and "any" on each change.
    """
    if fail_on == "never":
        return False
    comparison = report.comparison
    failing = comparison.changes if fail_on == "any" else comparison.opens
    if not all(map(report.is_reviewed, failing)):
        return True
    return fail_on != "opens" and bool(comparison.unknown)
