"""A change of any definition that opens or closes a table is found, with rows that replay."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.scratch import ScratchDatabase, Trial
from sqla_rls.analyze.worlds.world import Row, World
from tests.support.replay import replay
from tests.support.servers import administered
from tests.support.worlds import ALL, Sides, verdicts

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
@pytest.mark.parametrize("name", OPENS)
def test_what_opens_is_shown_by_rows_that_replay(sides: Sides, name: str) -> None:
    change, expected = OPENS[name]

    with sides.compared(change) as (found, before, after):
        assert verdicts(found) == dict.fromkeys(expected, "opens")
        for one in found.changes:
            if one.object != "public.notes":
                assert replay(before, one.role, one.counterexample) == one.counterexample.before
            assert replay(after, one.role, one.counterexample) == one.counterexample.after
            assert one.counterexample.before != one.counterexample.after


JOINS = """
CREATE FUNCTION join_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  AS 'BEGIN INSERT INTO members VALUES (NEW.org_id, auth.user_id()); RETURN NEW; END';
CREATE TRIGGER joins AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION join_it();
"""
OTHER = "CREATE POLICY others ON docs FOR SELECT TO other USING (org_id = 1);"


@pytest.mark.exhaustive
@pytest.mark.parametrize("is_new", [False, True], ids=["on both sides", "on one side"])
def test_a_trigger_that_needs_a_caller_leaves_no_table_without_rows(sides: Sides, is_new: bool) -> None:
    change, setup = (JOINS + OTHER, "") if is_new else (OTHER, JOINS)
    with sides.compared(change, setup=setup) as (found, *_):
        assert verdicts(found)["public.docs", "other", "SELECT"] == "opens"
        assert ("public.docs", "reader", "SELECT") not in verdicts(found)
        assert not [one for one in found.unknown if one.object == "public.docs"]
        sentence = "public.docs: some rows were inserted without its triggers, which refuse them"
        assert sentence in found.scope.left_out


@pytest.mark.exhaustive
def test_foreign_keys_hold_where_triggers_are_left_out(sides: Sides) -> None:
    child = (
        JOINS
        + "CREATE TABLE pages (id int PRIMARY KEY, doc int REFERENCES docs);"
        + ("CREATE TRIGGER joins AFTER INSERT ON pages FOR EACH ROW EXECUTE FUNCTION join_it();")
    )
    with sides.compared("", setup=child) as (_, before, _):
        scratch = ScratchDatabase.open(before)
        doc = Row("public.docs", {"id": "1", "org_id": "1"})
        page = Row("public.pages", {"id": "1", "doc": "1"})
        owner = [Actor(role="owner", claims=None, settings={})]
        orphan, whole = scratch.run([Trial(World(rows=rows), ()) for rows in ((page,), (doc, page))], owner)
        assert (orphan.rejected or "").startswith("23503")
        assert whole.rejected is None
        (orphan,) = scratch.run_without_triggers([Trial(World(rows=(page,)), ())], owner)
        assert (orphan.rejected or "").startswith("23503")


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
    "a function that the check of a domain calls": (
        """CREATE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $$code$$';
        CREATE FUNCTION is_valid(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.is_code($1)';
        CREATE DOMAIN code AS text CHECK (is_valid(VALUE));
        CREATE POLICY p ON docs TO other USING (body::code IS NOT NULL);""",
        "CREATE OR REPLACE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';",
    ),
    "an operator that a body has": (
        """CREATE FUNCTION is_same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2';
        CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = is_same);
        CREATE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE
          AS 'SELECT $1 OPERATOR(public.===) $$code$$';
        CREATE POLICY p ON docs TO other USING (is_code(secret));""",
        """CREATE OR REPLACE FUNCTION is_same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE
          AS 'SELECT $1 IS NULL'; DROP POLICY not_secret ON docs;""",
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
def test_the_same_definitions_are_not_tried(sides: Sides) -> None:
    with sides.compared("CREATE TABLE unrelated (id int);") as (found, *_):
        assert (found.changes, found.unknown, found.same) == ((), (), ())
        assert found.scope.statements == 0


@pytest.mark.exhaustive
def test_the_same_definitions_are_the_same_if_roles_were_created_in_another_order(sides: Sides) -> None:
    with administered(sides.before) as before, administered(sides.after) as after:
        before.exec_driver_sql("CREATE ROLE first; CREATE ROLE second")
        after.exec_driver_sql("CREATE ROLE second; CREATE ROLE first")
    grants = """
GRANT USAGE ON SCHEMA auth, public TO {0}; GRANT USAGE ON SCHEMA auth, public TO {1};
GRANT EXECUTE ON FUNCTION is_me(text) TO {0}; GRANT EXECUTE ON FUNCTION is_me(text) TO {1};
GRANT SELECT, UPDATE (body) ON docs TO {0}; GRANT SELECT, UPDATE (body) ON docs TO {1};
GRANT USAGE ON SEQUENCE docs_id_seq TO {0}; GRANT USAGE ON SEQUENCE docs_id_seq TO {1};
CREATE POLICY two ON docs FOR SELECT TO {0}, {1} USING (is_me(user_id));
"""
    try:
        with sides.compared(
            grants.format("second", "first"), setup_before=grants.format("first", "second")
        ) as (found, *_):
            assert (found.changes, found.unknown, found.same) == ((), (), ())
            assert found.scope.statements == 0
            assert not any("These differ" in each for each in found.scope.left_out)
    finally:
        for server in (sides.before, sides.after):
            with administered(server) as connection:
                connection.exec_driver_sql("DROP ROLE first, second")


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
        assert min(one.worlds for one in found.same if one.role == "reader") > 10
