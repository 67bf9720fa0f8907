"""The code in the documents calls the library by its present names and arguments.

``pytest docs`` runs the listings of docs/: here are those of the other documents, and inline code.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from alembic.operations import Operations
from markdown_it import MarkdownIt

import sqla_rls
import sqla_rls.alembic
import sqla_rls.fastapi
import sqla_rls.http
from sqla_rls import provider
from tests.prose import DOCUMENTS, ROOT

PARSER = MarkdownIt().enable("table")
MODULES: list[Any] = [sqla_rls.http, sqla_rls.fastapi, sqla_rls]


def listings(text: str) -> Iterator[str]:
    """Return the blocks of Python in a document."""
    for token in PARSER.parse(text):
        if token.type == "fence" and token.info == "python":
            yield dedent(token.content)


def spans(text: str) -> Iterator[str]:
    """Return the inline code of a document."""
    for token in PARSER.parse(text):
        for child in token.children or []:
            if child.type == "code_inline":
                yield child.content


def parse(code: str) -> ast.AST:
    # An ellipsis of one character stands for any code.
    filled = code.replace("(…)", "()").replace("(…, ", "(").replace("…", "...")
    tree: ast.AST = compile(filled, "<document>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return tree


def called(function: ast.expr) -> Callable[..., Any] | None:
    """Return the function of this library that *function* names, if it is one."""
    match function:
        case ast.Name(name):
            found = (getattr(module, name, None) for module in MODULES)
            return next((one for one in found if one is not None and not inspect.ismodule(one)), None)
        case ast.Attribute(ast.Name("provider"), name):
            return getattr(provider, name, None)
        case ast.Attribute(ast.Name("op"), name):
            return getattr(Operations, name, None)
    return None


def exists(module: str, name: str) -> bool:
    return hasattr(import_module(module), name) or find_spec(f"{module}.{name}") is not None


def unknown(code: ast.AST) -> Iterator[str]:
    """Return the imports, functions of ``op`` and ``provider``, and keyword arguments that don't exist."""
    for node in ast.walk(code):
        match node:
            case ast.Call(ast.Attribute(ast.Name("op" | "provider"), name)) if called(node.func) is None:
                yield name
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqla_rls"):
            yield from (one.name for one in node.names if not exists(node.module or "", one.name))
        elif isinstance(node, ast.Call) and (function := called(node.func)) is not None:
            parameters = inspect.signature(function).parameters.values()
            if not any(one.kind is one.VAR_KEYWORD for one in parameters):
                names = {one.name for one in parameters}
                yield from (str(one.arg) for one in node.keywords if one.arg not in {None, *names})


@pytest.mark.exhaustive
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_of_a_document_names_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    is_run = path.is_relative_to(ROOT / "docs")
    found = [] if is_run else [name for listing in listings(text) for name in unknown(parse(listing))]
    for span in spans(text):
        try:
            code = parse(span)
        except SyntaxError:  # SQL, a path, a signature
            continue
        found += unknown(code)
    assert found == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from sqla_rls import enforce_row_securty", "enforce_row_securty"),
        ("enforce_row_security(…, principal_claims=['org_id'])", "principal_claims"),
        ("op.create_policy(policy='p')", "policy"),
        ("op.create_policyy('p')", "create_policyy"),
        ("provider.aut0('a.example')", "aut0"),
        ("await verifier.verify_async(jwt, verifier=Verifier(leway=3))", "leway"),
    ],
)
def test_a_wrong_name_is_found(code: str, name: str) -> None:
    assert list(unknown(parse(code))) == [name]


def test_the_figure_is_drawn_from_the_figures(tmp_path: Path) -> None:
    """``make docs`` installs matplotlib."""
    if find_spec("matplotlib") is None:
        pytest.skip("the group docs isn't installed")
    drawn = tmp_path / "roundtrips.svg"
    command = [sys.executable, "docs/plot.py", "docs/roundtrips.json", str(drawn)]
    subprocess.run(command, cwd=ROOT, check=True)
    assert drawn.read_text("utf-8") == (ROOT / "docs" / "roundtrips.svg").read_text("utf-8")
