"""Conditions in words: each spelling that Postgres prints."""

from __future__ import annotations

import pytest

from sqla_rls.analyze.matrix.words import ConditionWords
from sqla_rls.analyze.worlds.objects import Function

pytestmark = pytest.mark.one_postgres

COLUMNS = ("id", "org_id", "user_id", "team_id", "is_public", "published", "in_trash", "status", "tags")
ME = "( SELECT auth.user_id() AS user_id)"
SUB = "((current_setting('request.jwt.claims'::text, true))::json ->> 'sub'::text)"

WORDS: dict[str, tuple[str, str]] = {
    "own rows": (f"({ME} = user_id)", "own rows"),
    "own rows by a number": (
        (
            "(( SELECT (SUBSTRING(auth.user_id() FROM '^(0|-?[1-9][0-9]{0,18})$'::text))::bigint "
            'AS "substring") = user_id)'
        ),
        "own rows",
    ),
    "rows of a part of the caller": (
        "(( SELECT SUBSTRING(auth.user_id() FROM '^(..)'::text) AS \"substring\") = user_id)",
        (
            "rows where (SELECT pg_catalog.substring(auth.user_id(), CAST('^(..)' AS text)) AS substring) "
            "= user_id"
        ),
    ),
    "own rows by the claims": (f"(user_id = ({SUB}))", "own rows"),
    "own rows, and others": (f"((user_id = {ME}) OR published)", "own rows or published rows"),
    "own rows, some of them": (f"((user_id = {ME}) AND (NOT in_trash))", "own rows where not in_trash"),
    "a list with the caller": (f"({ME} = ANY (tags))", "rows with the caller in tags"),
    "organizations of the caller": (
        f"(org_id IN ( SELECT members.org_id FROM members WHERE (members.user_id = {ME})))",
        "rows of my organizations",
    ),
    "with a role": (
        (
            f"(org_id IN ( SELECT m.org_id FROM members m WHERE ((m.user_id = {ME}) "
            "AND (m.role = 'owner'::text))))"
        ),
        "rows of my organizations (where role is owner)",
    ),
    "by EXISTS": (
        f"(EXISTS ( SELECT 1 FROM members m WHERE ((m.team_id = docs.team_id) AND (m.user_id = {ME}))))",
        "rows of my teams",
    ),
    "a wrong correlation": (
        "(EXISTS ( SELECT 1 FROM members m WHERE ((m.team_id = m.team_id) AND (m.user_id = auth.uid()))))",
        (
            "rows where EXISTS (SELECT 1 FROM members AS m WHERE m.team_id = m.team_id "
            "AND m.user_id = auth.uid())"
        ),
    ),
    "no test of the caller": (
        "(org_id IN ( SELECT members.org_id FROM members))",
        "rows where org_id IN (SELECT members.org_id FROM members)",
    ),
    "the caller of the outer row": (
        (
            "(EXISTS ( SELECT 1 FROM members m WHERE ((m.team_id = docs.team_id) "
            "AND (docs.user_id = auth.uid()))))"
        ),
        (
            "rows where EXISTS (SELECT 1 FROM members AS m WHERE m.team_id = docs.team_id "
            "AND docs.user_id = auth.uid())"
        ),
    ),
    "a function of groups": (
        "(team_id = ANY (ARRAY( SELECT public.my_teams(VARIADIC ARRAY['owner'::text]) AS anon_1)))",
        "rows of my_teams('owner')",
    ),
    "a flag": ("(is_public IS TRUE)", "public rows"),
    "no flag": ("(NOT is_public)", "rows that aren't public"),
    "a status": ("(status = 'published'::text)", "rows with status published"),
    "a text that reads like a condition": (
        "(status = 'draft or all rows'::text)",
        'rows with status "draft or all rows"',
    ),
    "a claim of the caller": (
        "(( SELECT (auth.jwt() ->> 'role'::text)) = 'admin'::text)",
        "all rows if claim role is admin",
    ),
    "a claim in a column": (
        "((org_id)::text = ( SELECT (auth.jwt() ->> 'org_id'::text)))",
        "rows where org_id is claim org_id",
    ),
    "a setting": (
        "(org_id = (current_setting('app.org'::text, true))::bigint)",
        "rows where org_id is setting app.org",
    ),
    "any caller": (f"({ME} IS NOT NULL)", "all rows if there is a caller"),
    "a comparison": ("(id > 3)", "rows where id is more than 3"),
    "ANY by another operator": (
        f"(id <= ANY ( SELECT m.id FROM members m WHERE (m.user_id = {ME})))",
        (
            "rows where id <= ANY (SELECT m.id FROM members AS m "
            "WHERE m.user_id = (SELECT auth.user_id() AS user_id))"
        ),
    ),
    "ANY by =": (
        f"(id = ANY ( SELECT m.org_id FROM members m WHERE (m.user_id = {ME})))",
        "rows of my organizations",
    ),
    "a flag or NULL": ("(is_public IS NOT FALSE)", "public rows or rows where is_public is empty"),
    "no flag or NULL": ("(in_trash IS NOT TRUE)", "rows without in_trash or rows where in_trash is empty"),
    "a flag that is never NULL": ("(published IS NOT FALSE)", "published rows"),
    "a condition or NULL": (
        "((status = 'x'::text) IS NOT FALSE)",
        "rows where status = CAST('x' AS text) IS NOT FALSE",
    ),
    "another status or NULL": (
        "(status IS DISTINCT FROM 'draft'::text)",
        "rows where status isn't draft or rows where status is empty",
    ),
    "the caller or both NULL": (
        "(user_id IS NOT DISTINCT FROM auth.uid())",
        "rows where user_id IS NOT DISTINCT FROM auth.uid()",
    ),
    "the caller in a column that is never NULL": ("(team_id IS NOT DISTINCT FROM auth.uid())", "own rows"),
    "a value that NULLIF leaves out": (
        "(NULLIF(status, 'x'::text) = 'x'::text)",
        "rows where NULLIF(status, CAST('x' AS text)) = CAST('x' AS text)",
    ),
    "a constant that a cast cuts": (
        "((status)::text = ('secrets'::text)::character varying(6))",
        "rows where CAST(status AS text) = CAST(CAST('secrets' AS text) AS varchar(6))",
    ),
    "an operator of an extension": (
        "(user_id OPERATOR(public.=) auth.uid())",
        "rows where user_id OPERATOR(public.=) auth.uid()",
    ),
    "organizations past the first one": (
        f"(org_id IN ( SELECT m.org_id FROM members m WHERE (m.user_id = {ME}) OFFSET 1))",
        (
            "rows where org_id IN (SELECT m.org_id FROM members AS m "
            "WHERE m.user_id = (SELECT auth.user_id() AS user_id) OFFSET 1)"
        ),
    ),
    "a function of groups, on a condition": (
        "(team_id IN ( SELECT public.my_teams() AS my_teams WHERE false))",
        "rows where team_id IN (SELECT public.my_teams() AS my_teams WHERE FALSE)",
    ),
    "SQL without words": ("((id % (2)::bigint) = 0)", "rows where id % CAST(2 AS bigint) = 0"),
    "SQL that no parser knows": ("(id FROBS 3)", "rows where (id FROBS 3)"),
}


def test_a_condition_has_words(subtests: pytest.Subtests) -> None:
    for name, (expression, expected) in WORDS.items():
        with subtests.test(name):
            words = ConditionWords(COLUMNS, {}, required=("published", "team_id"))
            assert words.of([expression]) == expected


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (f'((user_id)::"char" = ({ME})::"char")', """rows where CAST(user_id AS "char") = CAST"""),
        (f'(user_id = ({ME})::"char")', "rows where user_id = CAST("),
        ("((status)::name = ('a'::text)::name)", "rows where CAST(status AS name) = "),
        ("((id)::real = (1)::real)", "rows where CAST(id AS real) = "),
        ("((id)::integer = 1)", "rows where CAST(id AS integer) = 1"),
        (
            "(EXISTS (SELECT FROM ms m WHERE m.user_id = auth.user_id() AND m.id::bool = docs.id::bool))",
            "rows where EXISTS ",
        ),
        # These casts leave each value apart from the others.
        ("((status)::text = 'a'::text)", "rows with status a"),
        (f"(user_id = ({ME})::bigint)", "own rows"),
    ],
)
def test_a_cast_that_joins_values_stays_in_the_words(expression: str, expected: str) -> None:
    assert ConditionWords(COLUMNS, {}).of([expression]).startswith(expected)


def test_restrictive_policies_follow_the_others() -> None:
    words = ConditionWords(COLUMNS, {}, required=("published", "team_id")).of(
        [f"(user_id = {ME})", "is_public"], ["(NOT in_trash)"]
    )
    assert words == "(own rows or public rows) where not in_trash"


def test_two_columns_of_owners_are_named() -> None:
    words = ConditionWords(COLUMNS, {}, names_owner=True)
    assert words.of([f"(user_id = {ME})"]) == "own rows (user_id)"


def test_a_function_stands_for_its_value() -> None:
    function = Function(
        signature="me()", schema="app", name="me", language="sql", body=f"SELECT {SUB}", is_bound=False,
        owner="app", definition="",
    )  # fmt: skip
    assert ConditionWords(COLUMNS, {"me()": function}).of(["(user_id = app.me())"]) == "own rows"
    other = Function(
        signature="me()", schema="app", name="me", language="plpgsql", body="BEGIN END", is_bound=False,
        owner="app", definition="",
    )  # fmt: skip
    assert (
        ConditionWords(COLUMNS, {"me()": other}).of(["(user_id = app.me())"]) == "rows where user_id is me()"
    )
