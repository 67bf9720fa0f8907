"""What users may import, call and run: exported_members.txt lists it, and changes on purpose only."""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin, is_typeddict

from alembic.operations import Operations

LISTED = Path(__file__).with_name("exported_members.txt")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
#: Modules that users import from, besides the package itself.
MODULES = (
    "sqla_rls",
    "sqla_rls.analyze",
    "sqla_rls.analyze.intent",
    "sqla_rls.analyze.plans",
    "sqla_rls.exc",
    "sqla_rls.fastapi",
    "sqla_rls.http",
    "sqla_rls.neon_http",
    "sqla_rls.provider",
    "sqla_rls.rotation",
    "sqla_rls.supabase",
    "sqla_rls.testing",
    "sqla_rls.testing.access",
    "sqla_rls.testing.clock",
    "sqla_rls.testing.development",
    "sqla_rls.testing.issuer",
    "sqla_rls.testing.pgbouncer",
    "sqla_rls.testing.postgres",
)


def signature(member: object) -> str:
    """Without the annotations, which type checkers look at."""
    if not callable(member):
        return ""
    if get_origin(member) is not None or is_typeddict(member):
        return "(…)"  # versions of Python have different signatures of aliases
    if isinstance(member, type) and issubclass(member, Exception):
        return f" < {member.__bases__[0].__name__}"
    found = inspect.signature(member)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    return str(found.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def members(module: ModuleType) -> Iterator[str]:
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    for name in sorted(names):
        member: Any = getattr(module, name)
        yield f"{module.__name__}.{name}{signature(member)}"
        if not isinstance(member, type) or issubclass(member, Exception):
            continue
        for method, value in sorted(vars(member).items()):
            if not method.startswith("_") and not isinstance(value, (type, property)):
                inner = getattr(member, method)
                if callable(inner) and inspect.isroutine(inner):
                    yield f"  .{method}{signature(inner)}"
            elif isinstance(value, property) and not method.startswith("_"):
                yield f"  .{method}"


def operations() -> Iterator[str]:
    for name, operation in sorted(vars(Operations).items()):
        if inspect.isfunction(operation) and _origin(name).startswith("sqla_rls."):
            yield f"op.{name}{signature(operation)}"


def _origin(name: str) -> str:
    """The module of the class behind an operation: Alembic makes a function of its own for each."""
    for operation in _classes():
        if hasattr(operation, name):
            return str(operation.__module__)
    return ""


def _classes() -> Iterator[type]:
    from alembic.operations.ops import MigrateOperation

    waiting: list[type] = [MigrateOperation]
    while waiting:
        found: list[type] = waiting.pop().__subclasses__()
        yield from (one for one in found if one.__module__.startswith("sqla_rls."))
        waiting.extend(found)


def exported() -> str:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    lines = [line for name in MODULES for line in members(import_module(name))]
    lines += operations()
    lines += [f"extra {name}" for name in sorted(project["optional-dependencies"])]
    lines += [f"command {name} = {target}" for name, target in sorted(project["scripts"].items())]
    return "\n".join(lines) + "\n"


def test_the_exported_members_are_those_that_are_listed() -> None:
    found = exported()
    if os.environ.get("SQLA_RLS_WRITE_EXPORTED_MEMBERS"):
        LISTED.write_text(found, encoding="utf-8")
    assert found.splitlines() == LISTED.read_text(encoding="utf-8").splitlines()
