"""The plan of a query under the policies, beside the plans without them, as values and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.analyze.plans.search import Advice, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedQuery:
    """The plans of a query.

    Attributes:
        query: the query as text.
        role: the role of the caller.
        under_policies: the plan as the caller.
        without_row_security: the plan without row security; None if the connection may not see all rows.
        with_where: the plan without row security and with the hand-written WHERE; None without one.
        advice: the changes that make the query faster on generated rows.
        notes: sentences about the parts that are missing.
    """

    query: str
    role: str
    under_policies: Plan
    without_row_security: Plan | None = None
    with_where: Plan | None = None
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        plans = self.without_row_security, self.with_where
        without, with_where = (None if plan is None else plan.as_dict() for plan in plans)
        return {
            "query": self.query,
            "role": self.role,
            "under_policies": self.under_policies.as_dict(),
            "without_row_security": without,
            "with_where": with_where,
            "ratios": {
                name: _ratios(self.under_policies, plan)
                for name, plan in (
                    ("without_row_security", self.without_row_security),
                    ("with_where", self.with_where),
                )
                if plan is not None
            },
            "advice": [one.as_dict() for one in self.advice],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        plans = [
            ("under the policies", self.under_policies),
            ("without row security", self.without_row_security),
            ("with the WHERE", self.with_where),
        ]
        found = [(name, plan) for name, plan in plans if plan is not None]
        yield f"{self.query} as {self.role}"
        yield ""
        yield f"{'':22}{'time':>12}{'rows read':>12}{'ratio of times':>16}"
        for name, plan in found:
            times = "" if plan is self.under_policies else _times(self.under_policies, plan)
            yield f"{name:22}{_milliseconds(plan):>12}{plan.rows_read:>12,.0f}{times:>16}".rstrip()
        for name, plan in found:
            yield ""
            yield f"{name[0].upper()}{name[1:]}:"
            yield from _plan_lines(plan)
        for number, advice in enumerate(self.advice, 1):
            yield ""
            yield from _advice_lines(number, advice)
        if self.notes:
            yield ""
            yield from self.notes


def _ratios(slow: Plan, fast: Plan) -> dict[str, float | None]:
    is_measured = slow.milliseconds is not None and fast.milliseconds is not None
    return {
        "time": round(ratio(slow, fast), 2) if is_measured else None,
        "rows_read": round(slow.rows_read / max(fast.rows_read, 1), 2),
    }


def _milliseconds(plan: Plan) -> str:
    if plan.milliseconds is None:
        return "not run"
    return f"{'> ' if plan.timed_out else ''}{plan.milliseconds:,.1f} ms"


def _times(slow: Plan, fast: Plan) -> str:
    if slow.milliseconds is None or fast.milliseconds is None:
        return ""
    return f"{ratio(slow, fast):,.1f}"


def _plan_lines(plan: Plan) -> Iterator[str]:
    for scan in plan.scans:
        yield f"  {scan.node} on {scan.relation}" + (f" using {scan.index}" if scan.index else "")
        if scan.index_condition:
            yield f"    index condition: {scan.index_condition}"
        if scan.filter:
            yield f"    filter, for each row: {scan.filter}"
        if scan.removed is not None:
            yield f"    rows: {scan.rows:,.0f}, and {scan.removed:,.0f} that the filter removed"
    if plan.once:
        yield f"  evaluated once: {', '.join(plan.once)}"
    for name, times in plan.per_row.items():
        yield f"  evaluated for each row: {name}" + ("" if times is None else f", {times:,.0f} times")
    if plan.calls:
        yield f"  functions that are called for each row: {', '.join(plan.calls)}"


def _advice_lines(number: int, advice: Advice) -> Iterator[str]:
    change = advice.change
    yield f"Advice {number}, {change.kind.replace('_', ' ')}:"
    yield f"  {change.statement};"
    yield f"  In a migration: {change.operation}"
    yield f"  In the model: {change.hint}"
    yield (
        f"  On generated rows: {_milliseconds(advice.before)} before, {_milliseconds(advice.after)} after, "
        f"{advice.gain:,.1f} times as fast; {advice.evidence}."
    )
