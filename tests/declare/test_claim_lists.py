"""Claims that are lists: who has a permission, and whose organizations a row may belong to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
from sqlalchemy import (
    CHAR,
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
    cast,
    create_engine,
    func,
    insert,
    not_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, Role, in_jwt_claim, jwt_claim_contains
from sqla_rls.catalog.query import undone
from sqla_rls.testing.postgres import Server
from tests.support.suite import first_and_rest

READER, OTHERS = Role("claim_lists_reader"), Role("claim_lists_others")
KEYS = [f"{n}1111111-1111-1111-1111-11111111111{n}" for n in (1, 2)]
MAX = 2**63 - 1

#: The name of a table for each type, with its rows.
TYPES: dict[str, tuple[Any, list[Any]]] = {
    "texts": (Text(), ["a", "b", "5", "true", '["a"]']),
    "strings": (String(20), ["a", "b"]),
    "codes": (CHAR(4), ["a", "b"]),
    "names": (CITEXT(), ["a", "b"]),
    "keys": (Uuid(), KEYS),
    "numbers": (BigInteger(), [1, 2, MAX]),
    "smalls": (SmallInteger(), [1, 2]),
}

metadata = MetaData()
TABLES = {
    name: Table(
        name,
        metadata,
        Column("org", type_, primary_key=True),
        Policy("theirs", "SELECT", READER, using=in_jwt_claim("org", "a", "orgs")),
        Policy("not theirs", "SELECT", OTHERS, using=not_(in_jwt_claim("org", "a", "orgs"))),
    )
    for name, (type_, _) in TYPES.items()
}
NOTES = Table(
    "notes",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Policy("may", "SELECT", READER, using=jwt_claim_contains("a", "may", value='re"a\\d')),
    Policy("may not", "SELECT", OTHERS, using=not_(jwt_claim_contains("a", "may", value='re"a\\d'))),
)


@pytest.fixture(scope="module")
def url(server: Server) -> Iterator[URL]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION citext"))
        metadata.create_all(connection)
        connection.execute(insert(NOTES), {"id": 1})
        for table, (_, rows) in TYPES.items():
            connection.execute(insert(TABLES[table]), [{"org": one} for one in rows])
    yield engine.url
    server.drop_database(name)


@pytest.fixture
def connection(url: URL) -> Iterator[Connection]:
    engine: Engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def seen(connection: Connection, role: Role, claims: object, table: Table) -> list[str]:
    """What the caller with *claims* sees, as text."""
    with undone(connection):
        connection.execute(
            select(
                func.set_config("role", role.name, True),
                func.set_config("request.jwt.claims", "" if claims is None else json.dumps(claims), True),
            )
        )
        return list(map(str, connection.scalars(select(table.c[0]).order_by(table.c[0]))))


#: Claims that are no list where one is looked for.
NO_LISTS: list[Any] = [
    None,
    {},
    {"a": None},
    {"a": "orgs"},
    {"a": ["orgs"]},
    {"a": {}},
    *({"a": {"orgs": one, "may": one}} for one in (None, "a", 're"a\\d', '["a"]', 1, True, {"a": "a"})),
]


@first_and_rest("rows", NO_LISTS)
@pytest.mark.exhaustive
def test_a_claim_that_is_no_list_shows_nothing_negated_or_not(
    connection: Connection, rows: list[Any], subtests: pytest.Subtests
) -> None:
    for claims in rows:
        for role, each in product((READER, OTHERS), (NOTES, *TABLES.values())):
            with subtests.test(f"{json.dumps(claims)}: {role.name}, {each.name}"):
                assert seen(connection, role, claims, each) == []


#: A table, the list in the claims, and the rows of which it has the organization.
LISTS: list[tuple[str, list[Any], list[str]]] = [
    ("texts", ["b", "nobody's"], ["b"]),
    ("texts", ["A", "a "], []),
    ("texts", [["a"], 5, True, {"b": "b"}, None], []),
    ("strings", ["b"], ["b"]),
    ("codes", ["b", "a "], ["b   "]),
    # A cast to CHAR(4) would make it another name.
    ("codes", ["a   x"], []),
    ("names", ["B"], ["b"]),
    ("keys", [KEYS[0].upper(), "1", 2, None, [KEYS[1]], "", KEYS[1] + "0"], [KEYS[0]]),
    ("keys", [KEYS[0].replace("-", "")], [KEYS[0]]),
    ("numbers", [2, str(MAX)], ["2", str(MAX)]),
    ("numbers", ["", "1 ", 1.5, "one", True, [1], {"1": 1}, MAX + 1, 10**30, "1\n", "1.0", 2], ["2"]),
    # Another organization's text isn't this one's number.
    ("numbers", ["02", "+2", "-0", "0x2", "002"], []),
    ("smalls", [2, 70_000], ["2"]),
    *((table, [], []) for table in TYPES),
]


@first_and_rest("rows", LISTS)
def test_only_rows_that_are_in_the_list_are_seen(
    connection: Connection, rows: list[tuple[str, list[Any], list[str]]], subtests: pytest.Subtests
) -> None:
    for table, orgs, found in rows:
        with subtests.test(f"{table} {orgs}"):
            assert seen(connection, READER, {"a": {"orgs": orgs}}, TABLES[table]) == found


@pytest.mark.parametrize(
    ("table", "orgs", "rows"),
    [
        ("texts", ["b", "5", "true"], ['["a"]', "a"]),
        ("texts", ["b", 5], []),
        ("keys", [KEYS[0]], [KEYS[1]]),
        ("keys", [KEYS[0], "1"], []),
        ("numbers", [1, MAX], ["2"]),
        ("numbers", [1, None], []),
        ("numbers", [1, 10**30], []),
        ("smalls", [], ["1", "2"]),
    ],
)
@pytest.mark.exhaustive
def test_a_negation_shows_rows_beside_a_list_that_is_understood_only(
    connection: Connection, table: str, orgs: list[Any], rows: list[str]
) -> None:
    assert seen(connection, OTHERS, {"a": {"orgs": orgs}}, TABLES[table]) == rows


@pytest.mark.parametrize(
    ("may", "contains"),
    [
        (['re"a\\d'], True),
        (["write", 're"a\\d', None, 5], True),
        ([], False),
        (["re", ['re"a\\d'], {'re"a\\d': 1}, 5], False),
    ],
)
def test_a_list_that_contains_the_value_shows_the_rows(
    connection: Connection, may: list[Any], contains: bool
) -> None:
    for role, sees in ((READER, contains), (OTHERS, not contains)):
        assert seen(connection, role, {"a": {"may": may}}, NOTES) == (["1"] if sees else [])


def _conditions() -> Iterator[tuple[ColumnElement[bool], bool | None]]:
    yield jwt_claim_contains("may", value="100%:x"), True
    yield jwt_claim_contains("may", value="5"), False
    yield jwt_claim_contains("may", value=5), True
    yield in_jwt_claim(cast("é", Text()), "it's"), True
    yield in_jwt_claim(cast(7, BigInteger()), "it's"), None


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_queries_may_ask_as_well(url: URL, driver: str) -> None:
    claims = json.dumps({"may": ["100%:x", 5], "it's": ["é"]})
    bind = select(func.set_config("request.jwt.claims", claims, True))
    asked = select(*(condition for condition, _ in _conditions()))
    url = url.set(drivername=f"postgresql+{driver}")

    async def answers() -> list[bool | None]:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.connect() as connection:
            await connection.execute(bind)
            return list((await connection.execute(asked)).one())

    assert asyncio.run(answers()) == [expected for _, expected in _conditions()]


@pytest.mark.parametrize("table", TYPES)
@pytest.mark.exhaustive
def test_the_index_of_the_column_is_searched(connection: Connection, table: str) -> None:
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    connection.execute(select(func.set_config("role", READER.name, True)))
    plan = "\n".join(connection.execute(text(f"EXPLAIN SELECT * FROM {table}")).scalars())
    assert "InitPlan" in plan
    assert "Index Cond: (" in plan


def test_statements_for_another_value_are_cached_apart() -> None:
    made: list[Callable[[str], ColumnElement[bool]]] = [
        lambda name: jwt_claim_contains(name, value="x"),
        lambda name: jwt_claim_contains("a", value=name),
        lambda name: in_jwt_claim(TABLES["texts"].c.org, name),
    ]
    for make in made:
        one, other = (select(make(name))._generate_cache_key() for name in ("a", "b"))
        assert one is not None
        assert other is not None
        assert one.key == other.key
        assert [value.value for value in one.bindparams] != [value.value for value in other.bindparams]
