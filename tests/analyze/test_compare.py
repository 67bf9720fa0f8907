"""Two databases are compared by real statements on real rows, each on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.verdict import Budget, Comparison
from sqla_rls.analyze.worlds import compare, scratch
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.server.postgres import Server
from tests.support.replay import replay
from tests.support.servers import cleared_server
from tests.support.suite import table

ROLES = """
CREATE ROLE reader; CREATE ROLE other; CREATE ROLE owner; CREATE ROLE member IN ROLE reader;
CREATE ROLE loner NOINHERIT IN ROLE reader;
"""
SETUP = """
CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO PUBLIC;
CREATE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE
  RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub';
CREATE TABLE members (org_id int, user_id text, role text NOT NULL DEFAULT 'member',
                      PRIMARY KEY (org_id, user_id));
CREATE TABLE docs (id serial PRIMARY KEY, org_id int NOT NULL, user_id text, body text, secret text);
CREATE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp
  AS 'SELECT org_id FROM members WHERE user_id = (SELECT auth.user_id())';
ALTER TABLE docs OWNER TO owner;
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
ALTER TABLE docs FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON docs TO reader USING (org_id IN (SELECT my_orgs()));
CREATE POLICY not_secret ON docs AS RESTRICTIVE USING (secret IS NULL);
CREATE VIEW seen WITH (security_invoker) AS SELECT id, org_id FROM docs;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO reader;
GRANT USAGE ON SEQUENCE docs_id_seq TO reader;
GRANT SELECT ON seen TO reader;
GRANT SELECT ON docs TO other;
CREATE FUNCTION is_me(text) RETURNS boolean LANGUAGE plpgsql STABLE
  AS 'BEGIN RETURN $1 = auth.user_id(); END';
CREATE TABLE drafts (id int PRIMARY KEY, user_id text);
ALTER TABLE drafts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON drafts TO reader USING (is_me(user_id));
GRANT SELECT ON drafts TO reader;
"""


@dataclass(frozen=True)
class Sides:
    before: Server
    after: Server

    @contextmanager
    def compared(
        self, change: str, *, setup: str = "", **options: Any
    ) -> Iterator[tuple[Comparison, Connection, Connection]]:
        with (
            self._database(self.before, SETUP + setup) as before,
            self._database(self.after, SETUP + setup + change) as after,
        ):
            options = {"budget": Budget(worlds=60), **options}
            yield compare_databases(before, after, **options), before, after

    @contextmanager
    def _database(self, server: Server, script: str) -> Iterator[Connection]:
        name = server.create_database()
        engine = create_engine(server.url(name), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(script)
            yield connection
        server.drop_database(name)


def administered(server: Server) -> Connection:
    return create_engine(server.url(), poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


@pytest.fixture(scope="module")
def sides() -> Iterator[Sides]:
    with cleared_server() as before, cleared_server() as after:
        for server in (before, after):
            with administered(server) as connection:
                connection.exec_driver_sql(ROLES)
        yield Sides(before, after)


def verdicts(found: Comparison) -> Mapping[tuple[str, str, str], str]:
    return {(one.object, one.role, one.command): one.verdict for one in found.changes}


ALL = ("DELETE", "INSERT", "SELECT", "UPDATE")
OPENS: dict[str, tuple[str, set[tuple[str, str, str]]]] = {
    "the body of a function": (
        """CREATE OR REPLACE FUNCTION my_orgs() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
        SET search_path = public, pg_temp AS 'SELECT org_id FROM members';""",
        {("public.docs", role, command) for role in ("reader", "member") for command in ALL}
        | {("public.seen", role, "SELECT") for role in ("reader", "member")},
    ),
    "a view without security_invoker": (
        """ALTER VIEW seen RESET (security_invoker); ALTER TABLE docs NO FORCE ROW LEVEL SECURITY;
        ALTER VIEW seen OWNER TO owner;""",
        {("public.seen", role, "SELECT") for role in ("reader", "member")}
        | {("public.docs", "owner", command) for command in ALL}
        | {("public.seen", "owner", command) for command in ALL},
    ),
    "FORCE": (
        "ALTER TABLE docs NO FORCE ROW LEVEL SECURITY;",
        {("public.docs", "owner", command) for command in ALL},
    ),
    "a restrictive policy for one role": (
        """DROP POLICY not_secret ON docs;
        CREATE POLICY not_secret ON docs AS RESTRICTIVE TO other USING (secret IS NULL);""",
        {("public.docs", role, command) for role in ("reader", "member") for command in ALL}
        | {("public.seen", role, "SELECT") for role in ("reader", "member")},
    ),
    "a column": (
        "GRANT UPDATE (body) ON docs TO other; CREATE POLICY others ON docs TO other USING (org_id = 1);",
        {("public.docs", "other", "SELECT"), ("public.docs", "other", "UPDATE")},
    ),
    "a table": (
        "CREATE TABLE notes (id int PRIMARY KEY); GRANT SELECT ON notes TO other;",
        {("public.notes", "other", "SELECT")},
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name",
    [
        name if name == "the body of a function" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in OPENS
    ],
)
def test_what_opens_is_shown_by_rows_that_replay(sides: Sides, name: str) -> None:
    change, expected = OPENS[name]

    with sides.compared(change) as (found, before, after):
        assert verdicts(found) == dict.fromkeys(expected, "opens")
        for one in found.changes:
            if one.object != "public.notes":
                assert replay(before, one.role, one.counterexample) == one.counterexample.before
            assert replay(after, one.role, one.counterexample) == one.counterexample.after
            assert one.counterexample.before != one.counterexample.after


@pytest.mark.exhaustive
def test_attributes_and_memberships_of_roles_count(sides: Sides) -> None:
    with administered(sides.after) as connection:
        connection.exec_driver_sql("ALTER ROLE reader BYPASSRLS; GRANT owner TO other")
        try:
            with sides.compared("ALTER TABLE docs NO FORCE ROW LEVEL SECURITY;") as (found, *_):
                opened = {(one.object, one.role) for one in found.changes if one.verdict == "opens"}
        finally:
            connection.exec_driver_sql("ALTER ROLE reader NOBYPASSRLS; REVOKE owner FROM other")

    assert opened == {
        ("public.docs", "owner"),
        ("public.docs", "reader"),
        ("public.docs", "other"),
        ("public.drafts", "reader"),
        ("public.seen", "reader"),
    }


@pytest.mark.exhaustive
def test_a_superuser_may_do_everything_and_set_role_is_left_out(sides: Sides) -> None:
    with administered(sides.after) as connection:
        connection.exec_driver_sql("ALTER ROLE other SUPERUSER; GRANT owner TO loner")
        try:
            with sides.compared("", schemas=["public"]) as (found, *_):
                opened = {(one.object, one.role) for one in found.changes if one.verdict == "opens"}
        finally:
            connection.exec_driver_sql("ALTER ROLE other NOSUPERUSER; REVOKE owner FROM loner")

    assert opened == {
        (table, "other") for table in ("public.docs", "public.drafts", "public.members", "public.seen")
    }
    assert any(one.startswith("role loner is a member") for one in found.scope.left_out)


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


_AGGREGATE = "CREATE AGGREGATE chosen(int) (sfunc = {}, stype = int);"
_CHOSEN = "CREATE POLICY p ON docs TO other USING ((SELECT chosen(x) FROM (VALUES (1), (2)) AS v (x)) = 2);"
_TYPE = "CREATE TYPE state AS ENUM ({});"
_STATE = "CREATE POLICY p ON docs TO other USING ('secret'::state > 'open');"
#: What opens docs for role other, though no definition that its policy names changes.
CATALOG: dict[str, tuple[str, str]] = {
    "a privilege on another table": (
        "CREATE POLICY p ON docs TO other USING (has_table_privilege('public.drafts', 'DELETE'));",
        "GRANT DELETE ON drafts TO other;",
    ),
    "a privilege that a function asks for": (
        """CREATE SCHEMA staff;
        CREATE FUNCTION is_staff() RETURNS boolean LANGUAGE sql STABLE
          AS $$ SELECT has_schema_privilege('staff', 'USAGE') $$;
        CREATE POLICY p ON docs TO other USING (is_staff());""",
        "GRANT USAGE ON SCHEMA staff TO other;",
    ),
    "a comment": (
        "CREATE POLICY p ON docs TO other USING (obj_description('public.docs'::regclass) = 'open');",
        "COMMENT ON TABLE docs IS 'open';",
    ),
    "a table of Postgres": (
        "CREATE POLICY p ON docs TO other USING (EXISTS (SELECT FROM pg_class WHERE relname = 'is_open'));",
        "CREATE SEQUENCE is_open;",
    ),
    "row security of another table": (
        "CREATE POLICY p ON docs TO other USING (NOT row_security_active('public.drafts'));",
        "ALTER TABLE drafts DISABLE ROW LEVEL SECURITY;",
    ),
    "an aggregate": (
        _AGGREGATE.format("int4smaller") + _CHOSEN,
        "DROP POLICY p ON docs; DROP AGGREGATE chosen(int);" + _AGGREGATE.format("int4larger") + _CHOSEN,
    ),
    "the order of constants": (
        _TYPE.format("'secret', 'open'") + _STATE,
        "DROP POLICY p ON docs; DROP TYPE state;" + _TYPE.format("'open', 'secret'") + _STATE,
    ),
    "the check of a domain": (
        """CREATE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $$code$$';
        CREATE DOMAIN code AS text CHECK (is_code(VALUE));
        CREATE POLICY p ON docs TO other USING (body::code IS NOT NULL);""",
        "CREATE OR REPLACE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';",
    ),
    "a variable of a domain of names": (
        """CREATE DOMAIN rel AS regclass;
        CREATE FUNCTION is_there() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
          DECLARE r public.rel; BEGIN r := 'public.is_open'; RETURN true;
          EXCEPTION WHEN undefined_table THEN RETURN false; END $$;
        CREATE POLICY p ON docs TO other USING (is_there());""",
        "CREATE SEQUENCE is_open;",
    ),
    "a materialized view": (
        """CREATE TABLE kinds (org_id int, is_open boolean NOT NULL);
        CREATE MATERIALIZED VIEW open AS SELECT org_id FROM kinds WHERE is_open;
        GRANT SELECT ON open TO other;
        CREATE POLICY p ON docs TO other USING (org_id IN (SELECT org_id FROM open));""",
        """DROP POLICY p ON docs; DROP MATERIALIZED VIEW open;
        CREATE MATERIALIZED VIEW open AS SELECT org_id FROM kinds; GRANT SELECT ON open TO other;
        CREATE POLICY p ON docs TO other USING (org_id IN (SELECT org_id FROM open));""",
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CATALOG)
def test_what_no_definition_of_a_table_has_may_open_it(sides: Sides, name: str) -> None:
    setup, change = CATALOG[name]
    with sides.compared(change, setup=setup, schemas=["public"], budget=Budget()) as (found, *_):
        assert verdicts(found).get(("public.docs", "other", "SELECT")) == "opens"


@pytest.mark.exhaustive
def test_a_role_reads_a_materialized_view(sides: Sides) -> None:
    setup = "CREATE MATERIALIZED VIEW all_members AS SELECT * FROM members;"
    with sides.compared("GRANT SELECT ON all_members TO other;", setup=setup) as (found, *_):
        assert verdicts(found) == {("public.all_members", "other", "SELECT"): "opens"}


@pytest.mark.exhaustive
def test_a_materialized_view_that_decides_nothing_rejects_no_world(sides: Sides) -> None:
    setup = "CREATE MATERIALIZED VIEW ratios AS SELECT 1 / (id - id) AS ratio FROM docs WITH NO DATA;"
    with sides.compared("ALTER POLICY mine ON docs USING (true);", setup=setup) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == "opens"


@pytest.mark.exhaustive
def test_a_policy_may_read_the_table_of_a_row(sides: Sides) -> None:
    setup = "CREATE POLICY p ON docs TO other USING (tableoid <> 'docs'::regclass);"
    with sides.compared("ALTER POLICY p ON docs USING (tableoid = 'docs'::regclass);", setup=setup) as found:
        assert verdicts(found[0])["public.docs", "other", "SELECT"] == "opens"


@pytest.mark.exhaustive
def test_a_rule_that_is_disabled_opens(sides: Sides) -> None:
    setup = "CREATE RULE keep AS ON DELETE TO docs DO INSTEAD NOTHING;"
    with sides.compared("ALTER TABLE docs DISABLE RULE keep;", setup=setup) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "DELETE"] == "opens"


@pytest.mark.exhaustive
def test_what_closes(sides: Sides) -> None:
    with sides.compared("REVOKE USAGE ON SEQUENCE docs_id_seq FROM reader;") as (found, *_):
        assert verdicts(found) == {("public.docs", role, "INSERT"): "closes" for role in ("member", "reader")}
    with sides.compared("CREATE POLICY loop ON docs USING (id IN (SELECT id FROM docs));") as (found, *_):
        assert {one.verdict for one in found.changes} == {"closes"}
        assert {"42P17"} == {one.counterexample.after[:5] for one in found.changes}


@pytest.mark.exhaustive
def test_a_body_of_text_needs_the_schema_of_the_functions_that_it_calls(sides: Sides) -> None:
    with sides.compared("REVOKE USAGE ON SCHEMA auth FROM PUBLIC;") as (found, *_):
        assert verdicts(found) == {
            ("public.drafts", role, "SELECT"): "closes" for role in ("member", "reader")
        }


def test_roles_with_the_same_privileges_may_have_other_defaults(sides: Sides) -> None:
    change = """
CREATE TABLE notes (id int PRIMARY KEY, author text DEFAULT current_user);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY add ON notes FOR INSERT WITH CHECK (author = 'member');
GRANT INSERT (id) ON notes TO reader;
"""
    with sides.compared(change) as (found, *_):
        assert verdicts(found) == {("public.notes", "member", "INSERT"): "opens"}


@pytest.mark.exhaustive
def test_an_opening_counts_though_the_closing_of_the_same_command_varies(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    smallest = compare._Comparing._smallest

    def varies(self: Any, found: Any, direction: Any) -> Any:
        return None if direction == "closes" else smallest(self, found, direction)

    monkeypatch.setattr(compare._Comparing, "_smallest", varies)
    change = "ALTER POLICY mine ON docs USING (user_id = auth.user_id());"
    with sides.compared(change, budget=Budget()) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == "opens"
        reasons = {(one.object, one.role, one.command): one.reason for one in found.unknown}
        assert reasons["public.docs", "reader", "SELECT"] == "the results vary from run to run"


@pytest.mark.exhaustive
def test_a_null_in_a_unique_key_is_a_row(sides: Sides) -> None:
    setup = """CREATE TABLE codes (code text UNIQUE); ALTER TABLE codes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY known ON codes TO other USING (code = 'x'); GRANT SELECT, DELETE ON codes TO other;"""
    change = "ALTER POLICY known ON codes USING (code = 'x' OR code IS NULL);"
    with sides.compared(change, setup=setup) as (found, *_):
        assert verdicts(found) == {("public.codes", "other", one): "opens" for one in ("SELECT", "DELETE")}


NOTES = """CREATE TABLE notes (id int PRIMARY KEY, kind text NOT NULL, iban text NOT NULL{});
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY known ON notes FOR SELECT TO other USING (kind = 'public'); GRANT SELECT ON notes TO other;"""
NOTES_CHANGE = "ALTER POLICY known ON notes USING (kind IN ('public', 'secret'));"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "constraint",
    [
        ", CHECK (kind <> 'secret' OR char_length(iban) = 22)",
        "); ALTER TABLE notes ADD CHECK (kind <> 'secret') NOT VALID; CREATE TABLE any_ (id int",
        """); CREATE TABLE kinds (kind text PRIMARY KEY, iban text NOT NULL CHECK (char_length(iban) = 22));
        ALTER TABLE notes ADD FOREIGN KEY (kind) REFERENCES kinds NOT VALID; CREATE TABLE any_ (id int""",
    ],
)
def test_rows_that_constraints_keep_out_of_the_worlds_are_left_out(sides: Sides, constraint: str) -> None:
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(constraint)) as (found, *_):
        assert not found.changes
        assert found.unknown or any(
            one.startswith("public.notes: no row with kind=secret was tried: 23")
            for one in found.scope.left_out
        )


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "constraint", ["CHECK (kind <> 'secret')", "CHECK (kind IN ('public', 'private', 'alice'))"]
)
def test_rows_that_no_table_can_have_are_not_left_out(sides: Sides, constraint: str) -> None:
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(f", {constraint}")) as (found, *_):
        assert {(one.object, one.role) for one in found.same} == {("public.notes", "other")}
        assert not found.scope.left_out


TREE = """
CREATE TABLE folders (id int PRIMARY KEY, parent_id int REFERENCES folders {}, owner text NOT NULL);
CREATE FUNCTION around() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS 'SELECT NULL::int';
ALTER TABLE folders ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON folders TO reader USING (owner = (SELECT auth.user_id()) OR id IN (SELECT around()));
GRANT SELECT ON folders TO reader;
"""
AROUND = """
CREATE OR REPLACE FUNCTION around() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER
  SET search_path = public, pg_temp AS '{}'
"""


@table("check", ["", "CHECK (parent_id <> id)"])
@table(
    "body",
    [
        "SELECT parent_id FROM folders WHERE owner = (SELECT auth.user_id())",
        "SELECT c.id FROM folders c JOIN folders p ON p.id = c.parent_id WHERE p.owner = auth.user_id()",
    ],
    ids=["parents", "children"],
)
def test_parents_and_children_in_a_tree_are_tried(sides: Sides, check: str, body: str) -> None:
    with sides.compared(AROUND.format(body), setup=TREE.format(check)) as (found, *_):
        assert verdicts(found)["public.folders", "reader", "SELECT"] == "opens"


ME = "(SELECT auth.user_id())"
TASKS = f"""
CREATE TABLE orgs (id int PRIMARY KEY, owner text NOT NULL, plan text NOT NULL, suspended boolean NOT NULL);
CREATE TABLE projects (id int PRIMARY KEY, org_id int NOT NULL REFERENCES orgs, lead text NOT NULL,
  archived boolean NOT NULL, public boolean NOT NULL);
CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects, assignee text NOT NULL,
  state text NOT NULL, hidden boolean NOT NULL);
CREATE TABLE watchers (task_id int NOT NULL REFERENCES tasks, user_id text);
ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON tasks TO reader; GRANT SELECT ON orgs, projects, watchers TO reader;
CREATE POLICY p ON tasks TO reader USING (NOT hidden AND state <> 'draft' AND (assignee = {ME}
  OR EXISTS (SELECT FROM watchers w WHERE w.task_id = tasks.id AND w.user_id = {ME})
  OR EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id
    WHERE p.id = tasks.project_id AND NOT p.archived
      AND (p.lead = {ME} OR p.public AND o.plan = 'team' OR o.owner = {ME} AND NOT o.suspended))));
"""
FILES = f"""
CREATE TABLE tenants (id int PRIMARY KEY, kind text NOT NULL);
CREATE TABLE folders (tenant_id int REFERENCES tenants, id int, owner text NOT NULL, private boolean NOT NULL,
  kind text NOT NULL, PRIMARY KEY (tenant_id, id));
CREATE TABLE seats (tenant_id int REFERENCES tenants, user_id text, role text NOT NULL,
  PRIMARY KEY (tenant_id, user_id));
CREATE TABLE files (id int PRIMARY KEY, tenant_id int NOT NULL, folder_id int NOT NULL, owner text NOT NULL,
  deleted_at timestamptz, FOREIGN KEY (tenant_id, folder_id) REFERENCES folders);
ALTER TABLE files ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE ON files TO reader; GRANT SELECT ON tenants, folders, seats TO reader;
CREATE POLICY p ON files TO reader USING (deleted_at IS NULL
  AND tenant_id IN (SELECT s.tenant_id FROM seats s WHERE s.user_id = {ME} AND s.role IN ('editor', 'owner'))
  AND (owner = {ME} OR EXISTS (SELECT FROM folders f WHERE f.id = folder_id AND f.tenant_id = files.tenant_id
    AND (f.owner = {ME} OR NOT f.private AND f.kind = 'shared'))));
"""
NO_DRAFTS = """
CREATE FUNCTION no_teams() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF new.plan = 'team' AND new.suspended THEN RAISE EXCEPTION 'no such team'; END IF;
  RETURN new;
END $$;
CREATE TRIGGER no_teams BEFORE INSERT ON orgs FOR EACH ROW EXECUTE FUNCTION no_teams();
"""


def altered(setup: str, old: str, new: str) -> str:
    assert setup.count(old) == 1
    policy = setup.replace(old, new).partition("CREATE POLICY")[2].partition(";")[0]
    return f"ALTER POLICY{policy}".replace(" TO reader USING", " USING")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("setup", "old", "new", "rows"),
    [
        (TASKS, "p.public AND o.plan = 'team'", "p.public", 3),
        (TASKS, "AND NOT o.suspended", "AND (NOT o.suspended OR p.public)", 3),
        (TASKS + NO_DRAFTS, "AND NOT o.suspended", "AND (NOT o.suspended OR p.public)", 3),
        (TASKS, "w.task_id = tasks.id AND ", "", 7),
        (FILES, "NOT f.private AND ", "", 4),
        (FILES, " AND f.kind = 'shared'", "", 4),
    ],
    ids=["plan", "suspended", "a row is refused", "a watcher of another task", "private", "kind"],
)
def test_each_kind_of_the_rows_that_decide_about_a_row_is_tried(
    sides: Sides, setup: str, old: str, new: str, rows: int
) -> None:
    with sides.compared(altered(setup, old, new), setup=setup, budget=Budget()) as (found, before, after):
        commands = [one.command for one in found.changes if one.role == "reader"]
        assert commands == ["INSERT", "SELECT", "UPDATE"]
        for one in found.changes:
            assert one.verdict == "opens"
            assert sum(map(len, one.counterexample.rows.values())) <= rows
            assert replay(before, one.role, one.counterexample) == one.counterexample.before
            assert replay(after, one.role, one.counterexample) == one.counterexample.after


@pytest.mark.exhaustive
@pytest.mark.parametrize("moves", ["project_id", "state"])
def test_an_update_may_refer_to_each_kind_of_row(sides: Sides, moves: str) -> None:
    policy = f"""
DROP POLICY p ON tasks; REVOKE UPDATE, INSERT ON tasks FROM reader; GRANT UPDATE ({moves}) ON tasks TO reader;
CREATE POLICY p ON tasks TO reader USING (assignee = {ME})
  WITH CHECK (assignee = {ME}
    AND EXISTS (SELECT FROM projects p WHERE p.id = tasks.project_id AND p.lead = {ME}));
"""
    change = f"""
ALTER POLICY p ON tasks WITH CHECK (assignee = {ME}
  AND EXISTS (SELECT FROM projects p JOIN orgs o ON o.id = p.org_id WHERE p.id = tasks.project_id
    AND (p.lead = {ME} OR NOT p.archived AND p.public AND o.suspended AND o.plan = 'team')))
"""
    with sides.compared(change, setup=TASKS + policy, budget=Budget()) as (found, *_):
        assert verdicts(found) == {("public.tasks", role, "UPDATE"): "opens" for role in ("member", "reader")}


def test_combinations_that_the_budget_leaves_out_are_named(sides: Sides) -> None:
    change = altered(TASKS, "p.public AND o.plan = 'team'", "p.public")
    with sides.compared(change, setup=TASKS, budget=Budget(worlds=5)) as (found, *_):
        assert any(
            one.startswith("public.tasks: of 3072 combinations of a row with the rows that decide about it, ")
            for one in found.scope.left_out
        )


@pytest.mark.exhaustive
def test_values_of_the_other_columns_of_a_constraint_are_tried(sides: Sides) -> None:
    constraint = ", CHECK (kind <> 'secret' OR iban = 'none')"
    with sides.compared(NOTES_CHANGE, setup=NOTES.format(constraint)) as (found, *_):
        assert verdicts(found) == {("public.notes", "other", "SELECT"): "opens"}
        assert not found.scope.left_out


SHARED_FILES = """
CREATE FUNCTION tenant() RETURNS uuid LANGUAGE sql STABLE
  RETURN (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'tenant_id')::uuid;
CREATE TABLE folders (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, is_open boolean NOT NULL);
CREATE TABLE files (id uuid PRIMARY KEY, tenant_id uuid NOT NULL, folder_id uuid NOT NULL,
  owner_id text NOT NULL, meta jsonb NOT NULL, deleted_at timestamptz);
CREATE TABLE shares (id uuid PRIMARY KEY, file_id uuid NOT NULL REFERENCES files, user_id text, team_id uuid,
  expires_at timestamptz NOT NULL, CHECK (num_nonnulls(user_id, team_id) = 1));
ALTER TABLE files ENABLE ROW LEVEL SECURITY;
CREATE POLICY claim ON files AS RESTRICTIVE USING (tenant_id = tenant());
CREATE POLICY seen ON files FOR SELECT TO other USING (deleted_at IS NULL AND (owner_id = auth.user_id()
  OR EXISTS (SELECT FROM folders AS f WHERE f.id = files.folder_id AND f.is_open)
  OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.user_id = auth.user_id()
     AND s.expires_at > now())
  OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.team_id = tenant()
     AND s.expires_at > now())));
GRANT SELECT ON files, folders, shares TO other;
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "share",
    [
        "s.file_id = files.id AND s.user_id = auth.user_id()",
        "s.user_id = auth.user_id() AND s.expires_at > now()",
    ],
)
def test_shares_count_though_a_row_needs_null_and_the_claim_of_its_tenant(sides: Sides, share: str) -> None:
    change = f"""ALTER POLICY seen ON files USING (deleted_at IS NULL AND (owner_id = auth.user_id()
    OR EXISTS (SELECT FROM folders AS f WHERE f.id = files.folder_id AND f.is_open)
    OR EXISTS (SELECT FROM shares AS s WHERE {share})
    OR EXISTS (SELECT FROM shares AS s WHERE s.file_id = files.id AND s.team_id = tenant()
       AND s.expires_at > now())));"""
    with sides.compared(change, setup=SHARED_FILES, budget=Budget()) as (found, *_):
        assert verdicts(found) == {("public.files", "other", "SELECT"): "opens"}


@pytest.mark.exhaustive
def test_a_policy_may_take_long_in_many_worlds(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "STATEMENT_TIMEOUT", 1_500)
    monkeypatch.setattr(scratch, "_MOST_AT_ONCE", 1)
    change = "ALTER POLICY own ON drafts USING (pg_sleep(0.05) IS NOT NULL);"
    setup = "ALTER POLICY own ON drafts USING (pg_sleep(0.05) IS NOT NULL AND is_me(user_id));"
    with sides.compared(change, setup=setup) as (found, *_):
        assert not found.unknown
        assert verdicts(found)["public.drafts", "reader", "SELECT"] == "opens"


@pytest.mark.exhaustive
def test_the_same_definitions_are_not_tried(sides: Sides) -> None:
    with sides.compared("CREATE TABLE unrelated (id int);") as (found, *_):
        assert (found.changes, found.unknown, found.same) == ((), (), ())
        assert found.scope.statements == 0


@pytest.mark.exhaustive
def test_four_policies_are_the_same_as_one(sides: Sides) -> None:
    four = "".join(
        f"CREATE POLICY mine_{command} ON docs FOR {command} TO reader {clauses};"
        for command, clauses in {
            "SELECT": "USING (org_id IN (SELECT my_orgs()))",
            "INSERT": "WITH CHECK (org_id IN (SELECT my_orgs()))",
            "UPDATE": "USING (org_id IN (SELECT my_orgs()))",
            "DELETE": "USING (org_id IN (SELECT my_orgs()))",
        }.items()
    )

    with sides.compared(f"DROP POLICY mine ON docs; {four}") as (found, *_):
        assert (found.changes, found.unknown) == ((), ())
        assert {("public.docs", "reader", command) for command in ALL} <= {
            (one.object, one.role, one.command) for one in found.same
        }
        assert min(one.worlds for one in found.same) > 10


@pytest.mark.exhaustive
def test_the_same_input_gives_the_same_output(sides: Sides) -> None:
    change = (
        "DROP POLICY mine ON docs; CREATE POLICY mine ON docs TO reader USING (user_id = auth.user_id());"
    )

    with (
        sides.compared(change, budget=Budget()) as (first, *_),
        sides.compared(change, budget=Budget()) as (second, *_),
    ):
        assert first == second
        assert {one.verdict for one in first.changes} == {"both"}


@pytest.mark.exhaustive
def test_a_small_budget_says_what_it_leaves_out(sides: Sides) -> None:
    with sides.compared("DROP POLICY not_secret ON docs;", budget=Budget(worlds=5)) as (found, *_):
        assert any("5 worlds were tried" in one for one in found.scope.left_out)


@pytest.mark.exhaustive
def test_without_time_nothing_is_decided(sides: Sides) -> None:
    change = "ALTER POLICY mine ON docs USING (true);"
    with sides.compared(change, budget=Budget(seconds=0)) as (found, *_):
        assert found.changes == ()
        assert {one.reason for one in found.unknown} == {"the time was over"}
        assert "public.docs: the time was over after 0 worlds" in found.scope.left_out


@pytest.mark.exhaustive
def test_no_row_stays(sides: Sides) -> None:
    with sides.compared("ALTER TABLE docs DISABLE ROW LEVEL SECURITY;") as (found, before, after):
        assert found.opens
        for connection in (before, after):
            assert connection.scalar(text("SELECT count(*) FROM docs")) == 0


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


@pytest.mark.exhaustive
def test_the_plan_of_a_function_keeps_no_caller(sides: Sides) -> None:
    setup = """
    CREATE FUNCTION subject() RETURNS text LANGUAGE sql IMMUTABLE
      AS $$ SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub' $$;
    CREATE FUNCTION kept() RETURNS text LANGUAGE plpgsql STABLE AS 'BEGIN RETURN public.subject(); END';
    CREATE TABLE notes (id int PRIMARY KEY, user_id text);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    GRANT SELECT ON notes TO reader;
    CREATE POLICY own ON notes TO reader USING ((SELECT auth.user_id()) = user_id);
    """

    with sides.compared("ALTER POLICY own ON notes USING (kept() = user_id);", setup=setup) as (found, *_):
        assert not found.unknown
        assert verdicts(found) == {}
