"""What constraints say of rows: a verdict counts on no constraint that a row may break."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text

from sqla_rls.analyze.in_place import compare_in_place
from sqla_rls.analyze.in_place.inputs import Inputs
from sqla_rls.analyze.in_place.proof import is_proved
from sqla_rls.analyze.in_place.splice import parsed
from tests.support.in_place import ROLES, Databases, database, decided, on, run, side, verdicts
from tests.support.servers import administered, cleared_server
from tests.support.suite import find_installation


def test_a_row_that_can_not_be_made_is_not_decided(databases: Databases) -> None:
    connection = databases.before
    run(
        connection,
        """
        CREATE DOMAIN code AS text CHECK (value ~ '^[a-z][0-9]{9}$');
        CREATE TABLE coded (id int PRIMARY KEY, code code NOT NULL);
        ALTER TABLE coded ENABLE ROW LEVEL SECURITY; GRANT SELECT ON coded TO reader;
        CREATE POLICY p ON coded FOR SELECT TO reader USING (code <> '')
        """,
    )
    before = side(connection)
    run(connection, "ALTER POLICY p ON coded USING (code IS DISTINCT FROM '')")

    found = compare_in_place(connection, before, side(connection), names=["public.coded"])
    connection.rollback()

    assert not found.changes
    assert not [one for one in found.same if one.worlds]
    assert {one.reason for one in found.unknown} == {"no row of the worlds satisfies the constraints"}


@pytest.mark.exhaustive
def test_a_text_that_a_cast_would_cut_is_no_value(databases: Databases) -> None:
    # Before PostgreSQL 16, a cast and a record ask.
    inputs, connection = Inputs(version=150000), databases.before
    assert inputs.accept(connection, "character(3)", "eur")
    assert not inputs.accept(connection, "character(3)", "euros")
    assert inputs.accept(connection, "character varying(3)[]", "{eur}")
    assert inputs.accept(connection, "jsonb", '{"a": 1}')
    assert not inputs.accept(connection, "jsonb", "{")


SHARES = """
CREATE TABLE shares (id int PRIMARY KEY, user_id text, team_id int, doc_id int, folder_id int,
  editor boolean NOT NULL, hidden boolean NOT NULL{});
ALTER TABLE shares ENABLE ROW LEVEL SECURITY; GRANT SELECT ON shares TO reader;
CREATE POLICY p ON shares TO reader USING ((user_id = (SELECT auth.user_id()) OR team_id = 7)
  AND (doc_id = 3 OR folder_id = 4) AND editor AND NOT hidden);
"""
SHARES_CHANGE = """
ALTER POLICY p ON shares USING ((user_id = (SELECT auth.user_id()) OR team_id = 7)
  AND (doc_id = 3 OR folder_id = 4) AND NOT hidden);
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "constraint",
    [
        "CHECK (num_nonnulls(user_id, team_id) = 1), CHECK (num_nonnulls(doc_id, folder_id) = 1)",
        "iban text NOT NULL CHECK (iban <> 'none')",
    ],
    ids=["few rows", "a column that decides nothing"],
)
def test_rows_that_constraints_permit_are_tried(databases: Databases, constraint: str) -> None:
    run(databases.before, SHARES.format(f", {constraint}"))
    with databases.changed(SHARES.format(f", {constraint}") + SHARES_CHANGE) as (before, after):
        found = decided(before, after)

    assert not [one for one in found.unknown if one.object == "public.shares"]
    assert {k: v for k, v in verdicts(found).items() if k[0] == "public.shares"} == on(
        "shares", ("boss", "reader"), ("SELECT",), "opens"
    )


HEIR = "CREATE TABLE heir () INHERITS (own);"


NULLABLE = "ALTER TABLE own ALTER user_id DROP NOT NULL;"


PEOPLE = "CREATE TABLE people (id text PRIMARY KEY CHECK (id <> 'secret'));"


# Constraints of new rows, and the rows from before that break them.
OF_NEW_ROWS = (
    ("ALTER TABLE own ADD CHECK (user_id <> 'secret') NOT VALID;", "user_id = 'secret'"),
    (f"ALTER TABLE own ADD CHECK (user_id <> 'secret') NO INHERIT; {HEIR}", "user_id = 'secret'"),
    (
        f"{PEOPLE} ALTER TABLE own ADD FOREIGN KEY (user_id) REFERENCES people NOT VALID;",
        "user_id = 'secret'",
    ),
    (f"{PEOPLE} ALTER TABLE own ADD FOREIGN KEY (user_id) REFERENCES people; {HEIR}", "user_id = 'secret'"),
    (f"{NULLABLE} ALTER TABLE own ADD CONSTRAINT n NOT NULL user_id NOT VALID;", "user_id IS NULL"),
    (f"{NULLABLE} ALTER TABLE own ADD CONSTRAINT n NOT NULL user_id NO INHERIT; {HEIR}", "user_id IS NULL"),
)


NOT_ENFORCED = ("ALTER TABLE own ADD CHECK (user_id <> 'secret') NOT ENFORCED;", "user_id = 'secret'")


@pytest.mark.exhaustive
def test_a_constraint_that_rows_may_break_proves_nothing(
    databases: Databases, subtests: pytest.Subtests
) -> None:
    for constraint, refused in (*OF_NEW_ROWS, NOT_ENFORCED):
        setup = f"{constraint} ALTER POLICY p ON own USING (user_id = 'public');"
        change = f"ALTER POLICY p ON own USING (user_id = 'public' OR {refused});"
        with subtests.test(constraint):
            run(databases.before, setup)
            with databases.changed(setup + change) as (before, after):
                assert not [
                    one for one in decided(before, after).same if one.proved and one.object == "public.own"
                ]


@pytest.mark.exhaustive
def test_a_new_row_satisfies_a_constraint_that_older_rows_may_break(
    databases: Databases, subtests: pytest.Subtests
) -> None:
    for constraint, refused in (*OF_NEW_ROWS, NOT_ENFORCED):
        # Of the row that ON CONFLICT DO UPDATE doesn't insert, Postgres checks no foreign key.
        commands = {"SELECT", "DELETE"} | (set() if "REFERENCES" in constraint else {"UPDATE"})
        setup = f"{constraint} ALTER POLICY p ON own USING (user_id = 'public');"
        setup += "" if "UPDATE" in commands else "REVOKE UPDATE ON own FROM reader, loner;"
        expected = on("own", ("boss", "loner", "reader"), sorted(commands), "opens")
        expected |= on("own", ("other",), ("SELECT", "UPDATE", "DELETE"), "opens")
        if "ENFORCED" in constraint:
            expected |= on("own", ("boss", "loner", "reader"), ("INSERT",), "opens")
        change = f"ALTER POLICY p ON own USING (user_id = 'public' OR {refused});"
        with subtests.test(constraint):
            run(databases.before, setup)
            with databases.changed(setup + change) as (before, after):
                found = decided(before, after)

                assert not found.unknown
                assert verdicts(found) == expected


@pytest.mark.exhaustive
def test_a_changed_row_satisfies_a_constraint_that_older_rows_may_break(
    databases: Databases, subtests: pytest.Subtests
) -> None:
    for constraint, refused in OF_NEW_ROWS:
        policy = "ALTER POLICY p ON own USING (user_id = 'public') WITH CHECK (user_id = 'public'"
        setup = f"{constraint} REVOKE INSERT ON own FROM reader, loner; {policy});"
        with subtests.test(constraint):
            run(databases.before, setup)
            with databases.changed(f"{setup} {policy} OR {refused});") as (before, after):
                found = decided(before, after)

                assert not found.unknown
                assert not verdicts(found)


@pytest.fixture
def postgres_15() -> Iterator[Connection]:
    with cleared_server(find_installation(15)) as server:
        with administered(server) as roles:
            roles.exec_driver_sql(ROLES)
        with database(server) as connection:
            yield connection


@pytest.mark.exhaustive
def test_a_child_may_have_null_in_the_key_of_its_parent(postgres_15: Connection) -> None:
    """Since PostgreSQL 18, a child can't drop this constraint."""
    run(
        postgres_15,
        """
        CREATE TABLE heir () INHERITS (own);
        ALTER TABLE heir ALTER id DROP NOT NULL;
        INSERT INTO heir (user_id, shared) VALUES ('bob', false);
        ALTER POLICY p ON own USING (id = 1);
        """,
    )
    before = side(postgres_15)
    run(postgres_15, "ALTER POLICY p ON own USING (id = 1 OR id IS NULL)")

    found = compare_in_place(postgres_15, before, side(postgres_15), names=["public.own"])

    run(postgres_15, "SET ROLE reader")
    assert postgres_15.scalar(text("SELECT user_id FROM own")) == "bob"
    assert verdicts(found)["public.own", "reader", "SELECT"] == "opens"


@pytest.mark.exhaustive
def test_rows_without_a_null_that_a_child_may_have_prove_nothing(postgres_15: Connection) -> None:
    def proves(*ids: int | None) -> bool:
        relation = side(postgres_15).schema.relations["public.own"]
        return is_proved(relation, [parsed("(id = 1)")], [{"id": number} for number in ids])

    assert proves(1, 2)
    run(postgres_15, "CREATE TABLE heir () INHERITS (own); ALTER TABLE heir ALTER id DROP NOT NULL")
    assert not proves(1, 2)
    assert proves(1, 2, None)
