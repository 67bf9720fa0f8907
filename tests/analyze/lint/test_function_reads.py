"""SECURITY DEFINER functions that ask who calls: their arguments, and the columns that they show."""

from __future__ import annotations

import pytest

from tests.analyze.lint.examples import OWN, Examples, unknown

PAYS = """
CREATE TABLE payroll (id int PRIMARY KEY, owner_id text NOT NULL, salary int);
ALTER TABLE payroll ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON payroll TO authenticated;
CREATE POLICY own ON payroll FOR SELECT TO authenticated USING ({own});
CREATE FUNCTION pays({argument}) RETURNS SETOF payroll LANGUAGE plpgsql STABLE SECURITY DEFINER
  SET search_path = '' AS $$ BEGIN
    IF auth.user_id() IS NULL THEN RAISE insufficient_privilege; END IF;
    RETURN QUERY SELECT * FROM public.payroll;
  END $$;
"""


@pytest.mark.exhaustive
def test_a_function_with_variadic_arguments_is_called(examples: Examples) -> None:
    sql = PAYS.format(own=OWN, argument="VARIADIC ids int[]")
    (finding,) = examples.look(sql, select=["definer-reads-protected"]).findings
    assert (finding.rule, finding.level) == ("definer-reads-protected", "error")
    assert "pays(VARIADIC " in finding.evidence[0].text


@pytest.mark.exhaustive
def test_a_function_whose_arguments_can_not_be_made_is_unknown(examples: Examples) -> None:
    sql = PAYS.format(own=OWN, argument="one anyelement")
    found = examples.look(sql, select=["definer-reads-protected"])
    assert len(unknown(found)) == len(found.findings) == 1
    assert any("no value can be made for its arguments" in one.text for one in found.findings[0].evidence)


TEAMS = """
CREATE TABLE teams (id int PRIMARY KEY, is_public boolean NOT NULL DEFAULT false);
CREATE TABLE members (
  team_id int REFERENCES teams, user_id text, role text NOT NULL CHECK (role IN ('admin', 'member')),
  PRIMARY KEY (team_id, user_id));
ALTER TABLE teams ENABLE ROW LEVEL SECURITY;
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON teams, members TO authenticated;
CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
CREATE POLICY known ON teams FOR SELECT TO authenticated
  USING ({teams} OR id IN (SELECT team_id FROM members));
CREATE FUNCTION shown() RETURNS {returns} LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS $$ {body} $$;
"""
SIGNED_IN = "auth.user_id() IS NOT NULL"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "returns", "mark"),
    [
        (f"SELECT team_id FROM public.members WHERE {SIGNED_IN}", "SETOF int", "918273645"),
        (f"SELECT user_id FROM public.members WHERE {SIGNED_IN}", "SETOF text", "sqla_rls_hidden"),
        (f"SELECT m FROM public.members AS m WHERE {SIGNED_IN}", "SETOF public.members", "918273645"),
    ],
    ids=["a foreign key", "the owner", "the row"],
)
def test_a_row_without_columns_of_its_own_is_shown(
    examples: Examples, body: str, returns: str, mark: str
) -> None:
    sql = TEAMS.format(teams="is_public", body=body, returns=returns)
    (finding,) = examples.look(sql, select=["definer-reads-protected"]).findings
    assert (finding.object, finding.level) == ("public.shown()", "error")
    assert mark in finding.evidence[0].text


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "returns", "teams"),
    [
        ("SELECT team_id FROM public.members WHERE user_id = auth.user_id()", "SETOF int", "is_public"),
        (
            """SELECT id FROM public.teams AS t WHERE is_public OR EXISTS (
                 SELECT FROM public.members AS m WHERE m.team_id = t.id AND m.user_id = auth.user_id())""",
            "SETOF int",
            "is_public",
        ),
        (
            f"SELECT team_id, count(*) FROM public.members WHERE {SIGNED_IN} GROUP BY team_id",
            "TABLE (team_id int, members bigint)",
            "true",
        ),
        (f"SELECT max(team_id) FROM public.members WHERE {SIGNED_IN}", "int", "is_public"),
        (
            "SELECT EXISTS (SELECT FROM public.members WHERE user_id = auth.user_id() AND role = 'admin')",
            "boolean",
            "is_public",
        ),
        ("SELECT role FROM public.members WHERE user_id = auth.user_id() LIMIT 1", "text", "is_public"),
    ],
    ids=["own teams", "own and public teams", "sums of public teams", "a sum", "a test", "a role"],
)
def test_a_function_that_shows_no_row_of_others_is_not_found(
    examples: Examples, body: str, returns: str, teams: str
) -> None:
    sql = TEAMS.format(teams=teams, body=body, returns=returns)
    assert examples.look(sql, select=["definer-reads-protected"]).findings == []


@pytest.mark.exhaustive
def test_a_column_whose_check_accepts_a_mark_is_shown(examples: Examples) -> None:
    sql = f"""
    CREATE TABLE posts (
      id int PRIMARY KEY, owner_id text NOT NULL, kind text NOT NULL CHECK (kind IN ('a', 'b')),
      body text NOT NULL CHECK (length(body) < 280));
    ALTER TABLE posts ENABLE ROW LEVEL SECURITY;
    GRANT SELECT ON posts TO authenticated;
    CREATE POLICY own ON posts FOR SELECT TO authenticated USING ({OWN});
    CREATE FUNCTION bodies() RETURNS SETOF text LANGUAGE sql STABLE SECURITY DEFINER
      SET search_path = '' AS 'SELECT body FROM public.posts WHERE {SIGNED_IN}';
    """
    (finding,) = examples.look(sql, select=["definer-reads-protected"]).findings
    assert (finding.object, finding.level) == ("public.bodies()", "error")


@pytest.mark.exhaustive
@pytest.mark.parametrize("type_", ["char(3)", "varchar(5)"])
def test_a_column_that_is_too_short_for_a_mark_hides_no_other(examples: Examples, type_: str) -> None:
    sql = PAYS.format(own=OWN, argument="").replace("salary int", f"currency {type_} NOT NULL, salary int")
    (finding,) = examples.look(sql, select=["definer-reads-protected"]).findings
    assert (finding.object, finding.level) == ("public.pays()", "error")
