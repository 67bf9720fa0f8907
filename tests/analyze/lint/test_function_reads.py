"""SECURITY DEFINER functions that ask who calls, whose arguments need care."""

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
