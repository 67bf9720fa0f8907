"""docs/reference/errors.md has a heading for each error, with its status and its messages.

SQLA_RLS_WRITE_REFERENCE=1 writes the messages, from the code.
"""

from __future__ import annotations

import ast
import re
import tomllib
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cache
from pickle import dumps, loads
from textwrap import dedent

import pytest

from sqla_rls import exc
from sqla_rls.exc import AuthSchemaUnusable, CallerRequired, InvalidToken
from tests.test_reference import IS_WRITING, REFERENCE, document, errors, sections

ROOT = REFERENCE.parents[1]
PAGE = REFERENCE / "errors.md"
_MESSAGES = re.compile(r"<details>.*?</details>\n\n", re.DOTALL)


def test_each_error_has_a_heading_with_its_status() -> None:
    found = sections(document("errors.md"), "###")
    assert found.keys() == errors().keys()
    for name, error in errors().items():
        status = re.search(r"^HTTP status (\d+)\.$", found[name], re.MULTILINE)
        assert (None if status is None else int(status[1])) == getattr(error, "http_status", None)
        assert "**Next step:** " in found[name]


def test_the_tree_of_errors_is_that_of_the_classes() -> None:
    (tree,) = re.findall(r"^    RowSecurityError\n(?:    .*\n)+", exc.__doc__ or "", re.MULTILINE)
    assert f"```text\n{dedent(tree)}```" in document("errors.md")
    parents: list[str] = []
    for line in dedent(tree).splitlines():
        name = re.search(r"\w+", line)
        assert name is not None
        depth = name.start() // 4
        del parents[depth:]
        if parents:
            assert errors()[name[0]].__base__ is errors()[parents[-1]]
        parents.append(name[0])
    in_tree = set(re.findall(r"^[│├└─ ]*(\w+)", dedent(tree), re.MULTILINE))
    assert in_tree == {name for name, error in errors().items() if error.__module__ == exc.__name__}


# Messages


def texts(node: ast.expr, constants: Mapping[str, ast.expr]) -> list[str]:
    """Return the texts that an expression can have, with ``…`` for each part that varies."""
    match node:
        case ast.Constant(str(text)):
            return [text]
        case ast.JoinedStr(values):
            return ["".join(texts(value, constants)[0] for value in values)]
        case ast.BinOp(left, ast.Add(), right):
            return [a + b for a in texts(left, constants) for b in texts(right, constants)]
        case ast.IfExp(_, one, other):
            return texts(one, constants) + texts(other, constants)
        case ast.Name(name) if name in constants:
            return texts(constants[name], {})
        case ast.Call(ast.Attribute(ast.Constant() | ast.Name() as template, "format")):
            return [re.sub(r"\{\w*\}", "…", text) for text in texts(template, constants)]
    return ["…"]


def constants_of(tree: ast.Module) -> dict[str, ast.expr]:
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                found[name] = value
    return found


@cache
def messages() -> Mapping[str, list[str]]:
    """Return the texts with which the code makes each error."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "sqla_rls").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = constants_of(tree)
        for node in ast.walk(tree):
            match node:
                case ast.Call(ast.Name(name) | ast.Attribute(_, name), [message, *_]) if name in errors():
                    found[name] |= {re.sub("…+", "…", text) for text in texts(message, constants)}
    # A message of variable parts alone says nothing.
    return {
        name: sorted(text for text in of if len(text.replace("…", "")) > 12) for name, of in found.items()
    }


def listed(name: str) -> str:
    if not (of := messages().get(name)):
        return ""
    lines = "".join(f"- {_escaped(text)}\n" for text in of)
    return f"<details>\n<summary>Messages</summary>\n\n{lines}\n</details>\n\n"


def _escaped(text: str) -> str:
    # SQL and identifiers in a message are no Markdown.
    return re.sub(r"([\\`*_<>\[\]{}|#])", r"\\\1", " ".join(text.split()))


def with_messages(page: str) -> Iterator[str]:
    head, *parts = re.split(r"(?=^### )", _MESSAGES.sub("", page.rstrip() + "\n\n"), flags=re.MULTILINE)
    yield head
    for part in parts:
        name = part.removeprefix("### ").partition("\n")[0]
        section, following = re.split(r"(?=^## |\Z)", part, maxsplit=1, flags=re.MULTILINE)
        yield section + listed(name) + following


@pytest.mark.exhaustive
def test_the_page_has_the_messages_of_the_code() -> None:
    written = "".join(with_messages(document("errors.md"))).rstrip() + "\n"
    if IS_WRITING:
        PAGE.write_text(written, encoding="utf-8")
    assert document("errors.md") == written


@pytest.mark.parametrize("error", [CallerRequired("no caller"), AuthSchemaUnusable("no", "GRANT")])
def test_a_traceback_leads_to_the_heading_of_the_error(error: Exception) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    url = f"{project['urls']['Documentation']}reference/errors/#{type(error).__name__.lower()}"
    for one in (error, copy(error), loads(dumps(error))):
        assert "".join(traceback.format_exception_only(one)).endswith(f"See {url}\n")
        assert one.__notes__ == [f"See {url}"]
    assert url not in str(error)


def test_an_error_without_arguments_leads_there_too() -> None:
    assert InvalidToken().__notes__
