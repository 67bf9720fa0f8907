"""How Postgres reads under a policy: it asks for the caller once, and searches the index.

Asserted is the shape of plans; what they cost is measured by ``python -m benchmarks.policies``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    MetaData,
    Table,
    Text,
    Uuid,
    create_engine,
    select,
    text,
)
from sqlalchemy.pool import NullPool

from sqla_rls import Policy, Role, auth_uid, in_jwt_claim, jwt_claim, jwt_claim_contains, member_of
from sqla_rls.catalog.query import undone
from sqla_rls.testing.postgres import Server
from tests.support.suite import first_and_rest

ROWS, OWNERS = 30_000, 300

metadata = MetaData()
members = Table(
    "members",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("org_id", BigInteger, primary_key=True),
    Column("org_key", Uuid),
    Policy("own", "SELECT", using=auth_uid("user_id")),
)
documents = Table(
    "documents",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("owner", Text, index=True),
    Column("owner_key", Uuid, index=True),
    Column("owner_number", BigInteger, index=True),
    Column("org_id", BigInteger, index=True),
    Column("org_key", Uuid, index=True),
)
own = documents.c

#: By the column that they are about, and how the caller is named.
POLICIES: dict[tuple[str, str], ColumnElement[bool] | str] = {
    ("owner", "auth_uid"): auth_uid("owner"),
    ("owner_key", "auth_uid"): auth_uid("owner_key"),
    ("owner_number", "auth_uid"): auth_uid("owner_number"),
    ("owner", "jwt_claim"): jwt_claim("email") == own.owner,
    ("org_id", "jwt_claim"): jwt_claim("org", "id", type_=BigInteger) == own.org_id,
    ("org_key", "jwt_claim"): own.org_key == jwt_claim("org", "key", type_=Uuid),
    ("org_id", "in_jwt_claim"): in_jwt_claim("org_id", "org", "ids"),
    ("org_key", "in_jwt_claim"): in_jwt_claim("org_key", "org_keys"),
    ("owner", "in_jwt_claim"): jwt_claim_contains("may", value="read") & in_jwt_claim("owner", "owners"),
    ("org_id", "member_of"): member_of("org_id", members.c.org_id, members.c.user_id),
    ("org_key", "member_of"): member_of(
        "org_key", select(members.c.org_key).where(auth_uid(members.c.user_id), members.c.org_id > 5)
    ),
}
#: What asks for the caller row by row.
SLOW: dict[tuple[str, str], ColumnElement[bool] | str] = {
    ("owner", "comparison_inside"): "(SELECT auth.user_id() = owner)",
    (
        "org_id",
        "in",
    ): "org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))",
}
for (column, kind), using in (POLICIES | SLOW).items():
    role = Role(f"plans_{column}_{kind}")
    Policy(role.name, roles=role, using=using)._set_parent_with_dispatch(documents)

FILL = """
INSERT INTO members
SELECT 'user_' || u, org, md5(org::text)::uuid
  FROM generate_series(1, :owners) AS u, generate_series(1, 5) AS n,
       LATERAL (SELECT (u * 7 + n) % :owners) AS o (org);
INSERT INTO documents
SELECT id, 'user_' || owner, md5(owner::text)::uuid, owner, owner, md5(owner::text)::uuid
  FROM generate_series(1, :rows) AS id, LATERAL (SELECT id % :owners) AS o (owner)
"""

READING = ["SELECT * FROM documents", "SELECT count(*) FROM documents"]
WITH_KEY = [
    "SELECT * FROM documents WHERE id > 100 ORDER BY id LIMIT 20",
    "UPDATE documents SET id = -id WHERE id = 100",
    "DELETE FROM documents WHERE id = 100",
]


@pytest.fixture(
    scope="module",
    params=[pytest.param("as the server offers them", marks=pytest.mark.exhaustive), "portable"],
)
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[Connection]:
    name = server.create_database()
    engine = create_engine(server.url(name), poolclass=NullPool)
    with engine.connect() as connection:
        if request.param == "portable":
            # A schema that is there already keeps the extension out.
            connection.execute(text("CREATE SCHEMA auth"))
        metadata.create_all(connection)
        for statement in FILL.split(";"):
            connection.execute(text(statement), {"owners": OWNERS, "rows": ROWS})
        connection.execute(text("ANALYZE"))
        yield connection
    server.drop_database(name)


def explain(connection: Connection, column: str, kind: str, statement: str) -> str:
    """The plan of *statement* under the policy of that column and kind."""
    with undone(connection):
        connection.execute(text(f"SET LOCAL ROLE plans_{column}_{kind}"))
        return "\n".join(connection.execute(text(f"EXPLAIN {statement}")).scalars())


def assert_asked_once(plan: str) -> None:
    assert "InitPlan" in plan
    assert "SubPlan" not in plan


@first_and_rest("policies", POLICIES)
@pytest.mark.exhaustive
def test_reading_searches_the_index_of_the_column(
    connection: Connection, policies: list[tuple[str, str]], subtests: pytest.Subtests
) -> None:
    for (column, kind), statement in product(policies, READING):
        with subtests.test(f"{column} {kind}: {statement}"):
            plan = explain(connection, column, kind, statement)
            assert_asked_once(plan)
            assert f"Index Cond: ({column} = " in plan


@pytest.mark.exhaustive
@first_and_rest("policies", POLICIES)
def test_what_has_a_key_is_found_by_an_index(
    connection: Connection, policies: list[tuple[str, str]], subtests: pytest.Subtests
) -> None:
    for (column, kind), statement in product(policies, WITH_KEY):
        with subtests.test(f"{column} {kind}: {statement}"):
            plan = explain(connection, column, kind, statement)
            assert_asked_once(plan)
            assert "Index Cond: (id " in plan or f"Index Cond: ({column} = " in plan


@first_and_rest("policies", POLICIES)
def test_many_new_rows_ask_for_the_caller_once(
    connection: Connection, policies: list[tuple[str, str]], subtests: pytest.Subtests
) -> None:
    for column, kind in policies:
        with subtests.test(f"{column} {kind}"):
            statement = "INSERT INTO documents SELECT generate_series(-100, -1)"
            assert_asked_once(explain(connection, column, kind, statement))


@first_and_rest("policies", POLICIES)
def test_without_an_index_the_caller_is_asked_for_once(
    connection: Connection, policies: list[tuple[str, str]], subtests: pytest.Subtests
) -> None:
    for column, kind in policies:
        with subtests.test(f"{column} {kind}"), undone(connection):
            for way in ("indexscan", "indexonlyscan", "bitmapscan"):
                connection.execute(text(f"SET LOCAL enable_{way} = off"))
            plan = explain(connection, column, kind, "SELECT * FROM documents")
            assert "Seq Scan on documents" in plan
            assert_asked_once(plan)


@first_and_rest("policies", SLOW)
def test_other_spellings_look_at_every_row(
    connection: Connection, policies: list[tuple[str, str]], subtests: pytest.Subtests
) -> None:
    for column, kind in policies:
        with subtests.test(f"{column} {kind}"):
            plan = explain(connection, column, kind, "SELECT * FROM documents")
            assert "SubPlan" in plan
            assert f"Index Cond: ({column}" not in plan
