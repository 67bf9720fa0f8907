"""Verdicts on rows of no table: the same as those of real commands on real rows, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import event, text

from sqla_rls.analyze.in_place import compare_in_place
from sqla_rls.analyze.in_place.conditions import row_of
from sqla_rls.analyze.in_place.evaluate import Evaluator, Question, Unit
from sqla_rls.analyze.in_place.splice import parsed
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.server.postgres import Server
from tests.support.in_place import Databases, database, decided, on, run, side, verdicts
from tests.support.suite import first_and_rest

ALL = ("DELETE", "INSERT", "SELECT", "UPDATE")


READERS = ("boss", "reader")
# The change, and its verdicts; other commands on the tables that differ are the same.
CHANGES: dict[str, tuple[str, Mapping[Any, str]]] = {
    "the same in other words": (
        (
            "ALTER POLICY d ON docs USING (EXISTS (SELECT FROM members m WHERE m.org_id = docs.org_id "
            "AND m.user_id = (SELECT auth.user_id())))"
        ),
        {},
    ),
    "the policy of the membership table does the work": (
        "ALTER POLICY d ON docs USING (EXISTS (SELECT FROM members m WHERE m.org_id = docs.org_id))",
        {},
    ),
    "without a subject": (
        "ALTER POLICY d ON docs USING (auth.user_id() IS NULL OR org_id IN (SELECT org_id FROM members))",
        on("docs", READERS, ALL, "opens"),
    ),
    "a restrictive policy for UPDATE": (
        "CREATE POLICY r ON docs AS RESTRICTIVE FOR UPDATE USING (id > 1)",
        on("docs", READERS, ("INSERT", "UPDATE"), "closes"),
    ),
    "a restrictive policy for another role": (
        "CREATE POLICY r ON docs AS RESTRICTIVE TO other USING (false)",
        {},
    ),
    "a recursion between policies": (
        "ALTER POLICY m ON members USING (EXISTS (SELECT FROM docs WHERE docs.org_id = members.org_id))",
        on("docs", READERS, ALL, "closes") | on("members", (*READERS, "other"), ("SELECT",), "closes"),
    ),
    "one policy for each command": (
        (
            "DROP POLICY p ON own;"
            "CREATE POLICY s ON own FOR SELECT USING (user_id = (SELECT auth.user_id()));"
            "CREATE POLICY i ON own FOR INSERT WITH CHECK (auth.user_id() = user_id);"
            "CREATE POLICY u ON own FOR UPDATE USING (auth.user_id() = user_id);"
            "CREATE POLICY x ON own FOR DELETE USING (auth.user_id() = user_id)"
        ),
        {},
    ),
    "UPDATE may give a row away": (
        "DROP POLICY p ON own; CREATE POLICY p ON own USING (auth.user_id() = user_id) WITH CHECK (true)",
        on("own", ("boss", "loner", "reader"), ("INSERT", "UPDATE"), "opens")
        | on("own", ("other",), ("UPDATE",), "opens"),
    ),
    "an error for some subjects": (
        "ALTER POLICY p ON own USING (auth.user_id()::int = id)",
        on("own", ("boss", "loner", "reader"), ALL, "both")
        | on("own", ("other",), ("SELECT", "UPDATE", "DELETE"), "both"),
    ),
    "row security is off": (
        "ALTER TABLE own DISABLE ROW LEVEL SECURITY",
        on("own", ("boss", "loner", "reader"), ALL, "opens")
        | on("own", ("other",), ("SELECT", "UPDATE", "DELETE"), "opens"),
    ),
    "row security holds for the owner": (
        "ALTER TABLE own FORCE ROW LEVEL SECURITY",
        on("own", ("owner",), ALL, "closes"),
    ),
    "a privilege": (
        "GRANT DELETE ON own TO other; REVOKE INSERT ON docs FROM reader",
        {
            **on("docs", READERS, ("INSERT",), "closes"),
        },
    ),
    "a privilege on a column": (
        (
            "GRANT UPDATE (shared) ON own TO other; REVOKE SELECT ON own FROM other; "
            "GRANT SELECT (id, shared) ON own TO other"
        ),
        on("own", ("other",), ("SELECT",), "closes") | on("own", ("other",), ("UPDATE",), "opens"),
    ),
    "PUBLIC instead of the role": (
        "ALTER POLICY d ON docs TO PUBLIC; GRANT SELECT ON members TO loner",
        on("docs", ("loner",), ALL, "opens") | on("members", ("loner",), ("SELECT",), "opens"),
    ),
    "BYPASSRLS": ("ALTER POLICY d ON docs USING (false)", on("docs", READERS, ALL, "closes")),
    "a generated column": (
        "ALTER POLICY d ON docs USING (grown AND org_id IN (SELECT org_id FROM members))",
        on("docs", READERS, ALL, "closes"),
    ),
    "a function that reads no table": (
        "ALTER POLICY d ON docs USING (is_grown(age) AND org_id IN (SELECT org_id FROM members))",
        on("docs", READERS, ALL, "closes"),
    ),
    "current_user": (
        "ALTER POLICY d ON docs USING (current_user = 'boss' OR org_id IN (SELECT org_id FROM members))",
        on("docs", ("boss",), ALL, "opens"),
    ),
    "a setting with the role": (
        (
            "ALTER POLICY d ON docs USING (current_setting('role') = 'boss' OR org_id IN "
            "(SELECT org_id FROM members))"
        ),
        on("docs", ("boss",), ALL, "opens"),
    ),
    "a function that calls one that asks for the role": (
        "ALTER POLICY d ON docs USING (may_all() OR org_id IN (SELECT org_id FROM members))",
        on("docs", ("boss",), ALL, "opens"),
    ),
    "a function that is wrongly IMMUTABLE": (
        "ALTER POLICY p ON own USING (subject() = user_id)",
        {},
    ),
    "a wrongly IMMUTABLE function of which a function keeps the plan": (
        "ALTER POLICY p ON own USING (kept() = user_id)",
        {},
    ),
    "a table that is read inside": (
        (
            "ALTER POLICY d ON docs USING (org_id IN (SELECT org_id FROM members) "
            "OR org_id IN (SELECT id FROM orgs))"
        ),
        on("docs", READERS, ALL, "opens"),
    ),
    "a condition on a table without a privilege": (
        "REVOKE SELECT ON members FROM reader",
        on("docs", READERS, ALL, "closes") | on("members", READERS, ("SELECT",), "closes"),
    ),
}
# What isn't decided, and why.
UNKNOWN: dict[str, tuple[str, str]] = {
    "a function that reads a table": (
        "ALTER POLICY d ON docs USING (is_member(org_id))",
        "function public.is_member(integer) reads public.members",
    ),
    "a system column": ("ALTER POLICY d ON docs USING (xmin IS NOT NULL)", "the system column xmin"),
    "a volatile function": ("ALTER POLICY d ON docs USING (random() < 0.5)", "random() is volatile"),
    "a table of Postgres": (
        "ALTER POLICY d ON docs USING (EXISTS (SELECT FROM pg_catalog.pg_roles))",
        "a policy of public.docs reads pg_catalog.pg_roles",
    ),
    "a view": (
        "ALTER POLICY d ON docs USING (id IN (SELECT id FROM seen))",
        "a policy reads the view public.seen",
    ),
    "a privilege of the catalog": (
        "ALTER POLICY d ON docs USING (has_table_privilege('public.own', 'DELETE'))",
        "a policy may ask for facts of the catalog, which a migration may change",
    ),
    "the login role": (
        "ALTER POLICY d ON docs USING (session_user <> 'x')",
        "session_user is the role that logged in, and not the caller",
    ),
    "a process": (
        "ALTER POLICY d ON docs USING (pg_backend_pid() > 0)",
        "pg_backend_pid() has another value each time",
    ),
    "a trigger": ("ALTER POLICY g ON guarded USING (true)", "a trigger may change or refuse the row"),
}


@first_and_rest("names", CHANGES)
@pytest.mark.exhaustive
def test_a_verdict_needs_no_rows(
    databases: Databases, names: Sequence[str], subtests: pytest.Subtests
) -> None:
    for name in names:
        change, expected = CHANGES[name]
        with subtests.test(name), databases.changed(change) as (before, after):
            found = decided(before, after)

            assert not found.unknown
            assert verdicts(found) == expected


@pytest.mark.long
def test_real_commands_on_real_rows_have_the_same_verdicts(
    servers: tuple[Server, Server], subtests: pytest.Subtests
) -> None:
    for name, (change, _) in CHANGES.items():
        with subtests.test(name), database(servers[0]) as before, database(servers[1]) as after:
            run(after, change)
            after.commit()
            in_place = verdicts(decided(before, after))

            real = verdicts(compare_databases(before, after, budget=Budget(worlds=200, rows=2)))

            assert in_place == {key: one for key, one in real.items() if key[0] != "public.seen"}


@pytest.mark.exhaustive
def test_what_is_not_decided_has_a_reason(databases: Databases, subtests: pytest.Subtests) -> None:
    for name, (change, reason) in UNKNOWN.items():
        with subtests.test(name), databases.changed(change) as (before, after):
            found = decided(before, after)

            assert {reason in one.reason for one in found.unknown} == {True}
            assert not [one for one in found.same if one.object == "public.docs" and one.worlds]


def test_nothing_is_written_and_no_row_is_read(databases: Databases) -> None:
    with databases.changed(CHANGES["without a subject"][0]) as (before, after):
        sides = side(before), side(after)
        statements: list[str] = []
        locks: set[str] = set()

        @event.listens_for(before.engine, "before_cursor_execute")
        def note(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            statements.append(statement)
            if statement.startswith("SELECT x.answers"):
                found = cursor.connection.execute(
                    "SELECT l.mode, current_setting('transaction_read_only') FROM pg_locks AS l JOIN "
                    "pg_class AS c ON c.oid = l.relation WHERE l.pid = pg_backend_pid() AND c.oid >= 16384"
                )
                for mode, read_only in found:
                    locks.add(mode)
                    assert read_only == "on"

        compare_in_place(before, *sides, names=["public.docs"], budget=Budget(worlds=40))

        assert locks <= {"AccessShareLock"}
        assert not [one for one in statements if "FROM public." in one]
        assert before.scalar(text("SELECT current_setting('transaction_read_only')")) == "off"
        assert before.scalar(text("SELECT current_user")) == "postgres"


@pytest.mark.exhaustive
def test_a_role_that_the_connection_may_not_become(databases: Databases) -> None:
    with databases.changed(CHANGES["without a subject"][0]) as (before, after):
        sides = side(before), side(after)
        before.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION free")

        found = compare_in_place(before, *sides, names=["public.docs"], budget=Budget(worlds=40))

        assert verdicts(found) == CHANGES["without a subject"][1]


@pytest.mark.exhaustive
def test_a_role_that_only_the_role_itself_can_tell(databases: Databases) -> None:
    with databases.changed(CHANGES["current_user"][0]) as (before, after):
        sides = side(before), side(after)
        before.exec_driver_sql("SET LOCAL SESSION AUTHORIZATION free")

        found = compare_in_place(before, *sides, names=["public.docs"], budget=Budget(worlds=40))

        assert {one.reason for one in found.unknown} == {
            f"a policy asks for the role, and the migrating role can't SET ROLE {role}"
            for role in ("boss", "reader")
        }


def test_a_database_that_verifies_callers_is_not_decided(databases: Databases) -> None:
    with databases.changed(CHANGES["without a subject"][0]) as (before, after):
        sides = side(before), side(after)
        # As the extension pg_session_jwt with a key: the claims of a setting don't count.
        run(
            before,
            "CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE RETURN NULL::text",
        )

        found = compare_in_place(before, *sides, names=["public.docs"], budget=Budget(worlds=40))

        assert {one.reason for one in found.unknown} == {
            "function auth.user_id() believes only signed claims"
        }
        assert not found.changes


def test_a_verdict_is_proved_where_every_class_of_values_was_tried(databases: Databases) -> None:
    for change, expected in (
        ("ALTER POLICY p ON own USING (user_id = auth.user_id())", True),
        ("ALTER POLICY p ON own USING (NOT (user_id <> (SELECT auth.user_id())))", True),
        ("ALTER POLICY p ON own USING (auth.user_id() = user_id AND lower('A') = 'a')", False),
        ("ALTER POLICY p ON own USING (auth.user_id() = user_id AND length(user_id) < 1000)", False),
    ):
        with databases.changed(change) as (before, after):
            found = decided(before, after)

            proved = {(one.command, one.proved) for one in found.same if one.role == "reader" and one.worlds}
            # An UPDATE could change several columns at once.
            assert proved == {(command, expected and command != "UPDATE") for command in ALL}


def test_the_error_of_a_row_counts_for_that_row_only(databases: Databases) -> None:
    connection = databases.before
    rows = [{"id": place, "org_id": 0 if place == 5 else 1, "age": place} for place in range(20)]
    question = Question(
        conditions=(
            "10 / org_id > 1",
            "age > 9",
            "CAST(age::text || 'x' AS int) > 0",
            "auth.user_id() = 'alice'",
        ),
        ctes={},
        source=row_of(side(connection).schema.relations["public.docs"]),
    )
    expected = [(None if place == 5 else True, place > 9, None, True) for place in range(20)]
    alice = Actor(role="reader", claims={"sub": "alice"}, settings={})

    def answered(*, with_plpgsql: bool) -> tuple[list[Any], int]:
        with connection.begin_nested() as undone:
            if not with_plpgsql:
                run(connection, "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
            run(connection, "SET LOCAL transaction_read_only = on")
            evaluator = Evaluator(connection)
            with evaluator.units([Unit(row, {}) for row in rows]):
                found = evaluator.answers(question, len(rows), alice, as_role=True)
            undone.rollback()
        return found, evaluator.statements

    by_block, statements = answered(with_plpgsql=True)
    by_halves, more = answered(with_plpgsql=False)
    connection.rollback()

    assert by_block == by_halves == expected
    assert statements < 8
    assert more > 40


def test_a_table_keeps_its_alias_and_the_text_around_it() -> None:
    found = parsed(
        '("ä ö" = ANY (ARRAY( WITH c AS (SELECT 1) SELECT m.a FROM public.members, c, "pü b"."M x" m '
        "WHERE (members.note = 'public.members'))))"
    )

    assert found.with_relations(lambda schema, name: f"<{schema}.{name}>") == (
        '("ä ö" = ANY (ARRAY( WITH c AS (SELECT 1) SELECT m.a FROM <public.members> AS "members", c, '
        "<pü b.M x> m WHERE (members.note = 'public.members'))))"
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("condition", ["extract(century FROM now()) = 19", "current_setting('port') = 'x'"])
def test_what_no_world_varies_is_not_the_same(databases: Databases, condition: str) -> None:
    with databases.changed(f"ALTER POLICY p ON own USING (auth.user_id() = user_id OR {condition})") as sides:
        found = decided(*sides)

        assert {"which is the same in all worlds" in one.reason for one in found.unknown} == {True}
        assert not [one for one in found.same if one.object == "public.own" and one.worlds]


@pytest.mark.exhaustive
@pytest.mark.parametrize("call", ["auth.uid()", "auth.user_id('staff')"])
def test_two_functions_of_the_caller_prove_nothing(databases: Databases, call: str) -> None:
    # One caller of thousands is another one.
    body = (
        "$$ SELECT CASE WHEN left(md5(current_setting('request.jwt.claims', true)), 4) = '0000' THEN 'bob' "
        "ELSE auth.user_id() END $$"
    )
    change = f"""
        CREATE FUNCTION auth.uid() RETURNS text LANGUAGE sql STABLE AS {body};
        CREATE FUNCTION auth.user_id(text) RETURNS text LANGUAGE sql STABLE AS {body};
    """
    connection = databases.before
    run(connection, change)
    before = side(connection)
    run(connection, f"ALTER POLICY p ON own USING ({call} = user_id)")

    found = compare_in_place(connection, before, side(connection), names=["public.own"])
    connection.rollback()

    assert [one for one in found.same if one.role == "reader" and one.worlds]
    assert not any(one.proved for one in found.same)


# What both sides have, the change, and why it isn't decided; None if it is.
NAMES_OF_POSTGRES: dict[str, tuple[str, str, str | None]] = {
    "a body with a domain of names of tables": (
        """CREATE DOMAIN rel AS regclass;
        CREATE FUNCTION has_own() RETURNS boolean LANGUAGE sql STABLE AS
          $$ SELECT 'public.own'::public.rel IS NOT NULL $$""",
        "has_own()",
        "function public.has_own() may ask for facts of the catalog",
    ),
    "a function with an argument that is a table's name": (
        """CREATE FUNCTION is_own(regclass) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT $1 IS NOT NULL';
        CREATE FUNCTION has_own() RETURNS boolean LANGUAGE sql STABLE AS $$ SELECT public.is_own('own') $$""",
        "has_own()",
        "function public.is_own(regclass) may ask for facts of the catalog",
    ),
    "a column of names of tables": (
        "ALTER TABLE own ADD kind regclass",
        "kind::text = 'own'",
        "column kind of public.own has objects of the catalog",
    ),
    "a row with a name of a table": (
        "ALTER TABLE own ADD kind regclass",
        "own.*::text <> ''",
        "column kind of public.own has objects of the catalog",
    ),
    "a table of which a query has the name": (
        """CREATE FUNCTION is_empty() RETURNS boolean LANGUAGE sql STABLE AS
          'WITH orgs AS (SELECT * FROM orgs) SELECT NOT EXISTS (SELECT FROM orgs)'""",
        "is_empty()",
        "function public.is_empty() reads orgs",
    ),
    "a column with such a name": ("ALTER TABLE own ADD pg_note text", "pg_note = 'pg_class'", None),
    "a function with such a name": (
        """CREATE FUNCTION row_description(text) RETURNS text LANGUAGE sql STABLE AS
          $$ SELECT concat($1, 'information_schema') $$;
        CREATE FUNCTION pg_note(text) RETURNS text LANGUAGE sql STABLE AS
          'SELECT public.row_description($1)'""",
        "pg_note(user_id) = 'x'",
        None,
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES_OF_POSTGRES)
def test_names_of_the_catalog_are_those_of_postgres(databases: Databases, name: str) -> None:
    both, condition, reason = NAMES_OF_POSTGRES[name]
    run(databases.before, both)
    change = f"{both}; ALTER POLICY p ON own USING (auth.user_id() = user_id OR {condition})"
    with databases.changed(change) as sides:
        found = decided(*sides)

        reasons = {one.reason for one in found.unknown if one.object == "public.own"}
        if reason is None:
            assert not reasons
        else:
            assert [reason in one for one in reasons] == [True]
            assert not [one for one in found.same if one.object == "public.own" and one.worlds]
