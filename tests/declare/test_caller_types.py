"""Columns of types other than text: the caller is cast to the column's, and the index is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, Role, auth_uid, member_of
from sqla_rls.testing.postgres import Server

pytestmark = pytest.mark.sqlalchemy

READER = Role("caller_types_reader")

metadata = MetaData()
TABLES = {
    name: Table(
        name,
        metadata,
        Column("owner", type_, primary_key=True),
        Policy("own", "SELECT", READER, using=auth_uid("owner")),
    )
    for name, type_ in (("codes", CHAR(8)), ("names", CITEXT()), ("numbers", BigInteger()))
}
OWNERS = TABLES["names"].c.owner
TEAMS = Table(
    "teams",
    metadata,
    Column("name", CITEXT(), primary_key=True),
    Policy(
        "members", "SELECT", READER, using=member_of("name", TABLES["names"].c.owner, TABLES["names"].c.owner)
    ),
)


@pytest.fixture(scope="module")
def engine_with_rows(server: Server) -> Iterator[Engine]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION citext"))
        metadata.create_all(connection)
        for table in (*TABLES.values(), TEAMS):
            owners: tuple[Any, ...] = ("alice", "bob") if table.name != "numbers" else (0, 7, -7, 2**63 - 1)
            connection.execute(insert(table), [{table.c[0].name: one} for one in owners])
    yield engine
    server.drop_database(name)


@pytest.fixture
def connection(engine_with_rows: Engine) -> Iterator[Connection]:
    with engine_with_rows.connect() as connection:
        yield connection


def bind(connection: Connection, subject: str) -> None:
    connection.execute(
        select(
            func.set_config("role", READER.name, True),
            func.set_config("request.jwt.claims", f'{{"sub": "{subject}"}}', True),
        )
    )


NUMBERS: list[tuple[str, list[int]]] = [
    ("-7", [-7]),
    ("0", [0]),
    ("9223372036854775807", [2**63 - 1]),
    *((other, []) for other in ("+7", " 7", "7 ", "-0", "00", "0x7", "7_", "", "alice", "7\\n")),
]


@pytest.mark.parametrize(
    ("table", "subject", "owners"),
    [
        ("codes", "alice", ["alice   "]),
        ("codes", "ALICE", []),
        # A cast to CHAR(8) would make it somebody else's name.
        ("codes", "alice   x", []),
        ("codes", "alice ", []),
        ("names", "alice", ["alice"]),
        ("names", "Alice", ["alice"]),
        ("names", "alice ", []),
        ("numbers", "7", [7]),
        # Two subjects aren't one person.
        ("numbers", "07", []),
        *(pytest.param("numbers", *one, marks=pytest.mark.exhaustive) for one in NUMBERS),
    ],
)
def test_rows_are_the_callers_by_the_rules_of_the_type(
    connection: Connection, table: str, subject: str, owners: list[Any]
) -> None:
    bind(connection, subject)
    assert connection.scalars(select(TABLES[table].c.owner)).all() == owners


@pytest.mark.exhaustive
@pytest.mark.parametrize("subject", ["9223372036854775808", "-9999999999999999999"])
def test_a_number_that_no_integer_column_has_is_an_error(connection: Connection, subject: str) -> None:
    bind(connection, subject)
    with pytest.raises(DBAPIError, match="out of range for type bigint"):
        connection.scalars(select(TABLES["numbers"].c.owner))


@pytest.mark.parametrize("table", TABLES)
def test_the_index_of_the_column_is_searched(connection: Connection, table: str) -> None:
    bind(connection, "7")
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    plan = "\n".join(connection.execute(text(f"EXPLAIN SELECT * FROM {table}")).scalars())
    assert "InitPlan" in plan
    assert "Index Cond: (owner = " in plan


def test_groups_are_compared_by_the_rules_of_the_type(connection: Connection) -> None:
    bind(connection, "ALICE")
    assert connection.scalars(select(TEAMS.c.name)).all() == ["alice"]
