"""The filters of env.py and ``ignore()`` for views and functions."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import MetaData, Table
from sqlalchemy.schema import SchemaItem

from sqla_rls.declare.ignore import Ignored
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import TableKey

log = autogenerate_log(__name__)


class _Function(SchemaItem):
    """An object for include_object, since SQLAlchemy has no class for functions."""

    def __init__(self, name: str, schema: str | None) -> None:
        self.name, self.schema = name, schema


class Filters(NamedTuple):
    """Applies the filters of env.py and ``ignore()`` to views and functions."""

    autogen_context: Any
    ignored: Ignored

    def function(self, key: TableKey, *, declared: bool) -> bool:
        """Return whether ``include_name``, ``include_object`` and ``ignore()`` include a function."""
        is_ignored = not declared and self.ignored.function(key.name)
        return not is_ignored and self._asked(_Function(key.name, key.schema), "function", key, declared)

    def view(self, key: TableKey, *, declared: Table | None = None) -> bool:
        """Return whether the filters include a view; *declared* is its Table, None for an undeclared one."""
        is_ignored = declared is None and self.ignored.view(key.name)
        table = Table(key.name, MetaData(), schema=key.schema) if declared is None else declared
        return not is_ignored and self._asked(table, "view", key, declared is not None)

    def _asked(self, item: SchemaItem, kind: str, key: TableKey, declared: bool) -> bool:
        context = self.autogen_context
        included = bool(
            context.run_name_filters(key.name, kind, {"schema_name": key.schema})
            and context.run_object_filters(item, key.name, kind, not declared, None)
        )
        if declared and not included:
            log.info(
                "Excluded %s %r: include_name or include_object in env.py returns False for it",
                kind,
                key.name,
            )
        return included
