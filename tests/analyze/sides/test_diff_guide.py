"""The output in docs/guide/diff.md is real: ``SQLA_RLS_WRITE_DIFF_GUIDE=1 pytest`` of this file writes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from tests.support.servers import cleared_server

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "diff.md"
COMMAND = "$ sqla-rls diff before.json after.json\n"


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_the_guide_shows_a_real_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    fences = [token for token in MarkdownIt().parse(guide) if token.type == "fence"]
    scripts = [token.content for token in fences if token.info == "sql"]
    monkeypatch.chdir(tmp_path)
    with cleared_server() as server:
        url = server.url(server.create_database())
        for path, script in zip(("before.json", "after.json"), scripts, strict=True):
            with create_engine(url, poolclass=NullPool).begin() as connection:
                connection.connection.cursor().execute(script)
            done = CliRunner().invoke(main, ["snapshot", url.render_as_string()])
            assert done.exit_code == 0
            Path(path).write_text(done.stdout, encoding="utf-8")
    done = CliRunner().invoke(main, ["diff", "before.json", "after.json"])
    assert done.exit_code == 1
    listing = next(token for token in fences if token.info == "console")
    if os.environ.get("SQLA_RLS_WRITE_DIFF_GUIDE"):
        old = f"```console\n{listing.content}```"
        GUIDE.write_text(guide.replace(old, f"```console\n{COMMAND}{done.stdout}```"), encoding="utf-8")
    else:
        assert listing.content == COMMAND + done.stdout, "run with SQLA_RLS_WRITE_DIFF_GUIDE=1"
