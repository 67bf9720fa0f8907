"""Guides whose listings are real answers about the SQL that they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner
from markdown_it import MarkdownIt
from markdown_it.token import Token
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.cli import main
from tests.support.servers import cleared_server


def fences_of(guide: str) -> list[Token]:
    """Return the code blocks of a guide."""
    return [token for token in MarkdownIt().parse(guide) if token.type == "fence"]


def write_snapshots(fences: Sequence[Token], *names: str) -> None:
    """Run the blocks of SQL one by one in a database, and write its snapshot after each to a file."""
    scripts = [token.content for token in fences if token.info == "sql"]
    with cleared_server() as server:
        url = server.url(server.create_database())
        for name, script in zip(names, scripts, strict=True):
            with create_engine(url, poolclass=NullPool).begin() as connection:
                connection.connection.cursor().execute(script)
            done = CliRunner().invoke(main, ["snapshot", url.render_as_string()])
            assert done.exit_code == 0
            Path(name).write_text(done.stdout, encoding="utf-8")
