"""The output in docs/guide/explain.md is real; ``SQLA_RLS_WRITE_EXPLAIN_GUIDE=1 pytest`` writes it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.analyze.lint.examples import run
from tests.support.servers import cleared_server

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "explain.md"


def without_times(output: str) -> str:
    """Return *output* without the figures that depend on the machine."""
    return re.sub(r" +[\d,]+\.\d\b", " …", output)


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_the_guide_shows_a_real_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    fences = [token for token in MarkdownIt().parse(guide) if token.type == "fence"]
    (setup,) = [token.content for token in fences if token.info == "sql"]
    (listing,) = [token.content for token in fences if token.info == "console"]
    call, _, shown = listing.partition("\n")
    with cleared_server() as server:
        url = server.url(server.create_database())
        with create_engine(url, poolclass=NullPool).begin() as connection:
            connection.execute(CreateAuthFunctions())
            run(connection, setup)
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        done = CliRunner().invoke(main, shlex.split(os.path.expandvars(call))[2:])
    assert done.exit_code == 0, done.output
    if os.environ.get("SQLA_RLS_WRITE_EXPLAIN_GUIDE"):
        written = f"```console\n{call}\n{done.stdout}```"
        GUIDE.write_text(guide.replace(f"```console\n{listing}```", written), encoding="utf-8")
    else:
        assert without_times(shown) == without_times(done.stdout), "run with SQLA_RLS_WRITE_EXPLAIN_GUIDE=1"
