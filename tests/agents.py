"""Write llms.txt and the skill for coding agents, from README.md, docs/index.md and the commands.

``python -m tests.agents`` writes both.  tests/test_agents.py fails where one of them is stale.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from sqla_rls.cli import main

ROOT: Final = Path(__file__).parents[1]
README: Final = "README.md"
INDEX: Final = "docs/index.md"
SKILL: Final = "skills/sqla-rls/SKILL.md"
#: The sections of README.md that an agent needs to write code.
SECTIONS: Final = ("Install", "Quick start", "At run time", "Declarations")
#: The sections of llms.txt, each a heading of docs/index.md.  An agent may leave out the last.
HEADINGS: Final = ("Guide", "Recipes", "Security", "Reference")

_PARSER: Final = MarkdownIt().enable("table")
_LINK: Final = re.compile(r"\]\((?!https?://|#)([^)]+)\)")


def written() -> Mapping[str, str]:
    """Return the texts by their paths."""
    return {"llms.txt": "\n".join(_llms()) + "\n", SKILL: "\n".join(_skill()) + "\n"}


def _llms() -> Iterator[str]:
    yield "# sqla_rls"
    yield ""
    yield f"> {_summary()}"
    yield ""
    yield f"- [README]({_url(README)}): overview and quick start"
    yield f"- [Skill for coding agents]({_url(SKILL)}): declarations and commands"
    sections = _sections(INDEX)
    for heading in HEADINGS:
        yield ""
        yield f"## {'Optional' if heading == HEADINGS[-1] else heading}"
        yield ""
        for link, notes in _rows(sections[heading]):
            yield f"- {_absolute(link, INDEX)}: {notes}"


def _skill() -> Iterator[str]:
    yield "---"
    yield "name: sqla-rls"
    use = "Use it to declare, migrate, check or debug row security in Python"
    yield f"description: {json.dumps(f'{_summary()}. {use}.')}"
    yield "---"
    yield ""
    yield "# sqla_rls"
    sections = _sections(README)
    for heading in SECTIONS:
        yield ""
        yield f"## {heading}"
        yield ""
        yield _absolute(sections[heading].strip(), README)
    yield ""
    yield "## Commands"
    yield ""
    yield "| Command | Effect |"
    yield "| --- | --- |"
    for name, command in sorted(main.commands.items()):
        first = " ".join((command.help or "").partition("\n\n")[0].split())
        yield f"| `sqla-rls {name}` | {first.replace('|', chr(92) + '|')} |"
    yield ""
    yield "## Documents"
    yield ""
    for link, notes in _rows(_sections(INDEX)["Guide"]):
        yield f"- {_absolute(link, INDEX)}: {notes}"


def _summary() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["description"])


def _sections(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    _, *parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _rows(markdown: str) -> Iterator[tuple[str, str]]:
    """Yield the two cells of each row of a table."""
    cells = [
        token.content
        for block, token in pairwise(_PARSER.parse(markdown))
        if block.type == "td_open" and token.type == "inline"
    ]
    yield from zip(cells[::2], cells[1::2], strict=True)


def _absolute(markdown: str, name: str) -> str:
    return _LINK.sub(partial(_linked, name), markdown)


def _linked(name: str, link: re.Match[str]) -> str:
    return f"]({_url(posixpath.normpath(posixpath.join(posixpath.dirname(name), link[1])))})"


def _url(name: str) -> str:
    return f"https://github.com/sqla-rls/sqla-rls/blob/main/{name}"


if __name__ == "__main__":
    for path, text in written().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, encoding="utf-8")
