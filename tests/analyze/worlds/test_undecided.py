"""What no row and no statement decides is named: it is unknown, or left out."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from sqla_rls.analyze.verdict import Budget
from tests.support.servers import administered
from tests.support.suite import table
from tests.support.worlds import Sides


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("GRANT TRUNCATE ON docs TO other;", "TRUNCATE on public.docs of other"),
        (
            "GRANT TRUNCATE ON docs TO PUBLIC;",
            "TRUNCATE on public.docs of PUBLIC, TRUNCATE on public.docs of loner, ",
        ),
        ("GRANT TRIGGER, MAINTAIN ON docs TO other;", "MAINTAIN, TRIGGER on public.docs of other"),
        ("GRANT REFERENCES (id) ON docs TO other;", "REFERENCES on public.docs of other"),
        (
            "GRANT SELECT ON docs TO other WITH GRANT OPTION;",
            "SELECT WITH GRANT OPTION on public.docs of other",
        ),
        (
            """ALTER TABLE pages DROP CONSTRAINT k;
            ALTER TABLE pages ADD CONSTRAINT k FOREIGN KEY (id) REFERENCES docs ON DELETE CASCADE;""",
            "k of public.pages",
        ),
        ("ALTER TABLE pages DROP CONSTRAINT k;", "k of public.pages"),
        ("ALTER TABLE docs ADD UNIQUE (id, body), ADD UNIQUE (body);", "(body) of public.docs"),
        (
            "CREATE UNIQUE INDEX ON docs (lower(body), org_id) WHERE secret IS NULL;",
            "(lower(body), org_id) WHERE (secret IS NULL) of public.docs",
        ),
        (
            """CREATE UNIQUE INDEX ON docs (id, body) WHERE secret IS NULL;
            CREATE UNIQUE INDEX ON docs (body, org_id);
            CREATE UNIQUE INDEX ON docs (body) WHERE secret IS NULL;""",
            "(body) WHERE (secret IS NULL) of public.docs, (body, org_id) of public.docs",
        ),
        (
            "CREATE TABLE names (id int CONSTRAINT n REFERENCES docs ON DELETE SET NULL);",
            "n of public.names",
        ),
    ],
)
def test_what_no_statement_tries_is_left_out(sides: Sides, change: str, sentence: str) -> None:
    setup = "CREATE TABLE pages (id int CONSTRAINT k REFERENCES docs);"
    with sides.compared(change, setup=setup, budget=Budget(worlds=5)) as (found, *_):
        assert any(f"These differ: {sentence}" in one for one in found.scope.left_out)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("reader TO other WITH INHERIT FALSE, SET FALSE", "reader TO other WITH SET TRUE"),
        ("reader TO other WITH INHERIT FALSE, SET FALSE", "reader TO other WITH ADMIN TRUE"),
        ("free TO other WITH INHERIT TRUE, SET FALSE", "free TO other WITH SET TRUE"),
    ],
)
def test_what_a_role_can_do_as_another_is_left_out(sides: Sides, before: str, after: str) -> None:
    with ExitStack() as undo:
        for server in (sides.before, sides.after):
            connection = undo.enter_context(administered(server))
            undo.callback(connection.exec_driver_sql, "REVOKE reader FROM other; DROP ROLE free")
            connection.exec_driver_sql(f"CREATE ROLE free BYPASSRLS; GRANT {before}")
        connection.exec_driver_sql(f"GRANT {after}")
        with sides.compared("") as (found, *_):
            assert any(one.startswith("role other ") for one in found.scope.left_out)


@pytest.mark.exhaustive
@table(
    ("condition", "name"),
    [
        ("nextval('calls') % 2 = 0", "nextval()"),
        ("random() < 2", "random()"),
        ("pg_backend_pid() > 0", "pg_backend_pid()"),
        ("expires_at > clock_timestamp()", "clock_timestamp()"),
        ("xmin IS NOT NULL", "xmin"),
        ("drawn(id)", "random()"),
    ],
)
def test_a_result_of_the_moment_is_not_decided(sides: Sides, condition: str, name: str) -> None:
    setup = """
CREATE SEQUENCE calls; GRANT USAGE ON SEQUENCE calls TO reader;
ALTER TABLE docs ADD expires_at timestamptz;
CREATE FUNCTION drawn(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN random() < 0.5; END';
"""
    change = f"CREATE POLICY some_calls ON docs FOR SELECT TO reader USING ({condition});"
    with sides.compared(change, setup=setup) as (found, *_):
        assert not [one for one in found.changes if one.role == "reader"]
        assert ("public.docs", "reader", "SELECT", f"{name} has another value each time") in {
            (one.object, one.role, one.command, one.reason) for one in found.unknown
        }
    # The policy is for others.
    with sides.compared(f"{change} ALTER POLICY some_calls ON docs TO other", setup=setup) as (found, *_):
        assert {one.role for one in found.unknown if one.object == "public.docs"} == {"other"}


@pytest.mark.exhaustive
def test_the_role_that_logged_in_is_no_caller(sides: Sides) -> None:
    with sides.compared("CREATE POLICY p ON docs TO reader USING (session_user <> 'x');") as (found, *_):
        assert not [one for one in found.changes if one.role == "reader"]
        reasons = {one.reason for one in found.unknown if one.role == "reader"}
        assert reasons == {"session_user is the role that logged in, and not the caller"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("current_date > '2300-01-01'", "depend on the time, which is the same in all worlds"),
        ("extract(century FROM now()) = 19", "depend on the time, which is the same in all worlds"),
        ("current_setting('application_name') = 'cron'", "depend on the setting application_name, which"),
        ("current_setting(concat('app.', 'x'), true) = 'a'", "the setting whose name is computed, which"),
        ("inet_client_addr() = '192.0.2.1'", "depend on inet_client_addr(), which is the same"),
        ("query_to_xml('TABLE kept', true, true, '')::text ~ 'row'", "on SQL text that it computes, which"),
        ("(SELECT last_value FROM calls) = 77", "depend on public.calls, whose rows can't be made"),
    ],
)
def test_what_no_world_varies_is_not_the_same(sides: Sides, condition: str, reason: str) -> None:
    setup = """
CREATE SEQUENCE calls; CREATE TABLE kept (id int); GRANT SELECT ON calls, kept TO reader;
CREATE POLICY p ON docs FOR SELECT TO other USING (false);
"""
    with sides.compared(f"ALTER POLICY p ON docs USING ({condition});", setup=setup) as (found, *_):
        reasons = [one.reason for one in found.unknown if (one.role, one.command) == ("other", "SELECT")]
        assert len(reasons) == 1
        assert reason in reasons[0]
        assert not [one for one in found.same if one.object == "public.docs" and one.role == "other"]


@pytest.mark.exhaustive
def test_computed_sql_is_not_decided(sides: Sides) -> None:
    dynamic = """
CREATE OR REPLACE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp
  AS $$ BEGIN RETURN QUERY EXECUTE 'SELECT org_id FROM mem' || 'bers WHERE user_id = auth.user_id()'; END $$;
"""
    with sides.compared(dynamic) as (found, *_):
        assert found.same == ()
        assert {one.object for one in found.unknown} == {"public.docs", "public.seen"}
