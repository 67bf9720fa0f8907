"""Faster forms of expressions: candidates, which Postgres measures and compares."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.plans.forms import command_of, compared, faster_forms, is_read_only, with_condition

TYPES = {"owner": "uuid", "org_id": "integer", "email": "text"}
FORMS = {
    "( SELECT (auth.user_id() = owner))": {"function_per_row": "(SELECT auth.user_id()) = owner"},
    "(( SELECT auth.user_id() AS user_id) = owner)": {},
    "((owner = auth.uid()) OR is_public)": {"function_per_row": "owner = (SELECT auth.uid()) OR is_public"},
    "(owner = public.me())": {},
    "(org_id IN ( SELECT m.org_id FROM public.members m))": {
        "slow_membership": "org_id = ANY(ARRAY(SELECT m.org_id FROM public.members AS m))"
    },
    "(EXISTS ( SELECT 1 FROM public.members m WHERE ((m.org_id = docs.org_id) AND m.accepted)))": {
        "slow_membership": (
            "docs.org_id = ANY(ARRAY(SELECT m.org_id FROM public.members AS m WHERE m.accepted))"
        )
    },
    "(EXISTS ( SELECT 1 FROM public.members m WHERE (m.org_id > docs.org_id)))": {},
    "(( SELECT auth.uid() AS uid) IN ( SELECT m.user_id FROM teams.m m WHERE (m.org_id = docs.org_id)))": {
        "slow_membership": (
            "docs.org_id = ANY(ARRAY(SELECT m.org_id FROM teams.m AS m "
            "WHERE m.user_id = (SELECT auth.uid() AS uid)))"
        )
    },
    "((owner)::text = 'x'::text)": {"column_in_expression": "owner = CAST(CAST('x' AS text) AS uuid)"},
    "((owner)::text = ANY (ARRAY( SELECT m.user_id FROM teams.m m)))": {
        "column_in_expression": "owner = ANY(CAST(ARRAY(SELECT m.user_id FROM teams.m AS m) AS uuid[]))"
    },
    "syntax of a later server !!! (": {},
}


def test_each_expression_has_its_faster_forms(subtests: pytest.Subtests) -> None:
    for expression, forms in FORMS.items():
        with subtests.test(expression):
            assert dict(faster_forms(expression, "docs", TYPES, {"me"})) == forms


def test_the_sides_of_comparisons_are_columns_and_expressions_of_their_tables() -> None:
    expression = (
        "((lower(email) = 'x'::text) AND (org_id IN ( SELECT m.org_id FROM teams.members m "
        "WHERE (m.user_id = auth.user_id()))))"
    )
    found = [
        (one.schema, one.table, one.expression, one.column) for one in compared(expression, "app", "docs")
    ]
    assert found == [
        ("app", "docs", "lower(email)", None),
        ("app", "docs", "org_id", "org_id"),
        ("teams", "members", "user_id", "user_id"),
    ]


def test_a_statement_that_may_write_is_known() -> None:
    assert is_read_only("SELECT 1") is True
    assert is_read_only("SELECT 1 FROM t FOR UPDATE") is False
    assert is_read_only("SELECT 1 INTO t") is False
    assert is_read_only("WITH d AS (DELETE FROM t RETURNING 1) SELECT * FROM d") is False
    assert is_read_only("SELECT 1; SELECT 2") is False
    assert is_read_only("SELECT !!! (") is None


def test_the_command_of_a_statement_is_known() -> None:
    commands = [command_of(f"{one} t") for one in ("TABLE", "UPDATE t SET a = 1 FROM", "DELETE FROM", "!")]
    assert commands == ["SELECT", "UPDATE", "DELETE", "SELECT"]


def test_a_condition_is_added_to_a_where() -> None:
    assert with_condition("SELECT * FROM t LIMIT 1", "a = 1") == "SELECT * FROM t WHERE a = 1 LIMIT 1"
    assert with_condition("DELETE FROM t WHERE b OR c", "a") == "DELETE FROM t WHERE (b OR c) AND a"
    assert with_condition("SELECT 1 UNION SELECT 2", "a") is None
    assert with_condition("SELECT * FROM t", "a; DROP TABLE t") is None
