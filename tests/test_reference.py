"""docs/reference/ has every option, operation and command, with the names and defaults of the code.

SQLA_RLS_WRITE_REFERENCE=1 writes operations.md, and the texts of ``--help`` in commands.md.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from sqlalchemy import BigInteger, Column, Engine, Identity, MetaData, Table, Text, insert, text

import sqla_rls.alembic
from sqla_rls import BindingOptions, auth, auth_uid, authenticated, crud_policy, enforce_row_security
from sqla_rls.cli import main
from sqla_rls.exc import RowSecurityError
from tests.test_exported_members import MODULES

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
OPERATIONS = REFERENCE / "operations.md"
COMMANDS = REFERENCE / "commands.md"
ROOM = Path(sqla_rls.alembic.__file__).parent
IS_WRITING = bool(os.environ.get("SQLA_RLS_WRITE_REFERENCE"))

PARSER = MarkdownIt().enable("table")


def document(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def rows(markdown: str) -> list[list[str]]:
    """Return the cells of each row of the tables, without their heads and without the marks of code."""
    tokens = PARSER.parse(markdown)
    found: list[list[str]] = []
    in_body = False
    for block, token in pairwise(tokens):
        if block.type in ("tbody_open", "tbody_close"):
            in_body = block.type == "tbody_open"
        elif block.type == "tr_open" and in_body:
            found.append([])
        if token.type == "inline" and block.type == "td_open":
            found[-1].append(token.content.replace("\\|", "|").strip("`"))
    return found


def sections(markdown: str, level: str = "##") -> dict[str, str]:
    """Return the text below each heading of *level* by the code in the heading."""
    _, *parts = re.split(rf"^{level} (.*)$", markdown, flags=re.MULTILINE)
    return {head.strip("`"): body for head, body in zip(parts[::2], parts[1::2], strict=True)}


# Options


def defaults_of_arguments() -> dict[str, str]:
    return {
        one.name: repr(one.default)
        for one in inspect.signature(enforce_row_security).parameters.values()
        if one.kind is one.KEYWORD_ONLY
    }


def defaults_of_fields() -> dict[str, str]:
    return {
        one.name: repr(one.default if one.default_factory is MISSING else one.default_factory())
        for one in fields(BindingOptions)
    }


@pytest.mark.parametrize(
    ("heading", "defaults"),
    [("enforce_row_security()", defaults_of_arguments), ("BindingOptions", defaults_of_fields)],
)
def test_the_options_have_their_defaults(heading: str, defaults: Callable[[], dict[str, str]]) -> None:
    listed = {name: default for name, default, *_ in rows(sections(document("options.md"))[heading])}
    assert listed == defaults()


def errors() -> dict[str, type[RowSecurityError]]:
    """Return the errors that users may import."""
    return {
        name: one
        for module in MODULES
        for name, one in vars(import_module(module)).items()
        if isinstance(one, type) and issubclass(one, RowSecurityError)
    }


# Names


#: Roles, a module, and the types of arguments.
UNLISTED = {
    "anonymous", "provider", "Row", "Rule", "Test", "World", "SqlEndpoint", "check_role"
}  # fmt: skip


def test_each_public_name_is_in_the_reference() -> None:
    pages = "".join(path.read_text("utf-8") for path in (REFERENCE / "api").glob("*.md"))
    listed = {
        name.rpartition(".")[2] for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)$", pages, re.MULTILINE)
    }
    exported = Path(__file__).with_name("exported_members.txt").read_text("utf-8")
    names = {
        re.split(r"[^\w.]", line)[0].rpartition(".")[2]
        for line in exported.splitlines()
        if line.startswith("sqla_rls.") and " < " not in line
    }
    assert names - listed == UNLISTED


# Operations

HEAD = """\
# Operations

Autogenerate writes these operations into a revision. You may write them by hand, too.
[Migrations](../guide/migrations.md) has the order in which autogenerate writes them.

The arguments are literals, since a migration is a record. Names are unquoted, and expressions, bodies and
definitions are SQL text. `schema=None` is the schema of new tables. The reverse is the operation that a
downgrade calls. [Errors](errors.md) describes the errors.

<!-- SQLA_RLS_WRITE_REFERENCE=1 pytest tests/test_reference.py writes this page, from the docstrings. -->
"""
_LABELS = re.compile(r"^(Args|Raises|Emits|Reverse):", re.MULTILINE)


@cache
def signatures() -> dict[str, str]:
    """Return each operation's line of the stub, which another test compares with the code."""
    stub = (ROOM / "op.pyi").read_text(encoding="utf-8")
    return {
        node.name: str(ast.get_source_segment(stub, node))
        for node in ast.parse(stub).body
        if isinstance(node, ast.FunctionDef)
    }


def markdown_of(text: str) -> str:
    """Return a paragraph of a docstring as Markdown."""
    plain = re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split()))
    plain = re.sub(r"(?<![\w`*])\*(\w+)\*", r"`\1`", plain)
    return re.sub(rf"\b({'|'.join(errors())})\b", r"`\1`", plain)


def paragraphs(text: str) -> Iterator[str]:
    for one in re.split(r"\n\s*\n", text.strip()):
        yield fill(markdown_of(one), 130, break_long_words=False, break_on_hyphens=False)


def described(name: str, docstring: str) -> Iterator[str]:
    """Return the parts of the section of one operation."""
    summary, *labelled = _LABELS.split(docstring)
    yield f"### `op.{name}`"
    yield f"```python\n{signatures()[name]}\n```"
    yield from paragraphs(summary)
    for label, body in zip(labelled[::2], labelled[1::2], strict=True):
        if label == "Args":
            entries = re.findall(r"^    (\w+): ((?:.*\n?)(?:^     .*\n?)*)", body, re.MULTILINE)
            listed = "".join(f"| `{argument}` | {markdown_of(said)} |\n" for argument, said in entries)
            yield f"| Argument | Meaning |\n| --- | --- |\n{listed}".rstrip()
        else:
            first, *others = paragraphs(f"**{label}:** {body.strip()}")
            yield from (first, *others)


@cache
def operations_page() -> str:
    parts = [HEAD.rstrip()]
    for path in sorted((ROOM / "operations").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        methods = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and node.name in signatures()
            and node.args.args[0].arg == "cls"
        ]
        if methods:
            kind = str(ast.get_docstring(tree)).partition(":")[0].removeprefix("Operations on ").rstrip(".")
            parts.append(f"## {markdown_of(kind[0].upper() + kind[1:])}")
            for method in methods:
                parts += described(method.name, str(ast.get_docstring(method)))
    return "\n\n".join(parts) + "\n"


def test_the_page_of_operations_is_that_of_the_docstrings() -> None:
    written = operations_page()
    if IS_WRITING:
        OPERATIONS.write_text(written, encoding="utf-8")
    assert OPERATIONS.read_text(encoding="utf-8") == written


@pytest.mark.parametrize("name", signatures())
def test_an_operation_says_what_it_emits_and_names_its_reverse(name: str) -> None:
    section = sections(operations_page(), "###")[f"op.{name}"]
    assert "**Emits:**" in section
    _, _, reverse = section.partition("**Reverse:** ")
    named = re.findall(r"`op\.(\w+)\(", reverse)
    assert reverse.startswith("none is needed") or named
    assert set(named) <= signatures().keys()


# Commands


def helped(command: str) -> str:
    told = CliRunner().invoke(main, [command, "--help"], prog_name="sqla-rls", terminal_width=100)
    assert told.exit_code == 0
    return f"```text\n{told.output}```"


def with_help(page: str) -> str:
    """Return the page with the present text of each command's help; a new command gets a section."""
    head, *_ = page.partition("\n## ")
    found = sections(page)
    for command in sorted(main.commands):
        body = found.get(f"sqla-rls {command}", "\n\n```text\n```\n")
        _, _, rest = body.removeprefix("\n\n```text\n").partition("```")
        head = f"{head.rstrip()}\n\n## `sqla-rls {command}`\n\n{helped(command)}{rest}"
    return head


def test_each_command_has_its_help() -> None:
    page = document("commands.md")
    if IS_WRITING:
        COMMANDS.write_text(page := with_help(page), encoding="utf-8")
    assert page == with_help(page)


#: The commands whose listing is part of make test; the others have tests elsewhere, and take a while.
_QUICK = ("auth-functions", "check", "harden", "matrix")


def listings() -> Iterator[Any]:
    """Return the calls of the commands with the output that the page shows."""
    for token in PARSER.parse(document("commands.md")):
        if token.type == "fence" and token.info == "console":
            for one in re.split(r"^\$ ", token.content, flags=re.MULTILINE)[1:]:
                call, _, output = one.partition("\n")
                marks = [] if call.split()[1] in _QUICK else [pytest.mark.exhaustive]
                yield pytest.param(call, output, id=call, marks=marks)


def matches(output: str, shown: str) -> bool:
    """Return whether *output* is as *shown*: a line ``…`` stands for lines, ``…`` in a line for text."""
    lines = [
        r"(?:.*\n)*?" if line == "…\n" else re.escape(line).replace("…", ".*")
        for line in shown.splitlines(keepends=True)
    ]
    return re.fullmatch("".join(lines), output) is not None


@pytest.fixture
def example(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    """The database of the quick start, with a row of alice and a row of bob."""
    metadata = MetaData()
    todos = Table(
        "todos",
        metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        Column("user_id", Text, server_default=auth.user_id(), index=True),
        Column("task", Text),
        crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
    )
    with engine.begin() as connection:
        # A schema that exists keeps pg_session_jwt out.
        connection.execute(text("CREATE SCHEMA auth"))
        metadata.create_all(connection)
        connection.execute(
            insert(todos), [{"user_id": "alice", "task": "buy milk"}, {"user_id": "bob", "task": "sleep"}]
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
    yield engine
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS todos_app")


def sign(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            CliRunner().invoke(main, ["auth-functions", "--signed"]).output.replace("%", "%%")
        )


def open_after_a_snapshot(engine: Engine) -> None:
    written = CliRunner().invoke(main, ["snapshot", os.environ["DATABASE_URL"]]).output
    Path("row_security.json").write_text(written, encoding="utf-8")
    with engine.begin() as connection:
        connection.exec_driver_sql('ALTER POLICY "crud-authenticated-policy-select" ON todos USING (true)')


def switch_off(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE todos DISABLE ROW LEVEL SECURITY")


def make_login_role(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE todos_app LOGIN NOINHERIT")


#: The state of the example that a command needs, and the text that it reads from stdin.
BEFORE: dict[str, tuple[Callable[[Engine], None], str]] = {
    "diff": (open_after_a_snapshot, ""),
    "lint": (switch_off, ""),
    "rotate-key": (sign, ""),
    "set-password": (make_login_role, "it's a secret\n"),
}


@pytest.mark.parametrize(("call", "shown"), list(listings()))
def test_a_listing_is_real(example: Engine, call: str, shown: str) -> None:
    program, command, *arguments = shlex.split(os.path.expandvars(call))
    assert program == "sqla-rls"
    prepare, stdin = BEFORE.get(command, (lambda _: None, ""))
    prepare(example)
    told = CliRunner().invoke(main, [command, *arguments], input=stdin)
    assert matches(told.output, shown), told.output


def test_each_command_has_a_listing() -> None:
    for command, section in sections(document("commands.md")).items():
        _, _, shown = section.partition("\n```\n")
        assert f"\n$ {command}" in shown, command
