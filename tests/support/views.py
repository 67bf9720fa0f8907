"""Models with a view, and the calls of migrations that are about views."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    Text,
)

from sqla_rls import (
    Policy,
    Role,
    grant,
    view,
)
from tests.support.project import operations

READER = Role("reporting")


def models(query: Any = "SELECT id, task FROM todos", *grants: grant, **options: Any) -> MetaData:
    """A table, and a view of it, which its reader may read."""
    columns = options.pop("columns", {})
    metadata = MetaData()
    Table(
        "todos",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", Text),
        Column("task", columns.pop("task", Text)),
        *(Column(name, type_) for name, type_ in columns.items()),
        Policy("mine", "SELECT", READER, using="user_id = current_user"),
    )
    if query is not None:
        view("my_todos", metadata, query, *(grants or [grant("SELECT", to=READER)]), **options)
    return metadata


def about_views(written: str, direction: str = "upgrade") -> list[str]:
    return [name for name in operations(written, direction) if "view" in name or "policy" in name]
