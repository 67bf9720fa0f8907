"""The file and the line of a finding in the models."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, Table

from sqla_rls.analyze.lint.finding import Finding, SourceLine

#: The calls of a class body that declare policies.
_DECLARATIONS = frozenset({"Policy", "crud_policy", "own_rows"})


@dataclass(frozen=True, slots=True)
class _Model:
    """A mapped class, or a call of Table, in a file."""

    path: str
    node: ast.ClassDef | ast.Call


class Sources:
    """Finds the lines of tables, columns and policies."""

    def __init__(self, models: Sequence[MetaData]) -> None:
        self._models: Mapping[tuple[str, str], _Model] = dict(_mapped(models)) if models else {}
        if models:
            self._models = {**dict(_tables(models)), **self._models}

    def locate(self, finding: Finding) -> SourceLine | None:
        """Return the line of the policy or the column, or else of the model; None without a model."""
        schema, _, name = finding.object.partition(".")
        model = self._models.get((_plain(schema), _plain(name)))
        if model is None:
            return None
        line = (
            _line_of_column(model.node, finding.column)
            if finding.column is not None
            else _line_of_policy(model.node, finding.policy)
        )
        return SourceLine(path=_relative(model.path), line=line or model.node.lineno)


def _mapped(models: Sequence[MetaData]) -> Iterator[tuple[tuple[str, str], _Model]]:
    """Yield the class of each mapped table, in the modules that have it."""
    for module in list(sys.modules.values()):
        for value in list(getattr(module, "__dict__", {}).values()):
            table = vars(value).get("__table__") if isinstance(value, type) else None
            if isinstance(table, Table) and table.metadata in models:
                found = _class_in_source(value)
                if found is not None:
                    yield (table.schema or "public", table.name), found


def _class_in_source(found: type) -> _Model | None:
    try:
        path = inspect.getsourcefile(found)
    except (OSError, TypeError):
        return None
    tree = _parsed(path)
    names = found.__qualname__.split(".")
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.ClassDef) and node.name == names[-1]:
            return _Model(path or "", node)
    return None


def _tables(models: Sequence[MetaData]) -> Iterator[tuple[tuple[str, str], _Model]]:
    """Yield the call ``Table("name", …)`` of each table, in the modules that have one of *models*."""
    wanted: dict[str, list[Any]] = {}
    for metadata in models:
        for table in metadata.tables.values():
            wanted.setdefault(table.name, []).append(table)
    for module in list(sys.modules.values()):
        values = getattr(module, "__dict__", {})
        if not any(value in models for value in values.values() if isinstance(value, MetaData)):
            continue
        tree = _parsed(getattr(module, "__file__", None))
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call) and _called(node) == "Table":
                for table in wanted.get(_first_text(node) or "", ()):
                    yield (table.schema or "public", table.name), _Model(str(module.__file__), node)


def _parsed(path: str | None) -> ast.Module | None:
    lines = linecache.getlines(path) if path else []
    try:
        return ast.parse("".join(lines)) if lines else None
    except SyntaxError:
        return None


def _line_of_policy(model: ast.AST, policy: str | None) -> int | None:
    """Return the line of the declaration of *policy*; without a name, None."""
    if policy is None:
        return None
    calls = [one for one in ast.walk(model) if isinstance(one, ast.Call) and _called(one) in _DECLARATIONS]
    for call in calls:
        if _called(call) == "Policy" and _first_text(call) == policy:
            return call.lineno
    made = [one for one in calls if _called(one) != "Policy" and policy.startswith("crud-")]
    return made[0].lineno if len(made) == 1 else None


def _line_of_column(model: ast.AST, column: str) -> int | None:
    for node in ast.walk(model):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == column:
            return node.lineno
        if isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == column for one in node.targets
        ):
            return node.lineno
        if isinstance(node, ast.Call) and _called(node) == "Column" and _first_text(node) == column:
            return node.lineno
    return None


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _first_text(call: ast.Call) -> str | None:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _plain(name: str) -> str:
    """Return an identifier without its quotes."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _relative(path: str) -> str:
    found, here = Path(path), Path.cwd()
    return found.relative_to(here).as_posix() if found.is_relative_to(here) else str(found)
