"""The command ``sqla-rls lint``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from sqla_rls.cli import main
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
