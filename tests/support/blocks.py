"""The code blocks of a document, and what it shows as their output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from markdown_it import MarkdownIt

_PARSER: Final = MarkdownIt().enable("table")


_INVISIBLE: Final = re.compile(r"<!-- invisible-code-block: (\w+)\n(.*?)\n?-->\s*", re.DOTALL)


_TESTED: Final = re.compile(r"<!-- (blocks )?tested by: (\S+) -->\s*")


_CODE: Final = re.compile(r"\{code-block\} ?(\w+)|(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A code block.

    Attributes:
        shown: the output that the document shows; None if it shows none.
        tested_by: the test that runs it; None if it runs here.
    """

    language: str
    code: str
    line: int
    shown: str | None = None
    tested_by: str | None = None


def blocks(text: str) -> Iterator[Block]:
    """Return the blocks of a document."""
    found: list[Block] = []
    whole: str | None = None
    tested: str | None = None
    for token in _PARSER.parse(text):
        start, _ = token.map or (0, 0)
        if token.type == "html_block":
            if invisible := _INVISIBLE.fullmatch(token.content):
                found.append(Block(language=invisible[1], code=invisible[2] + "\n", line=start + 1))
            elif named := _TESTED.match(token.content):
                whole, tested = (named[2], None) if named[1] else (whole, named[2])
        elif token.type == "fence" and (language := _CODE.fullmatch(token.info.strip())):
            name = language[1] or language[2]
            is_output = name == "text" and tested is None and found and found[-1].shown is None
            if is_output and found[-1].tested_by == whole and found[-1].language != "text":
                last = found.pop()
                found.append(
                    Block(
                        language=last.language,
                        code=last.code,
                        line=last.line,
                        shown=token.content,
                        tested_by=last.tested_by,
                    )
                )
            else:
                found.append(
                    Block(language=name, code=token.content, line=start + 1, tested_by=tested or whole)
                )
            tested = None
        elif token.type != "inline":
            # The marker stands directly before its block.
            tested = tested if token.type == "html_block" else None
    yield from found


def matches(output: str, shown: str) -> bool:
    """Return whether *output* is as *shown*: a line ``…`` stands for lines, ``…`` in a line for text."""
    lines = [
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()).replace("…", ".*") + r"[ ]*\n"
        for line in shown.splitlines()
    ]
    return re.fullmatch("".join(lines), output if output.endswith("\n") else output + "\n") is not None


def difference(output: str, shown: str | None) -> str | None:
    """Return a message if *output* isn't as *shown*."""
    if shown is None or matches(output, shown):
        return None
    return f"The document shows:\n{shown}\nThe output is:\n{output}"


def table(names: Sequence[str], rows: Iterator[Sequence[Any]] | psycopg.Cursor[Any]) -> str:
    """Return rows as psql shows them, without the count."""
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, *cells)
    ]
    rule = "-+-".join("-" * width for width in widths)
    return f" {lines[0]}\n-{rule}-\n" + "".join(f" {line}\n" for line in lines[1:])
