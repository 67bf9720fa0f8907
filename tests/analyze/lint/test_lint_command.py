"""The command ``sqla-rls lint``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from sqla_rls.analyze.sides.side import Built, Side
from sqla_rls.cli import main
from sqla_rls.exc import AnalysisError
from tests.analyze.lint.examples import run

OPEN = """
CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
CREATE POLICY own ON docs FOR SELECT USING (owner_id = current_setting('app.user', true));
"""
ONE = ["--select", "row-security-off"]


def invoke(*arguments: str, code: int) -> Result:
    done = CliRunner().invoke(main, ["lint", *arguments])
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def url(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A database with one finding."""
    with engine.begin() as connection:
        run(connection, OPEN)
    monkeypatch.chdir(tmp_path)
    return engine.url.render_as_string(hide_password=False)


def findings(url: str, *arguments: str, code: int) -> list[dict[str, Any]]:
    found = json.loads(invoke(url, *arguments, "--format", "json", code=code).stdout)
    return list(found["findings"])


def test_the_exit_code_depends_on_the_lowest_level(url: str) -> None:
    (one,) = findings(url, *ONE, code=1)

    assert (one["rule"], one["level"], one["object"]) == ("row-security-off", "warning", "public.docs")
    invoke(url, *ONE, "--fail-on", "error", code=0)
    assert findings(url, *ONE, "--ignore", "openings", code=0) == []
    assert "there is none of that name" in invoke(url, "--select", "nothing", code=2).output


UNDECIDABLE = """
CREATE TABLE versions (id int PRIMARY KEY);
ALTER TABLE versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY recent ON versions FOR SELECT USING (age(xmin) < 1000);
CREATE ROLE reader;
GRANT SELECT ON versions TO reader;
"""


@pytest.fixture
def undecidable(engine: Engine, url: str) -> Iterator[str]:
    """A database with a policy of which no world is an answer."""
    with engine.begin() as connection:
        run(connection, UNDECIDABLE)
    yield url
    with engine.begin() as connection:
        run(connection, "DROP TABLE versions; DROP ROLE reader")


@pytest.mark.exhaustive
def test_a_part_without_an_answer_fails(undecidable: str) -> None:
    (one,) = findings(undecidable, "--select", "everyone-reads", code=1)
    assert (one["rule"], one["level"], one["object"], one["role"]) == (
        "unknown",
        "error",
        "public.versions",
        "reader",
    )
    assert "xmin" in one["evidence"][0]["text"]


@pytest.mark.exhaustive
def test_only_a_reason_exempts_a_part_without_an_answer(undecidable: str) -> None:
    options = ["--select", "everyone-reads"]
    invoke(undecidable, *options, "--fail-on", "error", code=1)
    # No rule asks for these answers.
    assert findings(undecidable, "--select", "row-security-without-policies", code=0) == []
    assert findings(undecidable, *options, "--ignore", "unknown", code=0) == []
    # Else a rule that once had no answer would never be missed.
    invoke(undecidable, *options, "--baseline", "lint.json", "--write-baseline", code=0)
    invoke(undecidable, *options, "--baseline", "lint.json", code=1)
    Path("pyproject.toml").write_text(
        '[[tool.sqla_rls.lint.exempt]]\nrule = "unknown"\nobject = "public.versions"\n'
        'reason = "The policy was reviewed."\n'
    )
    assert "exempt 1" in invoke(undecidable, *options, code=0).output


def test_a_part_without_an_answer_fails_at_each_level_on_request(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> list[object]:
        raise AnalysisError("no answer")

    options = ["--select", "unique-reveals-rows"]
    invoke(url, *options, "--fail-on", "unknown", code=0)
    monkeypatch.setattr("sqla_rls.analyze.lint.rules.unique_reveals_rows.accesses", refuse)

    # A note isn't an opening: the level of its unknown parts is info.
    (one,) = findings(url, *options, code=0)
    assert (one["rule"], one["level"], one["object"]) == ("unknown", "info", "unique-reveals-rows")
    invoke(url, *options, "--fail-on", "unknown", code=1)
    invoke(url, *options, "--fail-on", "unknown", "--ignore", "unknown", code=0)
    # Warnings fail, too.
    invoke(url, *ONE, "--fail-on", "unknown", code=1)
    Path("pyproject.toml").write_text('[tool.sqla_rls.lint]\nfail-on = "unknown"\n')
    invoke(url, *options, code=1)


@pytest.mark.exhaustive
def test_a_rule_that_takes_too_long_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqla_rls.analyze.lint.run.STATEMENT_TIMEOUT", 1)

    (one,) = findings(url, "--select", "caller-privileges", code=1)

    assert (one["rule"], one["object"], one["kind"]) == ("unknown", "caller-privileges", "rule")
    assert "canceling statement" in one["evidence"][0]["text"]


def test_a_scratch_database_that_can_t_be_built_fails(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Side] = []

    def build(side: Side) -> Built:
        built.append(side)
        raise AnalysisError("no scratch database can be built: no Postgres is installed")

    monkeypatch.setattr(Side, "build", build)
    with engine.begin() as connection:
        run(connection, UNDECIDABLE + UNDECIDABLE.replace("versions", "notes").replace("reader", "writer"))
    try:
        found = findings(url, "--select", "everyone-reads", code=1)
    finally:
        with engine.begin() as connection:
            run(connection, "DROP TABLE versions, notes; DROP ROLE reader, writer")

    assert [one["object"] for one in found] == ["public.notes", "public.versions"]
    assert "no Postgres is installed" in found[0]["evidence"][0]["text"]
    assert len(built) == 1


def test_a_program_that_can_t_run_fails(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqla_rls.analyze.lint.others.pgrls_command", lambda: None)
    options = ["--select", "notes", "--with", "pgrls"]

    (one,) = findings(url, *options, code=1)

    assert (one["rule"], one["level"], one["object"]) == ("unknown", "error", "pgrls")
    invoke(url, *options, "--format", "sarif", code=1)


def test_a_schema_that_doesn_t_exist_is_no_answer(url: str) -> None:
    output = invoke(url, "--schema", "pubilc", code=2).output
    assert "schema 'pubilc' can't be looked at: the target has none of that name" in output


def test_an_exemption_needs_a_reason_and_a_finding(url: str) -> None:
    exempt = '[[tool.sqla_rls.lint.exempt]]\nrule = "row-security-off"\nobject = "public.*"\n'
    Path("pyproject.toml").write_text(exempt)
    assert "an exemption has no reason" in invoke(url, *ONE, code=2).output

    Path("pyproject.toml").write_text(exempt + 'reason = "It is empty."\n')
    assert "exempt 1" in invoke(url, *ONE, code=0).output

    Path("pyproject.toml").write_text(exempt.replace("public.*", "public.gone") + 'reason = "It is empty."\n')
    assert "has no finding" in invoke(url, *ONE, code=1).output


def test_a_baseline_has_the_reviewed_findings(url: str) -> None:
    assert "no such file" in invoke(url, *ONE, "--baseline", "lint.json", code=2).output
    invoke(url, *ONE, "--baseline", "lint.json", "--write-baseline", code=0)

    assert "reviewed 1" in invoke(url, *ONE, "--baseline", "lint.json", code=0).output
