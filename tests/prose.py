"""Count the words that the prose rules of CONTRIBUTING.md forbid, in the documents and the docstrings.

``python -m tests.prose`` prints the counts.  It fails where a document, or all docstrings together, have
more than 3 of these words in 1,000.  With names of documents it also prints the sentences above 25 words.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
DOCSTRINGS: Final = "docstrings"

# To be rewritten.  Only ever remove a name.
UNCHECKED: Final[frozenset[str]] = frozenset()

FORBIDDEN: Final = re.compile(
    r"\b(?:what|whatever|whoever|whomever|nobody|everybody|anybody|shall|anew|besides|likewise)\b",
    re.IGNORECASE,
)
PER_THOUSAND: Final = 3
LONGEST: Final = 25

_WORD: Final = re.compile(r"[^\W_][\w'-]*")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?:])[\"')*_]*\s+|\n(?=\*{0,2}\w+: )")
_DOCUMENT: Final = MarkdownIt().enable("table")
# The entries of ``Args:`` are indented, and no code.
_DOCSTRING: Final = MarkdownIt().disable("code")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The prose of a document.

    Attributes:
        forbidden: the words, each with its line.
        long: the sentences above 25 words, each with its line.
    """

    name: str
    words: int
    forbidden: tuple[tuple[int, str], ...]
    long: tuple[tuple[int, str], ...]

    @property
    def is_failure(self) -> bool:
        """Whether it has too many of the words; one is always allowed."""
        return len(self.forbidden) > max(1, self.words * PER_THOUSAND / 1000)


def _prose(token: Token) -> str:
    """Return the text of an inline *token*, with code as one word."""
    texts = {"code_inline": "code", "softbreak": "\n", "hardbreak": "\n"}
    return "".join(
        child.content if child.type == "text" else texts.get(child.type, "") for child in token.children or []
    )


def _blocks(parser: MarkdownIt, text: str) -> Iterator[tuple[int, str, bool]]:
    """Return each block of prose with its line, and whether it has sentences: a cell has none."""
    line = 0
    table = False
    for token in parser.parse(text):
        table = token.type != "table_close" and (table or token.type == "table_open")
        line = token.map[0] + 1 if token.map else line
        if token.type == "inline":
            yield line, _prose(token), not table


def measure(name: str, texts: Sequence[tuple[int, str]], parser: MarkdownIt = _DOCUMENT) -> Found:
    """Return the counts of *texts*, each of which begins at a line."""
    words = 0
    forbidden, long = [], []
    for first, text in texts:
        for line, prose, has_sentences in _blocks(parser, text):
            at = first + line - 1
            words += len(_WORD.findall(prose))
            forbidden += [(at, word) for word in FORBIDDEN.findall(prose)]
            for sentence in _SENTENCE_END.split(prose) if has_sentences else ():
                if len(_WORD.findall(sentence)) > LONGEST:
                    long.append((at, " ".join(sentence.split())))
    return Found(name=name, words=words, forbidden=tuple(forbidden), long=tuple(long))


def document(path: Path) -> Found:
    return measure(str(path.relative_to(ROOT)), [(1, path.read_text(encoding="utf-8"))])


def docstrings(path: Path) -> Found:
    """Return the counts of the docstrings of the module at *path*."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                found.append((node.body[0].lineno, text))
    return measure(str(path.relative_to(ROOT)), sorted(found), _DOCSTRING)


def _row(found: Found, remark: str = "") -> str:
    rate = 1000 * len(found.forbidden) / max(found.words, 1)
    forbidden = f"{len(found.forbidden):4} forbidden ({rate:4.1f} in 1,000)"
    return f"{found.words:6} words  {forbidden}  {len(found.long):4} long  {found.name}{remark}"


def main(names: Sequence[str]) -> str | None:
    """Print the counts, and return why they fail."""
    modules = [docstrings(path) for path in sorted((ROOT / "sqla_rls").rglob("*.py"))]
    total = Found(
        name=DOCSTRINGS,
        words=sum(module.words for module in modules),
        forbidden=tuple(one for module in modules for one in module.forbidden),
        long=tuple(one for module in modules for one in module.long),
    )
    lines, failed = [], []
    for found in [*map(document, DOCUMENTS), total]:
        checked = found.name not in UNCHECKED
        lines.append(_row(found, "" if checked else "  (not checked yet)"))
        if found.is_failure and checked:
            failed.append(found.name)
        elif not found.is_failure and not checked:
            lines.append(f"{found.name} is good: remove it from UNCHECKED in tests/prose.py.")
        for part in modules if found is total else [found]:
            if found.name in failed or part.name in names:
                lines += [f"{part.name}:{line}: {word}" for line, word in part.forbidden]
            if part.name in names:
                lines += [f"{part.name}:{line}: long: {sentence}" for line, sentence in part.long]
    sys.stdout.write("\n".join(lines) + "\n")
    if failed:
        return (
            f"the prose check failed: over {PER_THOUSAND} forbidden words in 1,000 in {', '.join(failed)}."
            " Make a concrete noun the subject; see CONTRIBUTING.md."
        )
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
