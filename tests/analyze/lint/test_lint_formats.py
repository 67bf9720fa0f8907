"""The formats of the findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from xml.dom.minidom import parseString

import jsonschema
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text

from sqla_rls.analyze.lint.exemptions import Exemption
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy, SourceLine
from sqla_rls.analyze.lint.formats import FORMATS
from sqla_rls.analyze.lint.registry import rules
from sqla_rls.analyze.lint.run import Report
from sqla_rls.analyze.lint.source import Sources
from todos import models as todos

SCHEMA = Path(__file__).parents[2] / "tables" / "sarif-2.1.0-rtm.5.json"
ROOT = Path(__file__).parents[3]
metadata = MetaData()
notes = Table(
    "no tes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("body", Text),
)


def finding(**parts: object) -> Finding:
    given: dict[str, object] = {
        "rule": "everyone-reads",
        "level": "error",
        "object": 'public."<script>,\n::"',
        "kind": "table",
        "text": "A & B read <everything>.",
        "evidence": [Evidence(kind="catalog", text="100 % of\nthe rows\x01")],
        "remedy": Remedy(sql="ALTER …;"),
    }
    return Finding(**{**given, **parts})  # type: ignore[arg-type] # the parts of a finding


@pytest.fixture
def report() -> Report:
    info = finding(level="info", source=SourceLine(path="app/models.py", line=7))
    return Report(
        target="app",
        findings=[finding(policy="read"), info],
        exempt=[(finding(), Exemption(rule="everyone-reads", object="*", reason="It's public."))],
        reviewed=[finding(column="id")],
        rules=list(rules().values()),
        path="pyproject.toml",
    )


def test_sarif_follows_its_schema(report: Report) -> None:
    found = json.loads(FORMATS["sarif"](report))
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(found)
    (run,) = found["runs"]

    assert [one["level"] for one in run["results"]] == ["error", "note", "error", "error"]
    assert [bool(one.get("suppressions")) for one in run["results"]] == [False, False, True, True]
    places = [one["locations"][0]["physicalLocation"] for one in run["results"][:2]]
    assert [one["artifactLocation"]["uri"] for one in places] == ["pyproject.toml", "app/models.py"]
    for one in run["results"]:
        assert run["tool"]["driver"]["rules"][one["ruleIndex"]]["id"] == one["ruleId"]


def test_junit_counts_errors_and_warnings_as_failures(report: Report) -> None:
    suite = parseString(FORMATS["junit"](report)).getElementsByTagName("testsuite")[0]

    assert suite.getAttribute("failures") == "1"
    assert len(suite.getElementsByTagName("failure")) == 1
    assert len(suite.getElementsByTagName("testcase")) == int(suite.getAttribute("tests"))


def test_a_name_ends_no_command_of_github(report: Report) -> None:
    first, second, *_ = FORMATS["github"](report).splitlines()

    assert first.startswith(
        '::error title=error everyone-reads%3A public."<script>%2C %3A%3A"%2C policy read::A'
    )
    assert second.startswith("::notice file=app/models.py,line=7,title=")


def test_json_begins_with_the_rule_the_level_and_the_object(report: Report) -> None:
    found = json.loads(FORMATS["json"](report))

    assert list(found["findings"][0])[:3] == ["rule", "level", "object"]
    assert found["exempt"][0]["reason"] == "It's public."


def lines(models: list[MetaData], given: list[Finding]) -> Iterator[str]:
    """Yield the text of the lines that findings point to."""
    sources = Sources(models)
    for one in given:
        place = sources.locate(one)
        yield (
            ""
            if place is None
            else (ROOT / place.path).read_text("utf-8").splitlines()[place.line - 1].strip()
        )


def test_a_finding_has_the_line_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    of_todos = [
        finding(object="public.todos"),
        finding(object="public.todos", column="task"),
        finding(object="public.todos", policy="crud-authenticated-policy-select"),
        finding(object="public.todos", policy="by hand"),
        finding(object="public.unknown"),
    ]

    assert list(lines([todos.Base.metadata], of_todos)) == [
        "class Todo(Base):",
        "task: Mapped[str] = mapped_column(Text)",
        "__table_args__ = (crud_policy(authenticated, read=auth_uid(user_id), modify=auth_uid(user_id)),)",
        "class Todo(Base):",
        "",
    ]
    of_notes = [finding(object='public."no tes"'), finding(object='public."no tes"', column="body")]
    assert list(lines([metadata], of_notes)) == ["notes = Table(", 'Column("body", Text),']
