"""A right whose definitions are the same on both sides needs no world; any other is tried."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.sides.comparison import compare_built
from sqla_rls.analyze.verdict import Budget, Comparison
from sqla_rls.analyze.worlds.unchanged import Unchanged
from tests.support.servers import administered
from tests.support.worlds import ALL, Sides, verdicts

#: Row security of the table that a function reads, which another role owns.
GUARDED = """
ALTER TABLE members OWNER TO owner; ALTER FUNCTION my_orgs() OWNER TO owner;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON members FOR SELECT TO reader USING (user_id = auth.user_id());
CREATE POLICY writes ON docs FOR INSERT TO other WITH CHECK (org_id = 1);
CREATE TABLE notes (id int PRIMARY KEY, org_id int, user_id text);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO reader, other;
GRANT SELECT ON members TO reader, other;
CREATE POLICY by_members ON notes TO reader
  USING (org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = auth.user_id()));
CREATE POLICY first_ones ON notes TO other USING (org_id = 1);
"""


def untried(found: Comparison, name: str) -> set[tuple[str, str]]:
    """The roles and commands on table *name* for which the catalogs decide."""
    return {(one.role, one.command) for one in found.same if one.object == name and not one.worlds}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "name", "decided"),
    [
        pytest.param(
            "ALTER POLICY first_ones ON notes USING (org_id = 2);",
            "public.notes",
            {(role, command) for role in ("reader", "member") for command in ALL},
            id="a policy for another role",
        ),
        pytest.param(
            "DROP POLICY first_ones ON notes; CREATE POLICY first_ones ON notes TO other USING (org_id = 1);"
            "CREATE POLICY more ON notes FOR DELETE TO reader USING (user_id = auth.user_id());",
            "public.notes",
            {(role, command) for role in ("reader", "member") for command in ("SELECT", "INSERT", "UPDATE")}
            | {("other", command) for command in ALL},
            id="a policy for another command",
        ),
        pytest.param(
            "ALTER POLICY own ON members USING (user_id = auth.user_id() OR role = 'public');",
            "public.docs",
            {(role, command) for role in ("reader", "member") for command in ALL},
            id="a policy that the owner of a function bypasses",
        ),
    ],
)
def test_the_catalogs_decide(sides: Sides, change: str, name: str, decided: set[tuple[str, str]]) -> None:
    with sides.compared(change, setup=GUARDED) as (found, *_):
        assert decided <= untried(found, name)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("setup", "change", "expected"),
    [
        pytest.param(
            "",
            "ALTER POLICY own ON members USING (true);"
            "ALTER POLICY by_members ON notes USING (org_id IN (SELECT m.org_id FROM members AS m));",
            {("public.notes", "reader", "SELECT"), ("public.members", "reader", "SELECT")},
            id="a policy on a table that another policy reads as the caller",
        ),
        pytest.param(
            "ALTER TABLE members FORCE ROW LEVEL SECURITY;"
            "CREATE POLICY of_owner ON members TO owner USING (role = 'admin');",
            "ALTER POLICY of_owner ON members USING (role <> 'x');",
            {("public.docs", "reader", "SELECT"), ("public.docs", "reader", "DELETE")},
            id="a policy for the owner of a function",
        ),
        pytest.param(
            "ALTER FUNCTION my_orgs() SECURITY INVOKER;",
            "CREATE POLICY more ON members FOR SELECT TO reader USING (role = 'public');"
            "CREATE OR REPLACE FUNCTION auth.user_id() RETURNS text LANGUAGE sql STABLE "
            "RETURN coalesce(nullif(current_setting('request.jwt.claims', true), '')::json ->> 'sub', 'a');",
            {("public.docs", "reader", "SELECT")},
            id="a function with the rights of the caller",
        ),
        pytest.param(
            "CREATE POLICY adds ON notes FOR INSERT TO loner WITH CHECK "
            "(EXISTS (SELECT FROM notes AS n WHERE n.user_id = auth.user_id()));"
            "GRANT SELECT, INSERT ON notes TO loner;"
            "CREATE POLICY few ON notes FOR SELECT TO loner USING (org_id = 1);",
            "ALTER POLICY few ON notes USING (org_id < 3);",
            {("public.notes", "loner", "SELECT"), ("public.notes", "loner", "INSERT")},
            id="a policy that reads its own table",
        ),
        pytest.param(
            "CREATE VIEW all_notes AS SELECT * FROM notes; ALTER VIEW all_notes OWNER TO owner;"
            "ALTER TABLE notes OWNER TO owner; ALTER TABLE notes FORCE ROW LEVEL SECURITY;"
            "GRANT SELECT ON all_notes TO loner;"
            "CREATE POLICY of_owner ON notes TO owner USING (org_id = 1);",
            "ALTER POLICY of_owner ON notes USING (org_id < 3);",
            {("public.all_notes", "loner", "SELECT")},
            id="a view that reads as its owner",
        ),
        *(
            pytest.param(
                "CREATE FUNCTION as_other() RETURNS SETOF int LANGUAGE plpgsql AS "
                f"$$ BEGIN {becomes}; RETURN QUERY SELECT n.org_id FROM notes AS n; END $$;"
                "CREATE POLICY odd ON docs FOR SELECT TO reader USING (org_id IN (SELECT as_other()));",
                "ALTER POLICY first_ones ON notes USING (true);",
                {("public.docs", "reader", "SELECT")},
                id=f"a function with {becomes}",
            )
            for becomes in (
                "PERFORM set_config('role', 'other', true)",
                "PERFORM U&\"\\0073et_config\"('role', 'other', true)",
                'SET LOCAL "role" TO other',
                "SET LOCAL ROLE other",
            )
        ),
    ],
)
def test_what_only_looks_the_same_is_tried(
    sides: Sides,
    monkeypatch: pytest.MonkeyPatch,
    setup: str,
    change: str,
    expected: set[tuple[str, str, str]],
) -> None:
    with sides.compared(change, setup=GUARDED + setup, budget=Budget()) as (found, *_):
        pass
    # The same worlds, without a look at the catalogs.
    monkeypatch.setattr(Unchanged, "of", lambda *_: frozenset())
    with sides.compared(change, setup=GUARDED + setup, budget=Budget()) as (tried, *_):
        pass
    assert expected <= verdicts(found).keys()
    assert verdicts(found) == verdicts(tried)
    assert {(one.object, one.role, one.command) for one in found.unknown} == {
        (one.object, one.role, one.command) for one in tried.unknown
    }


@pytest.mark.exhaustive
def test_a_new_role_costs_no_world_of_the_others(sides: Sides) -> None:
    try:
        with administered(sides.after) as connection:
            connection.exec_driver_sql("CREATE ROLE newcomer IN ROLE reader")
        with sides.compared("") as (found, *_):
            assert {one.role for one in found.changes} == {"newcomer"}
            assert {one.role for one in found.same if one.worlds} <= {"newcomer"}
            assert not found.unknown
    finally:
        with administered(sides.after) as connection:
            connection.exec_driver_sql("DROP ROLE newcomer")


@pytest.mark.exhaustive
def test_a_membership_without_rights_costs_no_world(sides: Sides) -> None:
    """PostgreSQL 16 and later give it to a role with CREATEROLE that makes another role."""
    try:
        with administered(sides.after) as connection:
            connection.exec_driver_sql("GRANT reader TO owner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        # The definition of the table differs.
        with sides.compared("GRANT DELETE ON docs TO other;", setup=GUARDED) as (found, *_):
            decided = {(role, command) for role in ("reader", "member", "owner") for command in ALL}
            assert decided <= untried(found, "public.docs")
    finally:
        with administered(sides.after) as connection:
            connection.exec_driver_sql("REVOKE reader FROM owner")


@pytest.mark.exhaustive
def test_privileges_of_others_on_a_function_cost_no_world(sides: Sides) -> None:
    lost = "REVOKE EXECUTE ON FUNCTION my_orgs() FROM PUBLIC;"
    kept = f"{lost} GRANT EXECUTE ON FUNCTION my_orgs() TO reader;"
    with sides.compared(kept) as (found, *_):
        assert {(role, command) for role in ("reader", "member") for command in ALL} <= untried(
            found, "public.docs"
        )
    with sides.compared(lost) as (found, *_):
        assert verdicts(found)["public.docs", "reader", "SELECT"] == "closes"


def test_each_role_has_a_counterexample_of_its_own(sides: Sides) -> None:
    change = "ALTER POLICY not_secret ON docs TO other; ALTER POLICY mine ON docs USING (true);"
    with sides.compared(change) as (found, *_):
        roles = {one.role for one in found.changes}
        assert {"reader", "member"} <= roles
        for one in found.changes:
            for example in filter(None, (one.counterexample, one.closing)):
                assert f"as {one.role}" in example.text or example.text.startswith(f"{one.role} ")


@pytest.mark.exhaustive
def test_a_counterexample_shows_a_caller_whose_claims_name_its_role(sides: Sides) -> None:
    setup = """
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE
  RETURN nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role';
"""
    change = (
        "CREATE POLICY by_claim ON docs FOR SELECT TO other USING (auth.role() <> 'reader' OR org_id = 1);"
    )
    with sides.compared(change, setup=setup) as (found, *_):
        (one,) = [one for one in found.changes if (one.object, one.role) == ("public.docs", "other")]
        assert (one.counterexample.claims or {}).get("role") in (None, "other")
    # No caller with the role in its claims shows the difference; others do.
    change = "CREATE POLICY by_claim ON docs FOR SELECT TO other USING (auth.role() = 'reader');"
    with sides.compared(change, setup=setup) as (found, *_):
        (one,) = [one for one in found.changes if (one.object, one.role) == ("public.docs", "other")]
        assert one.counterexample.claims == {"role": "reader"}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("change", "is_known"),
    [
        ("", True),
        ("COMMENT ON TABLE members IS 'x';", False),
        ("ALTER TABLE members OWNER TO owner;", False),
        ("CREATE SEQUENCE spare;", False),
        ("ALTER FUNCTION my_orgs() SET work_mem = '1MB';", False),
    ],
)
def test_sql_text_that_is_computed_is_the_same_between_the_same_catalogs(
    sides: Sides, change: str, is_known: bool
) -> None:
    setup = """
CREATE FUNCTION computed(int) RETURNS boolean LANGUAGE plpgsql STABLE AS
  'DECLARE found boolean; BEGIN EXECUTE ''SELECT $1 > 1'' INTO found USING $1; RETURN found; END';
CREATE POLICY odd ON drafts FOR SELECT TO reader USING (computed(id));
"""
    with sides.built(change, setup=setup) as built:
        found = compare_built(built, budget=Budget(worlds=5))
    unknown = {(one.object, one.role, one.command) for one in found.unknown}
    assert (("public.drafts", "reader", "SELECT") not in unknown) is is_known
    assert bool(found.unknown) is not is_known


@pytest.mark.exhaustive
def test_the_time_limit_ends_a_statement(sides: Sides) -> None:
    sleeps = "pg_sleep(30) IS NOT NULL AND is_me(user_id)"
    setup = f"ALTER POLICY own ON drafts USING ({sleeps});"
    change = f"ALTER POLICY own ON drafts USING ({sleeps} AND id > 0);"
    with sides.compared(change, setup=setup, budget=Budget(seconds=2)) as (found, *_):
        reasons = {one.reason.partition(" after ")[0] for one in found.unknown}
        assert reasons == {"the time limit of 2 s ended"}
        assert not found.changes


@pytest.mark.exhaustive
def test_each_table_has_its_share_of_the_time(sides: Sides) -> None:
    sleeps = "pg_sleep(30) IS NOT NULL AND is_me(user_id)"
    setup = (
        f"ALTER POLICY own ON drafts USING ({sleeps}); CREATE TABLE notes (id int, user_id text);"
        """
ALTER TABLE notes ENABLE ROW LEVEL SECURITY; GRANT SELECT ON notes TO other;
CREATE POLICY few ON notes TO other USING (id = 1);
"""
    )
    change = (
        f"ALTER POLICY own ON drafts USING ({sleeps} AND id > 0); ALTER POLICY few ON notes USING (true);"
    )
    with sides.compared(change, setup=setup, budget=Budget(seconds=8)) as (found, *_):
        assert verdicts(found) == {("public.notes", "other", "SELECT"): "opens"}
        assert {one.object for one in found.unknown} == {"public.drafts"}
