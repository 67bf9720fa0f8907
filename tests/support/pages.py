"""Runs the code blocks of a document, from top to bottom, in one namespace, one folder and one database.

| Block | Run |
| --- | --- |
| ``python`` | executed; ``await`` is allowed. A first line such as ``# app/models.py`` makes it a file |
| ``pycon`` | as doctest does, with ELLIPSIS |
| ``console`` | each line after ``$`` by bash, ``secret`` as input. Exports stay. ``&`` starts a server |
| ``sql`` | by the owner of the database, who may create others |
| ``toml``, ``yaml``, ``json``, ``ini`` | parsed; a first line such as ``# pyproject.toml`` makes it a file |
| ``text`` | compared with the output of the block before it; ``…`` stands for any text, or for any lines |

An error is an output, too, but not of a block of ``python`` that ends with ``print()``.

A comment ``<!-- invisible-code-block: python`` … ``-->`` runs and isn't shown.  The comment
``<!-- tested by: tests/x.py -->`` before a block names the test that runs it, and
``<!-- blocks tested by: tests/x.py -->`` does so for a document.

A document with the comment ``<!-- continues: tutorial/models.md -->``, a path in docs/, has the folder, the
database, the variables and the servers of that document, and a new namespace.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import gc
import inspect
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from configparser import ConfigParser
from contextlib import chdir, contextmanager, redirect_stdout
from functools import cached_property
from importlib.metadata import metadata
from pathlib import Path
from shutil import rmtree
from tempfile import NamedTemporaryFile, mkdtemp
from types import ModuleType
from typing import Any, Final

import psycopg
import yaml
from alembic import command
from alembic.config import Config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from psycopg import sql
from sqlalchemy import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sybil import Document, Example, Region

from sqla_rls.testing.postgres import Server
from tests.support.blocks import Block, blocks, difference, matches, table

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
SECONDS: Final = 120
OWNER: Final = "page_owner"
LOGIN_ROLE: Final = "app"

_CONTINUES: Final = re.compile(r"^<!-- continues: (\S+) -->$", re.MULTILINE)
_FILE: Final = re.compile(r"(?:#|//|--) (?P<name>[\w./-]+\.\w+)(?P<more> \(continued\))?\n")


def _ends_with_print(code: str) -> bool:
    last: ast.AST = ast.parse(code).body[-1]
    while isinstance(last, ast.With | ast.AsyncWith | ast.For | ast.AsyncFor):
        last = last.body[-1]
    return isinstance(last, ast.Expr) and ast.unparse(last).startswith("print(")


def parse(document: Document) -> Iterator[Region]:
    """Parse a document for Sybil."""
    starts = [0]
    for line in document.text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for block in blocks(document.text):
        start = starts[block.line - 1]
        yield Region(start, start + 1, parsed=block, evaluator=evaluate)


def evaluate(example: Example) -> str | None:
    """Run a block; return its failure."""
    block: Block = example.parsed
    page = example.namespace.get("page")
    if block.tested_by is not None:
        return untested(block.tested_by, Path(example.path))
    # Sybil can't show an exception that has a cause.
    if page is None:
        try:
            page = PAGES.open(Path(example.path), example.document.text)
        except Exception:
            page = traceback.format_exc()
        example.namespace["page"] = page
    if isinstance(page, str):
        return page
    failure: str | None
    try:
        with page.entered():
            failure = page.run(block)
    except Exception:
        failure = traceback.format_exc()
    page.passed += failure is None
    return failure


def untested(test: str, document: Path) -> str | None:
    """Return the failure of a marker that names no test of the document."""
    path = ROOT / test
    if not path.is_file():
        return f"{test} doesn't exist"
    text = path.read_text("utf-8")
    # A test of generated documents names their folder.
    folder = " / ".join(f'"{part}"' for part in document.parent.relative_to(ROOT).parts)
    if document.name in text or folder in text:
        return None
    return f"{test} names neither {document.name} nor {folder}"


def teardown(namespace: Mapping[str, Any]) -> None:
    if isinstance(namespace.get("page"), Page):
        PAGES.leave(namespace["page"])


class _Server:
    """The server of a run, which the first block starts."""

    @cached_property
    def server(self) -> Server:
        from tests.support.suite import find_installation, newest

        self._context = Server.start(find_installation(newest()))
        return self._context.__enter__()

    def stop(self) -> None:
        if "server" in vars(self):
            self._context.__exit__(None, None, None)


SERVER: Final = _Server()


class _Pages:
    """The states of documents.  The last one stays, since the next document may continue it."""

    def __init__(self) -> None:
        self._last: tuple[Path, Page] | None = None

    def open(self, path: Path, text: str) -> Page:
        """Return the state in which a document begins."""
        earlier = _CONTINUES.search(text)
        before = DOCS / earlier[1] if earlier else None
        if before is not None and self._last is not None and self._last[0] == before:
            page = self._last[1]
        else:
            self.close()
            page = Page(SERVER.server) if before is None else self._replayed(before)
        page.begin(path, text)
        self._last = (path, page)
        return page

    def _replayed(self, path: Path) -> Page:
        text = path.read_text("utf-8")
        page = self.open(path, text)
        with page.entered():
            for block in blocks(text):
                if block.tested_by is None and (failure := page.run(block)) is not None:
                    self.close()
                    raise AssertionError(f"{path.relative_to(DOCS)} can't be continued:\n{failure}")
        return page

    def leave(self, page: Page) -> None:
        """Close the page, unless all of its blocks have passed."""
        if not page.is_passed:
            self.close()

    def close(self) -> None:
        if self._last is not None:
            self._last[1].close()
            self._last = None


PAGES: Final = _Pages()


class Page:
    """The state of a document."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._database = server.create_database()
        self._folder = Path(mkdtemp(prefix="page-"))
        self._runner = asyncio.Runner()
        self._processes: list[subprocess.Popen[str]] = []
        self._modules = set(sys.modules)
        self._has_run_code = False
        self.begin(self._folder, "")
        owner = sql.Identifier(OWNER)
        with self._superuser() as connection:
            self._roles = _roles(connection)
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'").format(owner)
            )
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(self._database), owner)
            )
        self._connection: psycopg.Connection[Any] | None = None
        self._environment = {
            "DATABASE_URL": self._url(OWNER).render_as_string(hide_password=False),
            "DATABASE_AUTHENTICATED_URL": self._url(LOGIN_ROLE).render_as_string(hide_password=False),
            "PATH": os.pathsep.join([*self._programs(), os.environ["PATH"]]),
            "PYTHONPATH": str(self._folder),
            "COLUMNS": "120",
            # A page names the plugins that it needs, and each process would import all others.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "NO_COLOR": "1",
        }

    def begin(self, path: Path, text: str) -> None:
        """Begin a document, in a new namespace."""
        self._forget_modules()
        self._module = sys.modules["__page__"] = ModuleType("__page__")
        self.passed = 0
        self._number = sum(block.tested_by is None for block in blocks(text))

    @property
    def is_passed(self) -> bool:
        """Whether all blocks of the document have passed."""
        return self.passed == self._number

    def _programs(self) -> list[str]:
        installation = self._server.installation
        server = [] if installation is None else [str(installation.bindir)]  # pg_dump and others
        return [str(Path(sys.executable).parent), *server]

    def _url(self, role: str) -> URL:
        return self._server.url(self._database).set(username=role, password="secret")

    def _superuser(self) -> psycopg.Connection[Any]:
        url = self._server.url("postgres").set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run in the folder of the document, with its environment; a block may set variables."""
        before = dict(os.environ)
        os.environ.update(self._environment)
        sys.path.insert(0, str(self._folder))
        try:
            with chdir(self._folder):
                yield
        finally:
            sys.path.remove(str(self._folder))
            self._environment |= {
                name: value for name, value in os.environ.items() if before.get(name) != value
            }
            os.environ.clear()
            os.environ.update(before)

    def run(self, block: Block) -> str | None:
        """Run a block; return its failure."""
        if block.language in _PARSERS:
            _PARSERS[block.language](block.code)
        if (name := _FILE.match(block.code)) and block.language not in {"console", "pycon", "text"}:
            self._write(name["name"], block.code[name.end() :].lstrip("\n"), is_more=name["more"] is not None)
            return None
        match block.language:
            case "python":
                return self._compare(self._python, block)
            case "pycon":
                return self._pycon(block)
            case "console":
                return self._console(block)
            case "sql":
                return self._compare(self._sql, block)
            case language if language in _PARSERS:
                return None
            case language:
                return f"nothing runs a block of {language}: name its test in a comment before it"

    def _write(self, name: str, code: str, *, is_more: bool) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if is_more else "w", encoding="utf-8") as file:
            file.write(code)
        # Python takes bytecode for that of a file of the same second and size.
        for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            cached.unlink()

    def _compare(self, run: Callable[[Block], str], block: Block) -> str | None:
        try:
            output = run(block)
        except Exception as error:
            if block.shown is None or (block.language == "python" and _ends_with_print(block.code)):
                raise
            output = "".join(traceback.format_exception_only(error))
        return difference(output, block.shown)

    def _python(self, block: Block) -> str:
        code = compile("\n" * block.line + block.code, "<document>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        written = io.StringIO()
        self._has_run_code = True
        with redirect_stdout(written):
            if code.co_flags & inspect.CO_COROUTINE:
                self._runner.run(eval(code, vars(self._module)))
            else:
                exec(code, vars(self._module))
        return written.getvalue()

    def _pycon(self, block: Block) -> str | None:
        test = doctest.DocTestParser().get_doctest(block.code, {}, "document", None, block.line)
        test.globs = vars(self._module)
        told: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
        self._has_run_code = True
        runner.run(test, out=told.append, clear_globs=False)
        return "".join(told) or None

    def _sql(self, block: Block) -> str:
        if self._connection is None:
            url = self._url(OWNER).set(drivername="postgresql").render_as_string(hide_password=False)
            self._connection = psycopg.connect(url, autocommit=True)
        try:
            cursor = self._connection.execute(block.code.encode())
        except psycopg.Error as error:
            if block.shown is None:
                raise
            return f"ERROR:  {error.diag.message_primary}\n"
        while cursor.nextset():
            pass
        return "" if cursor.description is None else table([c.name for c in cursor.description], cursor)

    def _console(self, block: Block) -> str | None:
        for call in re.split(r"^\$ ", block.code.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
            command, _, shown = call.partition("\n")
            command = command.partition("   #")[0].strip()
            if command.startswith(("pip install", "uv add")):
                check_requirements(command)
            elif command.endswith("&"):
                self._start(command.removesuffix("&"), shown)
            elif failure := self._call(command, shown, block.shown):
                return failure
        return None

    def _call(self, command: str, shown: str, after: str | None) -> str | None:
        with NamedTemporaryFile("r") as variables:
            done = subprocess.run(
                ["bash", "-c", f"{command}\nstatus=$?\nenv -0 >{variables.name}\nexit $status"],
                input="secret\n",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
            )
            self._export(dict(one.split("=", 1) for one in variables.read().split("\0") if one))
        expected = shown if shown.strip() else after
        if done.returncode and not expected:
            return f"$ {command}\n{done.stdout}\nends with status {done.returncode}"
        failure = difference(done.stdout, expected)
        return None if failure is None else f"$ {command}\n{failure}"

    def _export(self, variables: Mapping[str, str]) -> None:
        """Keep the variables that a command has exported, for the next blocks."""
        for name in variables.keys() - {"_", "OLDPWD", "PWD", "SHLVL"}:
            if os.environ.get(name) != variables[name]:
                self._environment[name] = os.environ[name] = variables[name]

    def _start(self, command: str, shown: str) -> None:
        """Start a server; wait for the output that the document shows, or for its words."""
        process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        assert process.stdout is not None
        end = time.monotonic() + SECONDS
        told = ""
        while not (matches(told, shown) if shown.strip() else "running on" in told.lower()):
            line = process.stdout.readline()
            told += line
            is_waiting = line and time.monotonic() < end
            assert is_waiting, f"{command} doesn't start:\n{told}"
        # tee writes its file last.
        time.sleep(0.1)

    def close(self) -> None:
        """Drop all that the document has made."""
        for process in self._processes:
            # A server stops its own servers, too.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(SECONDS)
            if process.stdout is not None:
                process.stdout.close()
        self._forget_modules()
        self._runner.close()
        if self._connection is not None:
            self._connection.close()
        rmtree(self._folder)
        self._server.drop_database(self._database)
        with self._superuser() as connection:
            for (database,) in connection.execute(
                "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s", [OWNER]
            ).fetchall():
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))
            # In one statement, since memberships depend on the role that granted them.
            names = sql.SQL(", ").join(map(sql.Identifier, _roles(connection) - self._roles))
            connection.execute(sql.SQL("DROP ROLE {}").format(names))

    def _forget_modules(self) -> None:
        for name in set(sys.modules) - self._modules:
            module = sys.modules[name]
            # A folder without __init__.py has paths, and no file.
            paths = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
            if name == "__page__" or any(path and Path(path).is_relative_to(self._folder) for path in paths):
                self._dispose(sys.modules.pop(name))
        if not self._has_run_code:
            return
        self._has_run_code = False
        # Engines without a name of their own: collected later, they would fail the test that runs then.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    def _dispose(self, module: ModuleType) -> None:
        """Close the connections in the pools of a module."""
        for value in vars(module).values():
            if isinstance(value, Engine):
                value.dispose()
            elif isinstance(value, AsyncEngine):
                self._runner.run(value.dispose())
        vars(module).clear()


def _roles(connection: psycopg.Connection[Any]) -> set[str]:
    return {role for (role,) in connection.execute("SELECT rolname FROM pg_roles")}


def start_alembic(models: str) -> None:
    """Do what a reader does: ``alembic init migrations``, then the URL and the models in env.py.

    Args:
        models: the module of ``Base``.
    """
    with redirect_stdout(io.StringIO()):
        command.init(Config("alembic.ini"), "migrations")
    env = Path("migrations", "env.py")
    code = env.read_text("utf-8")
    # Each page is run in one process with others, which keeps its logging.
    code = code.replace("fileConfig(config.config_file_name)", "pass")
    code = code.replace(
        "target_metadata = None",
        f"from {models} import Base\n\ntarget_metadata = Base.metadata\n"
        'config.set_main_option("sqlalchemy.url", os.environ["DATABASE_URL"])',
    )
    env.write_text(f"import os\n{code}", "utf-8")


def check_requirements(command: str) -> None:
    """Check that each package is installed here, and has the extras that the command names."""
    for word in command.split()[2:]:
        if word.startswith("-"):
            continue
        requirement = Requirement(word.strip("'\""))
        known = {canonicalize_name(one) for one in metadata(requirement.name).get_all("Provides-Extra") or ()}
        missing = {canonicalize_name(one) for one in requirement.extras} - known
        assert not missing, f"{requirement.name} has no extra {missing}"


def _ini(code: str) -> None:
    ConfigParser(interpolation=None).read_string(code)


_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "ini": _ini,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
