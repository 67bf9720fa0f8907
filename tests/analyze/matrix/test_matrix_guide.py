"""The output in docs/guide/matrix.md is real; ``SQLA_RLS_WRITE_MATRIX_GUIDE=1`` writes it."""

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

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "matrix.md"
COMMANDS = ("matrix app.json", "matrix --diff app.json after.json")


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_the_guide_shows_real_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    fences = [token for token in MarkdownIt().parse(guide) if token.type == "fence"]
    scripts = [token.content for token in fences if token.info == "sql"]
    monkeypatch.chdir(tmp_path)
    with cleared_server() as server:
        url = server.url(server.create_database())
        for path, script in zip(("app.json", "after.json"), scripts, strict=True):
            with create_engine(url, poolclass=NullPool).begin() as connection:
                connection.connection.cursor().execute(script)
            done = CliRunner().invoke(main, ["snapshot", url.render_as_string()])
            assert done.exit_code == 0
            Path(path).write_text(done.stdout, encoding="utf-8")
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
