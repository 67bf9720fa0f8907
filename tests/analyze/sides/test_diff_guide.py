"""The output in docs/guide/diff.md is real: ``SQLA_RLS_WRITE_DIFF_GUIDE=1 pytest`` of this file writes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from sqla_rls.cli import main
from tests.support.guides import fences_of, write_snapshots

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "diff.md"
COMMAND = "$ sqla-rls diff before.json after.json\n"


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_the_guide_shows_a_real_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    fences = fences_of(guide)
    monkeypatch.chdir(tmp_path)
    write_snapshots(fences, "before.json", "after.json")
    done = CliRunner().invoke(main, ["diff", "before.json", "after.json"])
    assert done.exit_code == 1
    listing = next(token for token in fences if token.info == "console")
    if os.environ.get("SQLA_RLS_WRITE_DIFF_GUIDE"):
        old = f"```console\n{listing.content}```"
        GUIDE.write_text(guide.replace(old, f"```console\n{COMMAND}{done.stdout}```"), encoding="utf-8")
    else:
        assert listing.content == COMMAND + done.stdout, "run with SQLA_RLS_WRITE_DIFF_GUIDE=1"
