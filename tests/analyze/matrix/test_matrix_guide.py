"""The output in docs/guide/matrix.md is real; ``SQLA_RLS_WRITE_MATRIX_GUIDE=1`` writes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sqla_rls.cli import main
from tests.support.guides import fences_of, write_snapshots

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "matrix.md"
COMMANDS = ("matrix app.json", "matrix --diff app.json after.json")


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_the_guide_shows_real_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    fences = fences_of(guide)
    monkeypatch.chdir(tmp_path)
    write_snapshots(fences, "app.json", "after.json")
    for command in COMMANDS:
        done = CliRunner().invoke(main, command.split())
        assert done.exit_code == 0, done.output
        shown = f"$ sqla-rls {command}\n"
        listing = next(token for token in fences if token.content.startswith(shown))
        if os.environ.get("SQLA_RLS_WRITE_MATRIX_GUIDE"):
            guide = guide.replace(f"```console\n{listing.content}```", f"```console\n{shown}{done.stdout}```")
            GUIDE.write_text(guide, encoding="utf-8")
        else:
            assert listing.content == shown + done.stdout, "run with SQLA_RLS_WRITE_MATRIX_GUIDE=1"
