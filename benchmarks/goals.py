"""The goals of speed, in one table, and how results read beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

#: "asleep" leaves the cores alone; "awake" keeps each busy by a loop of idle priority.
Condition = Literal["asleep", "awake"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A limit for one measure: the most, or the least where *least* is true."""

    measure: str
    limit: float
    least: bool = False
    unit: str = ""

    def is_met(self, figure: float) -> bool:
        # As the table shows both.
        shown = round(figure, 2)
        return shown >= self.limit if self.least else shown <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}{self.unit}"


#: The drivers' names in measures.
_DRIVERS: Final = {"psycopg": "psycopg", "psycopg_async": "psycopg, asyncio", "asyncpg": "asyncpg"}


def _of_each(name: str, measure: str, **limits: float) -> dict[str, Goal]:
    """Return a goal with each driver's limit."""
    return {
        f"{name} {driver}": Goal(measure=f"{measure}, {_DRIVERS[driver]}", limit=limit)
        for driver, limit in limits.items()
    }


def _of_tasks(delay: str, limit: float) -> dict[str, Goal]:
    """Return the goals of many tasks on few connections."""
    return {
        f"tasks {delay} {driver}": Goal(
            measure=f"throughput of 200 tasks, 20 connections, {delay}, {name}", limit=limit, least=True
        )
        for driver, name in {"psycopg_async": "psycopg", "asyncpg": "asyncpg"}.items()
    }


#: Figures without a unit are ratios: to plain SQLAlchemy, to Alembic alone, or as the measure says.
GOALS: Final = {
    "check": Goal(measure="alembic check, 1,000 tables with 4 policies each, to Alembic alone", limit=1.08),
    "growth": Goal(measure="alembic check, time of a table with the most tables, to the fewest", limit=1.1),
    **_of_each("cpu", "CPU of the client", psycopg=1.1, psycopg_async=1.1, asyncpg=1.1),
    **_of_each("loopback", "transaction, loopback", psycopg=1.15, psycopg_async=1.15, asyncpg=1.15),
    **_of_each("1 ms", "transaction, 1 ms", psycopg=0.78, psycopg_async=0.78, asyncpg=0.78),
    "threads": Goal(measure="throughput of 8 threads, 1 ms, psycopg", limit=1.0, least=True),
    **_of_tasks("loopback", 0.85),
    **_of_tasks("1 ms", 1.0),
    **_of_each("extension", "signed by the extension, one person, to claims", psycopg=1.15, asyncpg=1.15),
    **_of_each("functions", "signed by built-in SQL, to claims", psycopg=1.1, asyncpg=1.1),
    "insert": Goal(measure="INSERT of one row, to the same without policies", limit=1.15),
    "update": Goal(measure="UPDATE by key, to the same without policies", limit=1.15),
    "first": Goal(measure="first request of a process: import, engine, transaction", limit=1.25),
    "import": Goal(measure="import of sqla_rls beyond SQLAlchemy", limit=60, unit=" ms"),
    "session": Goal(measure="memory of a bound session beyond a plain one", limit=2048, unit=" bytes"),
    "token": Goal(measure="memory of a token in the Verifier's cache", limit=8192, unit=" bytes"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The figure of one of GOALS; *condition* is None where the cores make no difference."""

    goal: str
    figure: float
    condition: Condition | None = None

    @property
    def is_met(self) -> bool:
        return GOALS[self.goal].is_met(self.figure)


def table(results: Sequence[Result]) -> str:
    """Return a line for each result, in the order of GOALS, and one for each goal without a figure."""
    width = max(len(goal.measure) for goal in GOALS.values())
    lines = [f"{'measure':{width}}  {'cores':8}{'figure':>8}  {'goal':14}"]
    for name, goal in GOALS.items():
        found = [one for one in results if one.goal == name]
        for one in found:
            met = "met" if one.is_met else "MISSED"
            figure = f"{one.figure:.0f}" if goal.unit else f"{one.figure:.2f}"
            lines.append(f"{goal.measure:{width}}  {one.condition or '':8}{figure:>8}  {goal!s:14}{met}")
        if not found:
            lines.append(f"{goal.measure:{width}}  {'':8}{'':>8}  {goal!s:14}not measured")
    return "\n".join(lines)


def report(results: Sequence[Result], setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return what goes into a JSON file."""
    return {
        "setting": dict(setting),
        "results": [
            {**asdict(one), **asdict(GOALS[one.goal]), "met": one.is_met}
            for name in GOALS
            for one in results
            if one.goal == name
        ],
        "not measured": [name for name in GOALS if name not in {one.goal for one in results}],
    }
