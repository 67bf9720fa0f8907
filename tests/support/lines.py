"""The line coverage of the library: a plugin of pytest.

Before Python 3.12, a tracer is called for each line of each package.  That costs a fifth of a run.  The
import hook here puts a mark before each statement of the library instead.
"""

from __future__ import annotations

import ast
import sys
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import pytest

_PACKAGE: Final = "sqla_rls"
_MARKS: Final = "__executed_lines__"
_PROLOGUE: Final = (
    f"from tests.support.lines import executed_lines as {_MARKS}; {_MARKS} = {_MARKS}(__file__)"
)
# The marked code has a cache of its own, which a change of this file empties.
_SUFFIX: Final = f"-{zlib.crc32(Path(__file__).read_bytes()):08x}.pyc"

#: The lines of each file that were executed.
_executed: Final[dict[str, dict[int, bool]]] = {}


def executed_lines(path: str) -> dict[int, bool]:
    """Return the lines of a file that were executed; the marks add theirs."""
    return _executed.setdefault(path, {})


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of statements in *node*, without the imports for type checkers."""
    names = ["body", "orelse", "finalbody", "handlers", "cases"]
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        names.remove("body")
    for name in names:
        children = getattr(node, name, None)
        if isinstance(children, list):
            if children and isinstance(children[0], ast.stmt):
                yield children
            for child in children:
                yield from blocks(child)


def is_executed(statement: ast.stmt) -> bool:
    """Whether Python makes code of *statement*."""
    match statement:
        case ast.Expr(ast.Constant()) | ast.Global() | ast.Nonlocal() | ast.ImportFrom("__future__"):
            return False
    return True


def marked(source: bytes, path: str) -> ast.Module:
    """Parse *source*, with a mark before each statement."""
    tree = ast.parse(source, path)
    for block in list(blocks(tree)):
        block[:] = [
            one
            for statement in block
            for one in ([_mark(statement), statement] if is_executed(statement) else [statement])
        ]
    first = next((place for place, one in enumerate(tree.body) if is_executed(one)), len(tree.body))
    tree.body[first:first] = ast.parse(_PROLOGUE).body
    return tree


def _mark(statement: ast.stmt) -> ast.stmt:
    mark = ast.Assign(
        [ast.Subscript(ast.Name(_MARKS, ast.Load()), ast.Constant(statement.lineno), ast.Store())],
        ast.Constant(True),
    )
    for node in ast.walk(mark):
        ast.copy_location(node, statement)
    return mark


def lines_of(source: bytes) -> set[int]:
    """Return the lines on which a statement of *source* starts."""
    return {one.lineno for block in blocks(ast.parse(source)) for one in block if is_executed(one)}


class _Loader(SourceFileLoader):
    def get_data(self, path: str) -> bytes:
        return super().get_data(_cached(path))

    def set_data(self, path: str, data: Any, **options: Any) -> None:
        super().set_data(_cached(path), data, **options)

    def source_to_code(self, data: Any, path: Any, **options: Any) -> CodeType:  # type: ignore[override]
        return compile(marked(data, path), path, "exec", dont_inherit=True)


def _cached(path: str) -> str:
    return path.removesuffix(".pyc") + _SUFFIX if path.endswith(".pyc") else path


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != _PACKAGE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


@dataclass(frozen=True, slots=True)
class Coverage:
    """The lines of each file that could be executed, and those that weren't."""

    lines: int
    missing: Mapping[Path, Sequence[int]]

    @classmethod
    def of(cls, root: Path) -> Coverage:
        """Return that of the library below *root*."""
        total = 0
        missing = {}
        for path in sorted((root / _PACKAGE).rglob("*.py")):
            lines = lines_of(path.read_bytes())
            total += len(lines)
            missing[path.relative_to(root)] = sorted(lines - executed_lines(str(path)).keys())
        return cls(total, missing)

    @property
    def percent(self) -> float:
        return 100 - 100 * sum(map(len, self.missing.values())) / self.lines


_COVERAGE: Final = pytest.StashKey[Coverage]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sqla_rls")
    group.addoption(
        "--lines-at-least", type=float, default=0, help="fail below this line coverage, in percent"
    )
    group.addoption("--missing-lines", action="store_true", help="print the lines that weren't executed")


def _required(config: pytest.Config) -> float:
    return float(config.getoption("--lines-at-least") or 0)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Give the lines of this process to the one that reports them, before xdist sends its results."""
    yield
    config: Any = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["lines"] = {path: list(lines) for path, lines in _executed.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the lines of another process."""
    for path, lines in getattr(node, "workeroutput", {}).get("lines", {}).items():
        executed_lines(path).update(dict.fromkeys(lines, True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Fail a run of which the coverage is too low."""
    result = yield
    if not hasattr(session.config, "workeroutput"):
        coverage = session.config.stash[_COVERAGE] = Coverage.of(session.config.rootpath)
        session.testsfailed += coverage.percent < _required(session.config)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    coverage = config.stash[_COVERAGE]
    if config.getoption("--missing-lines"):
        for path, lines in coverage.missing.items():
            terminalreporter.write_line(f"{path}: {', '.join(map(str, lines))}")
    required = _required(config)
    terminalreporter.write_line(
        f"Line coverage of {_PACKAGE}: {coverage.percent:.2f} % of {coverage.lines} lines, "
        f"at least {required:g} % required.",
        red=coverage.percent < required,
    )


sys.meta_path.insert(0, _Finder())
