"""Calls ``create_all.py`` when Postgres tables are created or dropped.

An app that serves requests creates none.  So the first table imports ``create_all.py``, and with it the
catalog and the DDL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, MetaData, Table, event


def _listen(target: type[MetaData | Table], event_name: str, function: str) -> None:
    @event.listens_for(target, event_name)
    def call(subject: MetaData | Table, connection: Connection, **kw: Any) -> None:
        is_part = isinstance(subject, Table) and kw.get("_is_metadata_operation")
        if connection.dialect.name == "postgresql" and not is_part:
            from sqla_rls import create_all

            getattr(create_all, function)(subject, connection, **kw)


_listen(MetaData, "before_create", "before_create")
_listen(MetaData, "after_create", "after_create")
_listen(MetaData, "before_drop", "before_drop")
_listen(MetaData, "after_drop", "after_drop")
_listen(Table, "before_create", "before_create_table")
_listen(Table, "after_create", "after_create_table")
