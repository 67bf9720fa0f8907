"""``pytest -p tests.support.lines``: how many lines of the library a run executes.

Up to Python 3.11 a tracer slows down all code of a process by a third.  Here only the modules of the library
are slower: a note of the line stands before each of their statements.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import pytest

LIBRARY: Final = Path(__file__).parents[2] / "sqla_rls"
#: In percent.
LEAST: Final = 90

#: By the path of a module: a byte for each line, 1 once it was executed.
executed: dict[str, bytearray] = {}


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements below *node*, except those for type checkers."""
    for name, value in ast.iter_fields(node):
        match node, name:
            case ast.If(test=ast.Name("TYPE_CHECKING")), "body":
                pass
            case _, "body" | "orelse" | "finalbody" if isinstance(value, list):
                yield value
                for statement in [*value]:
                    yield from blocks(statement)
            case _, "handlers" | "cases":
                for part in value:
                    yield from blocks(part)


def is_counted(statement: ast.stmt) -> bool:
    """Whether it has an effect, and may follow another statement."""
    match statement:
        case ast.Expr(ast.Constant()) | ast.Global() | ast.Nonlocal() | ast.ImportFrom("__future__"):
            return False
    return True


def counted(path: Path) -> set[int]:
    tree = ast.parse(path.read_bytes())
    return {statement.lineno for block in blocks(tree) for statement in block if is_counted(statement)}


def noted(statement: ast.stmt) -> Iterator[ast.stmt]:
    if is_counted(statement):
        (note,) = ast.parse(f"__executed__[{statement.lineno}] = 1").body
        yield ast.copy_location(note, statement)
    yield statement


class Loader(SourceFileLoader):
    """Loads a module whose statements note their lines."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_data(self.path), self.path)
        for block in [*blocks(tree)]:
            block[:] = [part for statement in block for part in noted(statement)]
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        length = self.get_data(self.path).count(b"\n") + 2
        module.__dict__["__executed__"] = executed.setdefault(self.path, bytearray(length))
        super().exec_module(module)


class Finder:
    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name.partition(".")[0] == LIBRARY.name else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def percent() -> float:
    """Of the lines of all modules, also of those that nothing has imported."""
    by_path = {path: counted(path) for path in LIBRARY.rglob("*.py")}
    hits = sum(
        executed[str(path)][line] for path in by_path if str(path) in executed for line in by_path[path]
    )
    return 100 * hits / sum(map(len, by_path.values()))


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    # They import the library.
    sys.meta_path.insert(0, Finder)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of pytest-xdist has executed."""
    for path, lines in getattr(node, "workeroutput", {}).get("executed", {}).items():
        before = executed.setdefault(path, bytearray(len(lines)))
        before[:] = bytes(map(max, before, lines))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["executed"] = {path: bytes(lines) for path, lines in executed.items()}
    elif percent() < LEAST and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"Lines of the library: {percent():.1f} % (at least {LEAST} %)")
