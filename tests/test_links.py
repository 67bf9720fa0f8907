"""The links of the documents lead to files and headings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.prose import DOCUMENTS

ROOT = Path(__file__).parents[1]
PARSER = MarkdownIt().enable("table")


def inline(path: Path) -> Iterator[tuple[str, Token]]:
    """Return each inline token of *path* with the type of the block that holds it."""
    tokens = PARSER.parse(path.read_text(encoding="utf-8"))
    for block, token in pairwise(tokens):
        if token.type == "inline":
            yield block.type, token


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of *path*."""
    return {
        re.sub(r"[^\w\- ]", "", token.content.lower()).replace(" ", "-")
        for block, token in inline(path)
        if block == "heading_open"
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_somewhere(path: Path) -> None:
    links = [
        str(child.attrs.get("href") or child.attrs.get("src"))
        for _, token in inline(path)
        for child in token.children or []
        if child.type in ("link_open", "image")
    ]
    for link in links:
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), link
