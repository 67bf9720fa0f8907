"""The Alembic plugin: operations, and autogenerate for what the models declare.

Alembic finds it through the entry point ``alembic.plugins``; ``env.py`` says nothing about it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sqlalchemy import Table, event

if TYPE_CHECKING:
    from alembic.runtime.plugins import Plugin


def setup(plugin: Plugin) -> None:
    """Register with Alembic; it calls this while it is being imported."""
    # Not above: whichever of the two packages is imported first would find the other half made.
    from alembic.util import DispatchPriority

    from sqla_rls.alembic.autogenerate.compare import compare_row_security, leave_out_the_secret

    # They register operations.
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
        leave_out_the_secret, "schema", "secret", qualifier="postgresql", priority=DispatchPriority.FIRST
    )
    plugin.add_autogenerate_comparator(
        compare_row_security, "schema", "row_security", qualifier="postgresql", priority=DispatchPriority.LAST
    )
    # The reminder needs what Alembic has yet to import.  A migration context makes a Table for its own
    # version table before it asks for comparators: by then at the latest all is there.
    event.listen(Table, "after_parent_attach", _load_reminder, once=True)


def _load_reminder(*_: object) -> None:
    import_module("sqla_rls.alembic.autogenerate.reminder")


# Last, so that setup() is there when Alembic, imported through this package first, asks for it.
import alembic  # noqa: E402, F401
