"""The roles and functions that the revisions so far make.

A role of the cluster, or a function of the database, may be there because of another project.  The revision
files are the one memory that every database has in common.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

_CALLS = ("create_role", "create_auth_functions")


@dataclass(frozen=True, slots=True)
class History:
    """*roles* are the names in ``op.create_role()``; *auth_functions*: a revision calls that operation."""

    roles: frozenset[str]
    auth_functions: bool


def history(context: MigrationContext) -> History | None:
    """The history of *context*; None where the caller compares without revisions."""
    if context.script is None:
        return None
    calls = [call for script in context.script.walk_revisions() for call in _calls(Path(script.path))]
    return History(
        roles=frozenset(name for function, name in calls if function == "create_role" and name is not None),
        auth_functions=any(function == "create_auth_functions" for function, _ in calls),
    )


def _calls(path: Path) -> Iterator[tuple[str, str | None]]:
    """The operations of *path* that make roles and functions, and the literal name in each."""
    source = path.read_bytes() if path.suffix == ".py" else b""
    # Most revisions have none, and parsing takes a millisecond.
    if not any(name.encode() in source for name in _CALLS):
        return
    for function in ast.parse(source).body:
        if isinstance(function, ast.FunctionDef) and function.name.startswith("downgrade"):
            continue
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _CALLS
            ):
                yield node.func.attr, _name(node)


def _name(call: ast.Call) -> str | None:
    given = [*call.args[:1], *(one.value for one in call.keywords if one.arg == "name")]
    value = given[0].value if given and isinstance(given[0], ast.Constant) else None
    return value if isinstance(value, str) else None
