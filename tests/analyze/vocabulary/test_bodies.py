"""The terms and constants of views and of bodies of functions."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.vocabulary import Column, read_expression, read_function, read_query
from tests.analyze.vocabulary.terms import ORG, ROLE, SUBJECT, USER, constants

pytestmark = pytest.mark.one_postgres


def test_sql_that_the_parser_does_not_know_is_incomplete() -> None:
    assert not read_expression("(user_id ===== ").is_complete
    assert not read_query("SELECT FROM WHERE").is_complete
    assert not read_function("sql", "SELECT FROM WHERE").is_complete
    assert not read_function("plpgsql", "BEGIN").is_complete
    assert not read_function("c", "f").is_complete


def test_a_view_names_its_columns() -> None:
    found = read_query(" SELECT m.org_id AS team FROM members m WHERE m.role = 'x' UNION ALL SELECT 4")

    assert found.linked[Column("team")] == {ORG}
    assert constants(found, ROLE) == ["x"]


def test_a_body_of_sql(subtests: pytest.Subtests) -> None:
    query = "SELECT org_id FROM members WHERE user_id = $1 AND role = 'admin'"
    for body in (query, f"BEGIN ATOMIC {query}; END", f"RETURN ({query})"):
        with subtests.test(body):
            found = read_function("sql", body)

            assert found.is_complete
            assert found.linked[USER] == {Column("$1")}
            assert constants(found, ROLE) == ["admin"]


PLPGSQL = """
DECLARE found_role text; n int := 0;
BEGIN
  SELECT m.role INTO found_role FROM members m WHERE m.user_id = auth.user_id() AND m.org_id = org;
  n := n + 1;
  IF found_role = 'admin' THEN RETURN true; END IF;
  CASE n WHEN 7 THEN RETURN false; ELSE NULL; END CASE;
  RETURN EXISTS (SELECT FROM shares WHERE shared_with = auth.user_id());
END
"""


def test_a_body_of_plpgsql() -> None:
    found = read_function("plpgsql", PLPGSQL)

    assert found.is_complete
    assert found.relations == {("members",), ("shares",)}
    assert constants(found, ROLE) == ["admin"]
    assert "7" in constants(found, Column("n"))
    assert {USER, Column("shared_with")} <= found.linked[SUBJECT]


def test_a_body_of_plpgsql_is_read_for_each_kind_of_result(subtests: pytest.Subtests) -> None:
    for body in (
        "BEGIN RETURN QUERY SELECT 1 WHERE a = 'x'; END",
        "BEGIN IF a = 'x' THEN RETURN; END IF; END",
        "BEGIN NEW.a := 'x'; RETURN NEW; END",
        "BEGIN RETURN $body$ x $body$ = 'y' AND a = 'x'; END",
    ):
        with subtests.test(body):
            found = read_function("plpgsql", body)

            assert found.is_complete
            assert constants(found, Column("a")) == ["x"]


def test_dynamic_sql_is_incomplete(subtests: pytest.Subtests) -> None:
    for body in (
        "BEGIN EXECUTE 'SELECT 1'; RETURN true; END",
        "DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT 1' LOOP NULL; END LOOP; RETURN true; END",
        "BEGIN RETURN QUERY EXECUTE 'SELECT 1'; END",
    ):
        with subtests.test(body):
            found = read_function("plpgsql", body)
            assert not found.is_complete
            assert not found.is_readable
