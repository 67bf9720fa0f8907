"""The names that our operations have on ``op``, and the check that they are still ours.

Alembic keeps one operation for each name: the last package that registers the name has it, without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alembic.operations import MigrateOperation, Operations

from sqla_rls.exc import MigrationError

_OURS: dict[str, Any] = {}


def register(*names: str) -> Callable[[type[MigrateOperation]], None]:
    """Register the class methods *names* of an operation."""

    def register_all(operation: type[MigrateOperation]) -> None:
        for name in names:
            Operations.register_operation(name)(operation)
            _OURS[name] = getattr(Operations, name)

    return register_all


def require_ours(name: str) -> None:
    """Raise MigrationError if another package has registered an operation by our *name*."""
    found = getattr(Operations, name)
    if name in _OURS and found is not _OURS[name]:
        # Alembic makes the method, with the operation's class among its globals.
        other = getattr(found, "__globals__", {}).get("op_cls", found)
        raise MigrationError(
            f"autogenerate can't write op.{name}(): {other.__module__} has registered an operation of that "
            f"name. Rename that operation, or remove the import of {other.__module__}"
        )
