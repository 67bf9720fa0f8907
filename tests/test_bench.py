"""The goals of speed beside results, and a run that is too short for figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.goals import GOALS, Result, report, table


@pytest.mark.one_postgres
def test_a_table_says_met_or_missed_or_not_measured() -> None:
    results = [
        Result(goal="insert", figure=1.151),
        Result(goal="threads", figure=0.994, condition="awake"),
        Result(goal="threads", figure=0.996, condition="asleep"),
        Result(goal="import", figure=61.2),
    ]
    lines = {line[:71].strip(): line[71:].split() for line in table(results).splitlines()}
    assert len(table(results).splitlines()) == 1 + len(GOALS) + 1
    assert lines["INSERT of one row, to the same without policies"] == ["1.15", "≤", "1.15", "met"]
    assert lines["import of sqla_rls beyond SQLAlchemy"] == ["61", "≤", "60", "ms", "MISSED"]
    assert lines["UPDATE by key, to the same without policies"] == ["≤", "1.15", "not", "measured"]
    threads = [line.split() for line in table(results).splitlines() if "8 threads" in line]
    assert [line[-5:] for line in threads] == [
        ["awake", "0.99", "≥", "1", "MISSED"],
        ["asleep", "1.00", "≥", "1", "met"],
    ]


@pytest.mark.one_postgres
def test_the_json_has_each_result_with_its_goal_and_names_what_is_missing() -> None:
    found = report([Result(goal="update", figure=1.3, condition=None)], {"python": "3.13"})
    assert json.loads(json.dumps(found))["setting"] == {"python": "3.13"}
    (result,) = found["results"]
    assert (result["goal"], result["figure"], result["limit"], result["met"]) == ("update", 1.3, 1.15, False)
    assert set(found["not measured"]) == set(GOALS) - {"update"}


@pytest.mark.long
def test_a_short_run_has_a_figure_for_each_goal(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.bench", "--seconds", "3", "--tables", "10", "20", "--json"]
    done = subprocess.run(
        [*command, file], capture_output=True, encoding="utf-8", cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    # The first is about 1,000 tables; a server may lack the extension.
    assert set(found["not measured"]) <= {"check", "extension psycopg", "extension asyncpg"}
    assert {one["condition"] for one in found["results"]} == {None, "asleep", "awake"}
