"""The Alembic plugin: operations, and autogenerate for declarations.

Alembic finds it through the entry point ``alembic.plugins``, without a line in ``env.py``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sqlalchemy import Table, event

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register with Alembic, which calls this function during its own import."""
    # Imported here, since the two packages import each other.
    from alembic.util import DispatchPriority

    from sqla_rls.alembic.autogenerate.compare import (
        collect_rarely,
        compare_row_security,
        leave_out_schemas,
    )

    # These modules register operations.
    from sqla_rls.alembic.operations import (  # noqa: F401
        auth_functions,
        functions,
        policies,
        privileges,
        public,
        roles,
        row_security,
        views,
    )

    plugin.add_autogenerate_comparator(
        collect_rarely, "schema", "models", qualifier="postgresql", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        leave_out_schemas, "schema", "secret", qualifier="postgresql", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        compare_row_security, "schema", "row_security", qualifier="postgresql", priority=DispatchPriority.LAST
    )
    # The reminder needs modules that Alembic hasn't imported yet.  A migration context creates a Table for
    # its version table before it reads the comparators, and by then Alembic is imported.
    event.listen(Table, "after_parent_attach", _load_reminder, once=True)


def _load_reminder(*_: object) -> None:
    import_module("sqla_rls.alembic.autogenerate.reminder")


# Last, so that setup() exists when Alembic, imported by this package first, calls it.
import alembic  # noqa: E402, F401
