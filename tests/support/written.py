"""A table with a column of each type, another of its members, and how an expression is written on it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Integer, MetaData, Table, Text, Uuid

from sqla_rls import Policy
from sqla_rls.declare.collect import declared

MEMBERS = Table(
    "members",
    MetaData(),
    Column("user_id", Uuid, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Uuid),
)


def table(*items: Any) -> Table:
    return Table(
        "todos",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("user_id", Text),
        Column("number", BigInteger),
        Column("key", Uuid),
        Column("document", JSON),
        *items,
    )


def using(expression: Any, on: Table | None = None) -> str | None:
    """How *expression* is written on a table."""
    on = table() if on is None else on
    Policy("it", using=expression)._set_parent_with_dispatch(on)
    (policy,) = declared([on.metadata]).policies.values()
    return policy.using
