"""Print the section of CHANGELOG.md for a tag.

``python -m tests.changelog v1.2.3`` fails unless the section is there, is dated, and has entries.
"""

from __future__ import annotations

import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def notes(changelog: str, tag: str) -> str:
    """Return the section of *changelog* for *tag*, without its heading.

    Raises:
        ValueError: if the section is missing, undated or empty.
    """
    version = tag.removeprefix("v")
    tokens = MarkdownIt().parse(changelog)
    headings = [
        (heading.map[0], text.content)
        for heading, text in pairwise(tokens)
        if heading.type == "heading_open" and heading.tag == "h2" and heading.map
    ]
    ends = [line for line, _ in headings[1:]] + [None]
    for (start, heading), end in zip(headings, ends, strict=True):
        name, _, day = heading.partition(" - ")
        if name.strip("[]") != version:
            continue
        try:
            date.fromisoformat(day)
        except ValueError:
            raise ValueError(
                f"no release of {tag}: the heading {heading!r} has no date. "
                f"Write `## [{version}] - YYYY-MM-DD` in CHANGELOG.md."
            ) from None
        section = "\n".join(changelog.splitlines()[start + 1 : end]).strip()
        if not section:
            raise ValueError(f"no release of {tag}: its section of CHANGELOG.md is empty. Write its entries.")
        return section
    raise ValueError(
        f"no release of {tag}: CHANGELOG.md has no section for it. "
        f"Rename [Unreleased] to `## [{version}] - YYYY-MM-DD`."
    )


if __name__ == "__main__":
    try:
        sys.stdout.write(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]) + "\n")
    except ValueError as error:
        sys.exit(str(error))
