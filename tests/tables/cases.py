"""Policies that Postgres accepts, each declared, and as one would write it by hand: what to expect.

Add a case where it belongs; test_cases.py does the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, JSONB, TSTZRANGE

from sqla_rls import Policy

READER, WRITER = "cases_reader", 'Cases "Writer", 100%'
#: Schemas besides the default one.
SCHEMAS = ("elsewhere", "Else Where")


class Mood(enum.Enum):
    sad = "sad"
    ok = "ok"
    happy = "happy"


COLUMNS: dict[str, Any] = {
    "name": Text,
    "code": String(20),
    "n": BigInteger,
    "amount": Numeric(10, 2),
    "ratio": Float,
    "at": DateTime(timezone=True),
    "local": DateTime,
    "day": Date,
    "lasts": Interval,
    "tags": ARRAY(Text),
    "data": JSONB,
    "mood": Enum(Mood, name="mood"),
    "owner": Uuid,
    "flag": Boolean,
    "raw": LargeBinary,
    "address": INET,
    "period": TSTZRANGE,
}

Build = Callable[[MetaData], None]


@dataclass(frozen=True)
class Step:
    """What the models declare, and the statements that do the same."""

    build: Build
    by_hand: list[str]


@dataclass(frozen=True)
class Case:
    """What the catalog, or a change that autogenerate finds, says about it has one of *marks* in it."""

    group: str
    name: str
    marks: tuple[str, ...]
    created: Step
    changed: Step
    removed: Step
    prepare: tuple[str, ...] = ()
    #: Whether the statements grant, too; most leave out what policies imply.
    grants: bool = False


#: Keeps its table managed when the policy of the case is gone.
STAYS = "CREATE POLICY stays ON {table} FOR SELECT USING (false)"
ENABLE = "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"


def stays() -> Policy:
    return Policy("stays", "SELECT", using=False)


def by_hand(table: str, *statements: str) -> list[str]:
    return [one.replace("{table}", table) for one in (ENABLE, STAYS, *statements)]


def table(metadata: MetaData, name: str, *items: Any) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), stays(), *items)


def shared_tables(metadata: MetaData) -> None:
    """One with a column of every type, and one for subqueries to look into."""
    columns = [Column(name, type_) for name, type_ in COLUMNS.items()]
    table(metadata, "everything", *columns)
    Table("notes_of", metadata, Column("id", Integer, primary_key=True), Column("t_id", Integer))


_number = 0


def next_name(prefix: str) -> str:
    global _number
    _number += 1
    return f"{prefix}_{_number:03}"


def expression(group: str, name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    """USING of a policy on the table with a column of every type; *declared* may be a function of it."""
    policy = next_name("e")

    def step(declared: Any, sql: str) -> Step:
        def build(metadata: MetaData) -> None:
            made = metadata.tables["everything"]
            using: Any = declared(made) if callable(declared) else declared
            Policy(policy, using=using)._set_parent_with_dispatch(made)

        return Step(build, [f"CREATE POLICY {policy} ON everything USING ({sql}\n)"])

    return Case(
        group,
        name,
        (policy,),
        step(declared, sql),
        step(changed, changed_sql),
        Step(lambda metadata: None, []),
    )
