"""``sqla-rls prove``: its output and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sqla_rls.cli import main

TODOS = ["prove", "--models", "todos.models:Base", "--worlds", "20"]


def test_the_command_prints_the_proof_and_the_score() -> None:
    found = CliRunner().invoke(main, [*TODOS, "--mutants"])
    assert found.exit_code == 0, found.output
    assert "authenticated: DELETE, INSERT, SELECT, UPDATE as declared" in found.output
    assert "11 of 11 mutants found" in found.output


@pytest.mark.exhaustive
def test_the_command_prints_json() -> None:
    told = CliRunner().invoke(main, [*TODOS, "--format", "json"])
    assert json.loads(told.output)["controls"] == 8


@pytest.mark.exhaustive
def test_the_exit_code_tells_a_violation_from_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wide.py").write_text(
        "from sqlalchemy import *\nfrom sqla_rls import *\nfrom sqla_rls.analyze.intent import *\n"
        "metadata = MetaData()\n"
        "docs = Table('docs', metadata, Column('id', Integer, primary_key=True), Column('author', Text),\n"
        "             Policy('read', 'SELECT', authenticated, using='true'))\n"
    )
    (tmp_path / "wide_intents.py").write_text(
        "from wide import docs\nfrom sqla_rls.analyze.intent import intends, owner\n"
        "intends(docs, 'SELECT', role='authenticated', rows=owner('author'))\n"
    )
    (tmp_path / "bare.py").write_text(
        "from sqlalchemy import *\nmetadata = MetaData()\n"
        "docs = Table('docs', metadata, Column('id', Integer, primary_key=True))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    given = ["prove", "--models", "wide:metadata", "--worlds", "20"]
    unstated = CliRunner().invoke(main, given)
    assert (unstated.exit_code, "Not proved:" in unstated.output) == (0, True), unstated.output
    violated = CliRunner().invoke(main, [*given, "--intents", "wide_intents"])
    assert violated.exit_code == 1
    assert "def test_authenticated_may_not_select_public_docs" in violated.output
    for wrong, hint in (
        (["prove"], "--models"),
        (["prove", "--models", "nowhere:Base"], "can't be imported"),
        (["prove", "--models", "bare:metadata"], "the models declare no policies"),
        ([*given, "--intents", "nowhere"], "can't be imported"),
    ):
        told = CliRunner().invoke(main, wrong)
        assert (told.exit_code, hint in told.output) == (2, True), told.output
