"""The matrix of a database: Postgres decides what is never, and what is always."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from sqla_rls.analyze.matrix import Matrix, matrix_of
from sqla_rls.analyze.matrix.decide import Worlds
from sqla_rls.analyze.matrix.formats import FORMATS, listing
from sqla_rls.exc import AnalysisError
from tests.analyze.matrix.organizations import scratch_database

pytestmark = pytest.mark.one_postgres

TRUE, FALSE = "the policies are true for every row", "the policies are false for every row"
DENIED = "42501: permission denied for table members"
TABLE = 'public."<script>alert(1)</script>"'

# Of each role that has a privilege: the words, and the reason where the words need one.
ENTRIES: dict[tuple[str, str, str], tuple[str, str]] = {
    ("public.docs", "anonymous", "SELECT"): ("published rows", ""),
    ("public.docs", "authenticated", "SELECT"): (
        "rows of my organizations or own rows or published rows",
        "",
    ),
    ("public.docs", "authenticated", "INSERT"): ("own rows", ""),
    ("public.docs", "authenticated", "UPDATE"): ("own rows; new rows: all rows", ""),
    ("public.docs", "authenticated", "DELETE"): ("never", "no policy"),
    ("public.docs", "anonymous", "DELETE"): ("never", "no privilege"),
    ("public.notices", "anonymous", "SELECT"): ("always", TRUE),
    ("public.notices", "authenticated", "SELECT"): ("always", TRUE),
    ("public.notices", "authenticated", "UPDATE"): ("never", FALSE),
    # No constants for the planner: worlds decide.
    ("public.notices", "authenticated", "INSERT"): ("always in trials", ""),
    ("public.notices", "authenticated", "DELETE"): ("never in trials", ""),
    ("public.logs", "authenticated", "SELECT"): ("own rows", ""),
    ("public.logs", "authenticated", "INSERT"): ("always", TRUE),
    ("public.logs_2024", "authenticated", "SELECT"): ("always", "row security is off"),
    # The policy reads a column of the memberships without a privilege.
    ("public.orgs", "authenticated", "SELECT"): ("never in trials", DENIED),
    ("public.members", "authenticated", "SELECT"): ("own rows", ""),
    ("public.all_docs", "authenticated", "SELECT"): ("always in trials", ""),
    ("public.my_docs", "authenticated", "SELECT"): ("rows that the role can read in public.docs", ""),
    ("public.their_docs", "authenticated", "SELECT"): ("own rows", ""),
    ("public.counts", "authenticated", "SELECT"): ("always", "a copy of rows"),
    (TABLE, "authenticated", "SELECT"): ('rows with a|b "</td><img src=x onerror=alert(2)>"', ""),
}
WAYS = {
    ("cascade", "docs_org_id_fkey on public.orgs", "authenticated"): (("DELETE",), ("public.docs",)),
    ("cascade", "members_org_id_fkey on public.orgs", "authenticated"): (("DELETE",), ("public.members",)),
    ("child table", "public.logs_2024", "authenticated"): (
        ("SELECT", "INSERT", "UPDATE", "DELETE"),
        ("public.logs",),
    ),
    ("function", "public.count_docs()", "anonymous"): (("EXECUTE",), ("public.docs",)),
    ("function", "public.count_docs()", "authenticated"): (("EXECUTE",), ("public.docs",)),
    ("materialized view", "public.counts", "authenticated"): (("SELECT",), ("public.docs",)),
    ("trigger", "audit on public.docs", "authenticated"): (("INSERT", "UPDATE"), ("public.logs",)),
    ("truncate", "public.notices", "authenticated"): (("TRUNCATE",), ("public.notices",)),
    ("view", "public.all_docs", "authenticated"): (("SELECT",), ("public.docs",)),
    ("view", "public.their_docs", "authenticated"): (("SELECT",), ("public.docs",)),
}


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with scratch_database() as connection:
        yield matrix_of(connection, name="organizations")


def test_each_entry_has_its_rows_in_words(matrix: Matrix, subtests: pytest.Subtests) -> None:
    assert matrix.roles == ("anonymous", "authenticated")
    for key, (words, reason) in ENTRIES.items():
        with subtests.test(" ".join(key)):
            entry = next(one for one in matrix.entries if one.key == key)
            assert entry.words == words
            if reason:
                assert entry.reason == reason
    by_columns = matrix.by_key["public.members", "authenticated", "SELECT"]
    assert by_columns.columns == ("org_id", "user_id")


def test_each_way_around_is_a_row_of_its_own(matrix: Matrix) -> None:
    found = {way.key: (way.commands, way.reaches) for way in matrix.ways if way.kind != "role"}
    assert found == WAYS
    roles = {way.object: way.text for way in matrix.ways if way.kind == "role"}
    assert roles["reporter"] == "has BYPASSRLS"
    assert "isn't forced" in roles["app_owner"]


def test_the_listing_is_sorted_and_has_the_sql(matrix: Matrix) -> None:
    found = listing(matrix).splitlines()
    lines = [line for line in found if not line.startswith("#")]
    assert lines == sorted(lines)
    assert (
        "public.docs, anonymous, SELECT: published rows | policy pub FOR SELECT USING (is_published)" in lines
    )
    # Without a privilege, the command has no line.
    assert not any(line.startswith("public.docs, anonymous, DELETE") for line in lines)


def test_formats_escape_names_and_expressions(matrix: Matrix) -> None:
    markdown = FORMATS["markdown"](matrix)
    assert '`public."<script>alert(1)</script>"`' in markdown
    assert r'rows with a\|b "\</td\>\<img src=x onerror=alert(2)\>"' in markdown
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](matrix))))
    assert len(rows) == len(matrix.entries) + len(matrix.ways)
    assert json.loads(FORMATS["json"](matrix))["entries"][0]["object"] == TABLE
    text = FORMATS["text"](matrix)
    assert "  authenticated  SELECT, INSERT, UPDATE, DELETE: always (row security is off)\n" in text


@pytest.mark.exhaustive
def test_a_database_without_schema_auth_or_privileges_has_a_matrix() -> None:
    names = f'CREATE TABLE "{"x" * 63}" (id int); CREATE TABLE public.open (id int);'
    with scratch_database(f"{names} GRANT SELECT ON public.open TO PUBLIC;") as connection:
        found = matrix_of(connection, name="bare")
        assert found.roles == ("PUBLIC",)
        assert found.by_key["public.open", "PUBLIC", "SELECT"].words == "always"
        assert found.by_key[f"public.{'x' * 63}", "PUBLIC", "SELECT"].reason == "no privilege"
        with pytest.raises(AnalysisError, match="there is no role 'nobody'"):
            matrix_of(connection, name="bare", roles=["nobody"])


@pytest.mark.exhaustive
def test_columns_that_decide_nothing_have_values_that_constraints_accept() -> None:
    script = """
    CREATE ROLE caller;
    CREATE TABLE plans (id int PRIMARY KEY, starts date NOT NULL, ends date NOT NULL, CHECK (starts < ends));
    CREATE TABLE budgets (id int PRIMARY KEY, owner_id text NOT NULL, plan_id int NOT NULL REFERENCES plans,
      most numeric NOT NULL CHECK (most > 0), month int NOT NULL CHECK (month BETWEEN 1 AND 12),
      year int NOT NULL CHECK (year BETWEEN 2020 AND 2100), currency char(3) NOT NULL,
      period text NOT NULL CHECK (period IN ('month', 'week', 'year')));
    ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON budgets TO caller
      USING (owner_id = current_setting('request.jwt.claims')::json ->> 'sub');
    GRANT SELECT, INSERT, UPDATE, DELETE ON budgets TO caller;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="budgets").by_key
    assert {found["public.budgets", "caller", one].words for one in ("SELECT", "UPDATE", "DELETE")} == {
        "own rows"
    }


@pytest.mark.exhaustive
def test_policies_that_call_dynamic_sql_are_unknown_unless_they_are_settled() -> None:
    script = """
    CREATE ROLE caller;
    CREATE FUNCTION ask() RETURNS boolean LANGUAGE plpgsql STABLE AS
      $$ DECLARE found boolean; BEGIN EXECUTE 'SELECT false' INTO found; RETURN found; END $$;
    CREATE TABLE docs (id int PRIMARY KEY);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY asked ON docs FOR SELECT TO caller USING (ask());
    GRANT SELECT ON docs TO caller;
    """
    with scratch_database(script) as connection:
        entry = matrix_of(connection, name="dynamic").by_key["public.docs", "caller", "SELECT"]
    assert entry.verdict == "unknown"


@pytest.mark.exhaustive
def test_roles_with_the_same_rights_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
    CREATE ROLE a; CREATE ROLE b; CREATE ROLE c;
    CREATE FUNCTION secret() RETURNS text STABLE RETURN current_setting('app.user', true);
    REVOKE EXECUTE ON FUNCTION secret() FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION secret() TO a, b;
    CREATE TABLE docs (id int PRIMARY KEY, owner text); CREATE TABLE notes (LIKE docs);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY; ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON docs USING (owner = secret());
    CREATE POLICY own ON notes USING (owner = current_user);
    GRANT SELECT ON docs, notes TO a, b, c;
    """
    tried: list[tuple[str, str]] = []
    answers = Worlds.answers

    def counted(self: Worlds, role: str, *given: Any) -> Any:
        tried.append((self.relation.name, role))
        return answers(self, role, *given)

    monkeypatch.setattr(Worlds, "answers", counted)
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="roles").by_key

    assert tried == [
        ("public.docs", "a"),
        ("public.docs", "c"),
        ("public.notes", "a"),
        ("public.notes", "b"),
        ("public.notes", "c"),
    ]
    assert found["public.docs", "b", "SELECT"].words == found["public.docs", "a", "SELECT"].words
    assert found["public.docs", "b", "SELECT"].verdict == "condition"
    assert "permission denied" in found["public.docs", "c", "SELECT"].reason


def test_rules_of_tables_and_views_are_ways_around() -> None:
    script = """
    CREATE ROLE caller; CREATE ROLE forced_owner;
    CREATE TABLE docs (id int PRIMARY KEY, owner text);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1, 'bob');
    CREATE TABLE safe (id int PRIMARY KEY);
    ALTER TABLE safe ENABLE ROW LEVEL SECURITY; ALTER TABLE safe FORCE ROW LEVEL SECURITY;
    ALTER TABLE safe OWNER TO forced_owner;
    CREATE VIEW shown WITH (security_invoker) AS SELECT * FROM docs;
    CREATE TABLE inbox (id int); CREATE TABLE outbox (id int);
    ALTER TABLE outbox OWNER TO forced_owner;
    CREATE RULE peek AS ON INSERT TO inbox DO INSTEAD SELECT * FROM docs;
    CREATE RULE fill AS ON INSERT TO shown DO INSTEAD INSERT INTO docs VALUES (new.id, new.owner);
    CREATE RULE safely AS ON INSERT TO outbox DO ALSO INSERT INTO safe VALUES (new.id);
    GRANT INSERT ON inbox, outbox, shown TO caller;
    """
    with scratch_database(script) as connection:
        ways = {way.key: way for way in matrix_of(connection, name="rules").ways if way.kind == "rule"}
        connection.exec_driver_sql("SET ROLE caller")
        assert connection.exec_driver_sql("INSERT INTO inbox VALUES (1)").all() == [(1, "bob")]

    assert ways.keys() == {
        ("rule", "peek on public.inbox", "caller"),
        ("rule", "fill on public.shown", "caller"),
    }
    peek = ways["rule", "peek on public.inbox", "caller"]
    assert (peek.commands, peek.reaches) == (("INSERT",), ("public.docs",))
    assert peek.text == "runs with the rights of postgres, whom the policies don't limit"


@pytest.mark.exhaustive
def test_objects_of_each_kind_have_entries() -> None:
    script = """
    CREATE ROLE caller; CREATE ROLE login LOGIN IN ROLE caller;
    CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
    CREATE FOREIGN TABLE afar (id int) SERVER elsewhere;
    CREATE SCHEMA hidden; CREATE TABLE hidden.docs (id int); GRANT SELECT ON hidden.docs TO caller;
    CREATE TABLE "Quoted ""d"" s" (id int PRIMARY KEY, kind text CHECK (kind IN ('a', 'b')));
    ALTER TABLE "Quoted ""d"" s" ENABLE ROW LEVEL SECURITY;
    CREATE POLICY kinds ON "Quoted ""d"" s" TO caller USING (kind = 'a');
    CREATE TABLE a (id int); CREATE TABLE b (id int);
    ALTER TABLE a ENABLE ROW LEVEL SECURITY; ALTER TABLE b ENABLE ROW LEVEL SECURITY;
    CREATE POLICY circle ON a TO caller USING (id IN (SELECT id FROM b));
    CREATE POLICY circle ON b TO caller USING (id IN (SELECT id FROM a));
    CREATE VIEW inner_docs AS SELECT id, kind FROM "Quoted ""d"" s";
    CREATE VIEW outer_docs AS SELECT id FROM inner_docs WHERE kind = 'b';
    CREATE TABLE parents (id int PRIMARY KEY); ALTER TABLE parents ENABLE ROW LEVEL SECURITY;
    CREATE TABLE children (
      id int PRIMARY KEY, parent int REFERENCES parents ON UPDATE CASCADE ON DELETE SET NULL);
    ALTER TABLE children ENABLE ROW LEVEL SECURITY;
    CREATE POLICY all_of_them ON parents TO caller USING (true);
    GRANT ALL ON "Quoted ""d"" s", afar, a, b, outer_docs, parents TO caller;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="kinds")
    # A member that inherits has the same rows.
    assert found.roles == ("caller", "login")

    def words(name: str, command: str = "SELECT") -> tuple[str, str]:
        entry = next(one for one in found.entries if one.key == (name, "caller", command))
        return entry.words, entry.reason

    assert words("public.afar") == ("always", "a foreign table has no row security")
    assert words("hidden.docs") == ("never", "no USAGE on schema hidden")
    assert words('public."Quoted ""d"" s"', "INSERT") == ("rows with kind a", "")
    assert words("public.a")[0] == "never in trials"
    assert "infinite recursion" in words("public.a")[1]
    assert words("public.outer_docs", "UPDATE")[0] == "always in trials"
    ways = {way.key: way for way in found.ways}
    assert ways["view", "public.outer_docs", "caller"].reaches == ('public."Quoted ""d"" s"',)
    assert ways["cascade", "children_parent_fkey on public.parents", "caller"].text == (
        "DELETE sets columns to NULL in public.children, past its policies; "
        "UPDATE updates rows of public.children, past its policies"
    )


@pytest.mark.exhaustive
def test_a_test_that_admits_null_says_so_where_the_column_may_be_null() -> None:
    script = """
    CREATE ROLE caller;
    CREATE TABLE docs (id int PRIMARY KEY, is_open boolean, is_done boolean NOT NULL);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY read ON docs FOR SELECT TO caller USING (is_open IS NOT FALSE);
    CREATE POLICY removed ON docs FOR DELETE TO caller USING (is_done IS NOT FALSE);
    GRANT SELECT, DELETE ON docs TO caller;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="null").by_key
    assert found["public.docs", "caller", "SELECT"].words == "open rows or rows where is_open is empty"
    assert found["public.docs", "caller", "DELETE"].words == "done rows"


def test_what_a_function_says_of_itself_is_no_constant() -> None:
    script = """
    CREATE ROLE caller;
    CREATE FUNCTION org() RETURNS text LANGUAGE sql IMMUTABLE AS
      $$ SELECT current_setting('app.org', true) $$;
    CREATE FUNCTION mine(org text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
      $$ BEGIN RETURN org = public.org(); END $$;
    CREATE FUNCTION same(a text, b text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
      $$ SELECT a = b AND a = current_setting('app.org', true) $$;
    CREATE FUNCTION never() RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT 1 > 2';
    CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = same);
    CREATE TABLE docs (id int, org text) PARTITION BY RANGE (id);
    CREATE TABLE docs_1 PARTITION OF docs DEFAULT;
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY read ON docs FOR SELECT TO caller USING (org = org());
    CREATE POLICY remove ON docs FOR DELETE TO caller USING (mine('a'));
    CREATE POLICY change ON docs FOR UPDATE TO caller USING ('a' === 'a');
    CREATE POLICY add ON docs FOR INSERT TO caller WITH CHECK (never());
    GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO caller;
    """
    with scratch_database(script) as connection:
        found = {
            entry.command: entry for entry in matrix_of(connection, name="x").of("public.docs", "caller")
        }
    assert found["SELECT"].words == "rows where org is setting app.org"
    assert (found["INSERT"].verdict, found["INSERT"].basis) == ("never", "constant")
    assert {found[one].basis for one in ("UPDATE", "DELETE")} == {"worlds"}


CHAINS = """
CREATE ROLE caller; CREATE ROLE owner; CREATE ROLE middle;
GRANT CREATE ON SCHEMA public TO owner, middle;
SET ROLE owner;
CREATE TABLE docs (id int, user_id text) PARTITION BY RANGE (id);
CREATE TABLE docs_1 PARTITION OF docs DEFAULT PARTITION BY RANGE (id);
CREATE TABLE docs_11 PARTITION OF docs_1 DEFAULT;
INSERT INTO docs VALUES (1, 'bob');
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON docs TO caller USING (user_id = 'me');
CREATE VIEW invoker WITH (security_invoker = t) AS SELECT * FROM docs;
CREATE VIEW over_invoker AS SELECT * FROM invoker;
CREATE VIEW definer AS SELECT * FROM docs;
CREATE FUNCTION inner_docs() RETURNS SETOF docs LANGUAGE sql SECURITY DEFINER SET search_path = ''
  AS 'SELECT * FROM public.docs';
REVOKE ALL ON FUNCTION inner_docs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION inner_docs() TO middle;
GRANT SELECT ON docs, docs_11, invoker, over_invoker TO caller;
GRANT SELECT ON definer TO middle;
SET ROLE middle;
CREATE VIEW over_definer AS SELECT * FROM definer;
GRANT SELECT ON over_definer TO caller;
CREATE FUNCTION outer_docs() RETURNS SETOF docs LANGUAGE sql SECURITY DEFINER SET search_path = ''
  AS 'SELECT * FROM public.inner_docs()';
REVOKE ALL ON FUNCTION outer_docs() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outer_docs() TO caller;
RESET ROLE;
"""


def test_the_ways_around_have_the_rights_of_each_view_and_function() -> None:
    with scratch_database(CHAINS) as connection:
        connection.exec_driver_sql("SET ROLE caller")
        shown = {
            name
            for name in ("docs", "docs_11", "invoker", "over_invoker", "over_definer", "outer_docs()")
            if connection.exec_driver_sql(f"SELECT FROM {name}").rowcount
        }
        connection.exec_driver_sql("RESET ROLE")
        ways = {way.object: way for way in matrix_of(connection, name="x").ways if way.role == "caller"}
    assert ways.keys() == {f"public.{name}" for name in shown}
    assert shown == {"docs_11", "over_definer", "outer_docs()"}
    assert {one.reaches for one in ways.values()} == {("public.docs",)}
    assert "with the rights of owner," in ways["public.over_definer"].text
    assert "with the rights of owner," in ways["public.outer_docs()"].text


#: Each role reaches all rows of docs after the statements beside it.
AFTER_STATEMENTS = {
    "not_inherited": ["SET ROLE owner"],
    "bypassing": ["SET ROLE auditor"],
    "indirect": ["SET ROLE auditor"],
    "granting": ["GRANT owner TO granting WITH SET TRUE", "SET ROLE owner"],
}


@pytest.mark.exhaustive
def test_a_role_that_a_role_can_become_is_a_way_around() -> None:
    script = """
    CREATE ROLE owner; CREATE ROLE auditor BYPASSRLS; CREATE ROLE caller;
    CREATE ROLE not_inherited NOINHERIT IN ROLE owner, caller;
    CREATE ROLE bypassing IN ROLE auditor;
    CREATE ROLE indirect NOINHERIT IN ROLE bypassing;
    CREATE ROLE granting; GRANT owner TO granting WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
    CREATE ROLE neither; GRANT owner TO neither WITH INHERIT FALSE, SET FALSE;
    CREATE TABLE docs (id int PRIMARY KEY);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1);
    GRANT SELECT ON docs TO caller, auditor;
    ALTER TABLE docs OWNER TO owner;
    """
    with scratch_database(script) as connection:
        ways = {way.key: way for way in matrix_of(connection, name="x").ways if way.commands == ("SET ROLE",)}
        for role, statements in AFTER_STATEMENTS.items():
            connection.exec_driver_sql("BEGIN")
            for statement in (f"SET SESSION AUTHORIZATION {role}", *statements):
                connection.exec_driver_sql(statement)
            assert connection.exec_driver_sql("SELECT FROM docs").rowcount == 1
            connection.exec_driver_sql("ROLLBACK")

    assert ways.keys() == {
        ("role", statements[-1].removeprefix("SET ROLE "), role)
        for role, statements in AFTER_STATEMENTS.items()
    }
    assert {way.reaches for way in ways.values()} == {("public.docs",)}
    assert ways["role", "auditor", "indirect"].text == "becomes a role that has BYPASSRLS"


@pytest.mark.exhaustive
def test_rights_of_a_role_that_other_policies_admit_are_a_way_around() -> None:
    script = """
    CREATE ROLE caller; CREATE ROLE auditor; CREATE ROLE colleague;
    GRANT USAGE, CREATE ON SCHEMA public TO auditor, colleague;
    CREATE TABLE docs (id int PRIMARY KEY, owner text);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1, 'bob');
    CREATE TABLE inbox (id int);
    CREATE POLICY own ON docs TO caller, colleague USING (owner = current_setting('app.user', true));
    CREATE POLICY strict ON docs AS RESTRICTIVE TO colleague USING (id > 0);
    CREATE POLICY everything ON docs TO auditor USING (true);
    GRANT SELECT ON docs TO caller, auditor, colleague;
    GRANT INSERT ON inbox TO caller;
    SET ROLE auditor;
    CREATE FUNCTION found() RETURNS SETOF docs SECURITY DEFINER LANGUAGE sql AS 'SELECT * FROM public.docs';
    CREATE FUNCTION noted() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
      BEGIN new.id := (SELECT count(*) FROM public.docs); RETURN new; END $$;
    SET ROLE colleague;
    CREATE FUNCTION mine() RETURNS SETOF docs SECURITY DEFINER LANGUAGE sql AS 'SELECT * FROM public.docs';
    RESET ROLE;
    CREATE TRIGGER noted BEFORE INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION noted();
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="x", roles=["caller", "auditor"])
        connection.exec_driver_sql("SET ROLE caller")
        assert connection.exec_driver_sql("SELECT FROM docs").rowcount == 0
        assert connection.exec_driver_sql("SELECT FROM mine()").rowcount == 0
        assert connection.exec_driver_sql("SELECT FROM found()").rowcount == 1

    ways = {way.key: way for way in found.ways if way.kind != "role"}
    assert ways.keys() == {
        ("function", "public.found()", "caller"),
        ("trigger", "noted on public.inbox", "caller"),
        # Its own policies admit all rows, and those of the colleague others.
        ("function", "public.mine()", "auditor"),
    }
    way = ways["function", "public.found()", "caller"]
    assert way.text == "runs with the rights of auditor, to whom other policies apply"
    assert way.reaches == ("public.docs",)


@pytest.mark.exhaustive
def test_triggers_that_a_role_creates_are_a_way_around() -> None:
    script = """
    CREATE ROLE snoop; CREATE ROLE bob;
    CREATE TABLE docs (id int PRIMARY KEY, owner text);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON docs USING (owner = current_user);
    GRANT INSERT ON docs TO bob; GRANT TRIGGER ON docs TO snoop;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="x")
        for statement in (
            "SET ROLE snoop",
            "CREATE TEMPORARY TABLE seen (owner text)",
            """CREATE FUNCTION pg_temp.see() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS
            'BEGIN INSERT INTO pg_temp.seen VALUES (new.owner); RETURN new; END'""",
            "CREATE TRIGGER see AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION pg_temp.see()",
            "SET ROLE bob",
            "INSERT INTO docs VALUES (1, 'bob')",
            "SET ROLE snoop",
        ):
            connection.exec_driver_sql(statement)
        assert connection.exec_driver_sql("SELECT owner FROM seen").all() == [("bob",)]

    (way,) = [way for way in found.ways if way.role == "snoop"]
    assert (way.kind, way.object, way.commands) == ("trigger", "public.docs", ("TRIGGER",))


@pytest.mark.exhaustive
def test_truncate_on_a_partition_of_a_protected_table_is_a_way_around() -> None:
    script = """
    CREATE ROLE cleaner; CREATE ROLE other;
    CREATE TABLE docs (id int) PARTITION BY RANGE (id);
    CREATE TABLE docs_1 PARTITION OF docs FOR VALUES FROM (0) TO (10);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1);
    CREATE TABLE scratch (id int);
    GRANT TRUNCATE ON docs_1 TO cleaner; GRANT TRUNCATE ON scratch TO other;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="x")
        for statement in ("SET ROLE cleaner", "TRUNCATE docs_1", "RESET ROLE"):
            connection.exec_driver_sql(statement)
        assert connection.exec_driver_sql("SELECT FROM docs").rowcount == 0

    assert found.roles == ("cleaner",)
    (way,) = found.ways
    assert (way.key, way.reaches) == (("truncate", "public.docs_1", "cleaner"), ("public.docs",))


@pytest.mark.exhaustive
def test_an_aggregate_of_a_security_definer_function_is_a_way_around() -> None:
    script = """
    CREATE ROLE caller;
    CREATE TABLE docs (id int PRIMARY KEY);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1);
    CREATE POLICY none ON docs TO caller USING (false);
    CREATE FUNCTION add(bigint, int) RETURNS bigint SECURITY DEFINER LANGUAGE sql AS
      'SELECT count(*) FROM public.docs';
    REVOKE EXECUTE ON FUNCTION add FROM PUBLIC;
    CREATE AGGREGATE added(int) (sfunc = add, stype = bigint, initcond = '0');
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="x")
        connection.exec_driver_sql("SET ROLE caller")
        assert connection.exec_driver_sql("SELECT added(1)").scalar() == 1

    (way,) = [way for way in found.ways if way.role == "caller"]
    assert (way.kind, way.object) == ("function", "public.add(bigint,integer)")


@pytest.mark.exhaustive
def test_a_role_with_execute_alone_has_its_ways() -> None:
    script = """
    CREATE ROLE bot; CREATE ROLE other;
    CREATE TABLE docs (id int PRIMARY KEY);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    INSERT INTO docs VALUES (1);
    CREATE FUNCTION found() RETURNS SETOF docs SECURITY DEFINER LANGUAGE sql AS 'SELECT * FROM public.docs';
    REVOKE EXECUTE ON FUNCTION found FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION found TO bot;
    CREATE FUNCTION two() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 2';
    REVOKE EXECUTE ON FUNCTION two FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION two TO other;
    """
    with scratch_database(script) as connection:
        found = matrix_of(connection, name="x")
        connection.exec_driver_sql("SET ROLE bot")
        assert connection.exec_driver_sql("SELECT FROM found()").rowcount == 1

    assert found.roles == ("bot",)
    assert {way.key for way in found.ways} == {("function", "public.found()", "bot")}
