"""The guide docs/guide/lint.md shows the real output; docs/reference/lint/index.md lists the rules.

SQLA_RLS_WRITE_REFERENCE=1 writes both.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from sqla_rls.analyze.lint.formats import FORMATS
from sqla_rls.analyze.lint.registry import rules
from sqla_rls.analyze.lint.rule import GROUPS
from tests.analyze.lint.examples import Examples

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = DOCS / "guide" / "lint.md"
INDEX = DOCS / "reference" / "lint" / "index.md"
IS_WRITING = bool(os.environ.get("SQLA_RLS_WRITE_REFERENCE"))
CALL = '$ sqla-rls lint "$DATABASE_URL" --select openings\n'


@pytest.mark.exhaustive
def test_the_output_is_real() -> None:
    page = GUIDE.read_text(encoding="utf-8")
    blocks = {token.info: token.content for token in MarkdownIt().parse(page) if token.type == "fence"}
    with Examples.start() as examples:
        found = FORMATS["text"](examples.look(blocks["sql"], select=["openings"]))
    if IS_WRITING:
        page = page.replace(f"```console\n{blocks['console']}", f"```console\n{CALL}{found}")
        GUIDE.write_text(page, encoding="utf-8")
    assert f"```console\n{CALL}{found}```" in page


def index() -> str:
    """Return the page with all rules."""
    lines = ["# Rules", "", "The rules of [`sqla-rls lint`](../../guide/lint.md), by their groups."]
    for group in GROUPS:
        lines += ["", f"## {group}", "", "| Rule | Level | Finding |", "| --- | --- | --- |"]
        lines += [
            f"| [{one.name}]({one.name}.md) | {one.level} | {one.summary} |"
            for one in rules().values()
            if one.group == group
        ]
    return "\n".join(lines) + "\n"


def test_the_index_lists_each_rule() -> None:
    if IS_WRITING:
        INDEX.write_text(index(), encoding="utf-8")
    assert INDEX.read_text(encoding="utf-8") == index()
