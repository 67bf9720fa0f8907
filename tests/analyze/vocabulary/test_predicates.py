"""The terms and constants of predicates, as Postgres prints them."""

from __future__ import annotations

import sys

import pytest

from sqla_rls.analyze.vocabulary import (
    Claim,
    Column,
    Constant,
    Reference,
    Setting,
    Term,
    read_expression,
    read_function,
)
from sqla_rls.exc import AnalysisError
from tests.analyze.vocabulary.terms import BODY, ORG, ROLE, SUBJECT, USER, constants

pytestmark = pytest.mark.one_postgres

# The predicate as pg_get_expr() prints it, and its terms with the constants that they are compared with.
PREDICATES: dict[str, tuple[str, dict[Term, list[Constant]]]] = {
    "an IN list": (
        "((m.role)::text = ANY ((ARRAY['owner'::character varying, 'admin'::character varying])::text[]))",
        {ROLE: [Constant("text", "owner"), Constant("text", "admin")]},
    ),
    "labels of an enum": (
        "(status = ANY (ARRAY['happy'::public.mood, 'it''s'::public.mood]))",
        {Column("status"): [Constant("text", "happy"), Constant("text", "it's")]},
    ),
    "numbers": (
        "((price >= 1.5) AND (price <= ('-3'::integer)::numeric) AND (org_id = (1)::bigint))",
        {
            Column("price"): [Constant("number", "1.5"), Constant("number", "-3")],
            ORG: [Constant("number", "1")],
        },
    ),
    "spellings of numbers": (
        "(price = .5 OR price = 1_000 OR price = 0x1F OR price = '07'::numeric OR price = ' 8 '::numeric)",
        {Column("price"): [Constant("number", value) for value in ("0.5", "1000", "31", "7", "8")]},
    ),
    "texts that are no number": (
        f"(price IN ('NaN'::numeric, '-Infinity'::numeric, {'9' * 400}) OR org_id = length(''::text)::int)",
        {
            Column("price"): [Constant("text", value) for value in ("NaN", "-Infinity", "9" * 400)],
            ORG: [Constant("text", "")],
        },
    ),
    "a cast column": ("((org_id)::text = '5'::text)", {ORG: [Constant("text", "5")]}),
    "times": (
        "((at > (now() - '7 days'::interval)) AND (day < '2024-01-01'::date))",
        {
            Column("at"): [Constant("interval", "7 days")],
            Column("day"): [Constant("timestamp", "2024-01-01")],
        },
    ),
    "CASE with an operand": (
        "CASE status WHEN 'happy'::text THEN true WHEN 'sad'::text THEN (org_id = 4) ELSE false END",
        {
            Column("status"): [Constant("text", "happy"), Constant("text", "sad")],
            ORG: [Constant("number", "4")],
        },
    ),
    "CASE without an operand": (
        "CASE WHEN (org_id > 3) THEN (kind = 'a'::bpchar) ELSE (user_id IS DISTINCT FROM 'bob'::text) END",
        {
            ORG: [Constant("number", "3")],
            Column("kind"): [Constant("text", "a")],
            USER: [Constant("text", "bob")],
        },
    ),
    "functions of a column": (
        "((lower(user_id) = lower('Bob'::text)) AND (COALESCE(body, 'none'::text) <> 'secret'::text))",
        {USER: [Constant("text", "Bob")], BODY: [Constant("text", "none"), Constant("text", "secret")]},
    ),
    "patterns": (
        "((\"Qu ote\" ~~ 'a%'::text) AND (body ~ '^b$'::text))",
        {
            Column("Qu ote"): [Constant("text", "a%")],
            BODY: [Constant("text", "^b$"), Constant("text", "b")],
        },
    ),
    "an array column": (
        "((tags @> ARRAY['a'::text]) OR ('x'::text = ANY (tags)) OR (tags && '{b,\"c d\",NULL}'::text[]))",
        {Column("tags"): [Constant("text", each) for each in ("a", "x", "b", "c d")]},
    ),
    "a column of JSON": (
        "(((data ->> 'visibility'::text) = 'all'::text) AND (data @> '{\"a\": 1}'::jsonb))",
        {
            Column("data", ("visibility",)): [Constant("text", "all")],
            Column("data"): [Constant("other", '{"visibility": "all"}'), Constant("other", '{"a": 1}')],
        },
    ),
    "a claim": (
        "(( SELECT ((auth.jwt() -> 'app_metadata'::text) ->> 'role'::text)) = 'admin'::text)",
        {Claim(("app_metadata", "role")): [Constant("text", "admin")]},
    ),
    "a list in a claim": (
        "((auth.session() -> 'roles'::text) ? 'editor'::text)",
        {Claim(("roles",)): [Constant("text", "editor")]},
    ),
    "a claim by its path": (
        "((auth.jwt() #>> '{app_metadata,role}'::text[]) = 'x'::text)",
        {Claim(("app_metadata", "role")): [Constant("text", "x")]},
    ),
    "a claim that is a switch": (
        "(((current_setting('request.jwt.claims'::text, true))::json ->> 'is_admin'::text))::boolean",
        {Claim(("is_admin",)): [Constant("boolean", "true"), Constant("boolean", "false")]},
    ),
    "all claims": (
        '(auth.jwt() @> \'{"app": {"role": "admin", "level": 3}}\'::jsonb)',
        {
            Claim(("app", "role")): [Constant("text", "admin")],
            Claim(("app", "level")): [Constant("number", "3")],
        },
    ),
    "a setting": (
        "((current_setting('app.tenant'::text, true))::integer = 7)",
        {Setting("app.tenant"): [Constant("number", "7")]},
    ),
    "rows in an array": (
        "((org_id, user_id) = ANY (ARRAY[ROW(3, 'bob'::text)]))",
        {ORG: [Constant("number", "3")], USER: [Constant("text", "bob")]},
    ),
    "rows in a list": (
        "((org_id, user_id) IN ((3, 'bob'::text), (4, 'eve'::text)))",
        {
            ORG: [Constant("number", "3"), Constant("number", "4")],
            USER: [Constant("text", "bob"), Constant("text", "eve")],
        },
    ),
}


def test_a_constant_belongs_to_the_term_that_it_is_compared_with(subtests: pytest.Subtests) -> None:
    for name, (predicate, expected) in PREDICATES.items():
        with subtests.test(name):
            found = read_expression(predicate)

            assert found.is_complete
            assert {term: list(each) for term, each in found.constants.items()} == expected


def test_an_argument_of_a_function_may_be_compared_with_any_column() -> None:
    found = read_expression("(org_id = ANY (ARRAY( SELECT public.my_teams('owner'::text) AS my_teams)))")
    assert found.loose == (Constant("text", "owner"),)


# Each spelling of a condition that compares user_id with the subject, or a claim with org_id.
LINKS: dict[str, tuple[str, Term, Term]] = {
    "in a subquery": ("(( SELECT auth.user_id() AS user_id) = user_id)", USER, SUBJECT),
    "as a uuid": ("(owner = ( SELECT auth.uid() AS uid))", Column("owner"), SUBJECT),
    "of the claims": (
        "(((current_setting('request.jwt.claims'::text, true))::json ->> 'sub'::text) = user_id)",
        USER,
        SUBJECT,
    ),
    "nullif() around the claims": (
        (
            "(((NULLIF(current_setting('request.jwt.claims'::text, true), ''::text))::jsonb ->> 'sub'::text) "
            "= user_id)"
        ),
        USER,
        SUBJECT,
    ),
    "of one setting": ("(current_setting('request.jwt.claim.sub'::text, true) = user_id)", USER, SUBJECT),
    "member_of": (
        (
            "(org_id = ANY (ARRAY( SELECT members.group_id FROM public.members "
            "WHERE (( SELECT auth.user_id() AS user_id) = members.user_id))))"
        ),
        ORG,
        Column("group_id"),
    ),
    "EXISTS": (
        (
            "(EXISTS ( SELECT FROM public.members m WHERE ((m.group_id = docs.org_id) AND (m.user_id = "
            "( SELECT auth.user_id() AS user_id)))))"
        ),
        ORG,
        Column("group_id"),
    ),
    "IN": ("(org_id IN ( SELECT m.group_id FROM public.members m))", ORG, Column("group_id")),
    "pairs": ("((org_id, x) IN ( SELECT m.group_id, m.y FROM public.members m))", ORG, Column("group_id")),
    "the names of a subquery": (
        "(org_id IN ( SELECT s.g FROM ( SELECT m.group_id AS g FROM public.members m) s))",
        ORG,
        Column("group_id"),
    ),
    "a claim": ("(((auth.session() ->> 'org_id'::text))::integer = org_id)", ORG, Claim(("org_id",))),
    "the path of a claim": (
        "(jsonb_extract_path_text(auth.session(), VARIADIC ARRAY['a'::text, 'b'::text]) = body)",
        BODY,
        Claim(("a", "b")),
    ),
    "a list in a claim": (
        (
            "(org_id = ANY (ARRAY( SELECT (jsonb_array_elements_text((auth.session() -> 'ids'::text)))"
            "::integer AS jsonb_array_elements_text)))"
        ),
        ORG,
        Claim(("ids",)),
    ),
    "a list in FROM": (
        (
            "(EXISTS ( SELECT FROM jsonb_array_elements_text((auth.jwt() -> 'ids'::text)) o(value) "
            "WHERE (o.value = (docs.org_id)::text)))"
        ),
        ORG,
        Claim(("ids",)),
    ),
    "a list that contains": ("((auth.session() -> 'ids'::text) @> to_jsonb(org_id))", ORG, Claim(("ids",))),
    "a setting": ("((current_setting('app.org'::text, true))::int = org_id)", ORG, Setting("app.org")),
    "JSON of a column": (
        "((data ->> 'owner'::text) = ( SELECT auth.user_id() AS user_id))",
        Column("data", ("owner",)),
        SUBJECT,
    ),
    "a function of both": ("(lower(user_id) = lower(auth.user_id()))", USER, SUBJECT),
}


def test_terms_are_linked_if_they_are_compared(subtests: pytest.Subtests) -> None:
    for name, (predicate, one, other) in LINKS.items():
        with subtests.test(name):
            found = read_expression(predicate)

            assert found.is_complete
            assert other in found.linked[one]
            assert one in found.linked[other]


def test_constants_hold_for_the_terms_that_are_compared() -> None:
    found = read_expression(
        "((org_id = 3) AND (EXISTS ( SELECT FROM public.members m WHERE (m.group_id = docs.org_id))))"
    )

    assert constants(found, Column("group_id")) == constants(found, ORG) == ["3"]


def test_constants_of_no_term_are_loose() -> None:
    found = read_expression(
        "((( SELECT count(*) AS count FROM public.members) > 3) AND public.has_role(org_id, 'admin'::text) "
        "AND (CURRENT_USER = 'bob'::name))"
    )

    assert found.loose == (Constant("number", "3"), Constant("text", "admin"), Constant("text", "bob"))
    assert found.constants == {}


def test_the_arguments_of_functions_have_their_terms() -> None:
    found = read_expression("((lower(\"left\"(user_id, 3)) = lower(auth.user_id())) AND (body = 'x'::text))")

    assert found.arguments == {"left": {USER}, "lower": {USER, SUBJECT}}


def test_constants_from_which_a_term_differs_are_excluded() -> None:
    found = read_expression(
        "((role <> ALL (ARRAY['guest'::text, 'bot'::text])) AND (body !~~ 'x%'::text) AND (org_id = 1))"
    )

    assert found.excluded == {
        ROLE: {Constant("text", "guest"), Constant("text", "bot")},
        BODY: {Constant("text", "x%")},
    }


def test_names_relations_functions_claims_and_settings() -> None:
    found = read_expression(
        "((current_setting('app.tenant'::text, true) = ((auth.jwt() -> 'a'::text) ->> 'b'::text)) AND "
        '(EXISTS ( WITH c AS ( SELECT FROM "Odd".members) SELECT FROM c)) AND (auth.user_id() IS NOT NULL))'
    )

    assert found.claims == (("a", "b"),)
    assert found.settings == ("app.tenant",)
    assert found.relations == {("Odd", "members")}
    assert found.functions == {("current_setting",), ("auth", "jwt"), ("auth", "user_id")}
    assert {"Odd", "members", "user_id", "auth"} <= found.names


def test_a_setting_with_a_name_of_run_time_is_incomplete() -> None:
    assert not read_expression("(current_setting(body) = 'x'::text)").is_complete


def test_vocabularies_add_up() -> None:
    one = read_expression("((org_id = group_id) AND (role = 'a'::text))")
    other = read_expression("((group_id = 3) AND (role = 'b'::text) AND f(x, 'loose'::text))")

    both = one.merged(other, read_function("c", "x"))

    assert constants(both, ORG) == ["3"]
    assert constants(both, ROLE) == ["a", "b"]
    assert both.loose == (Constant("text", "loose"),)
    assert both.names >= one.names | other.names
    assert not both.is_complete


def test_without_the_parser_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pglast", None)

    with pytest.raises(AnalysisError, match=r"pip install 'sqla-rls\[analyze\]'"):
        # Expressions that were read before need no parser.
        read_expression("'no other test reads this' IS NULL")


@pytest.mark.exhaustive
def test_a_cte_of_the_name_of_a_table_still_reads_it() -> None:
    found = read_expression("EXISTS (WITH members AS (SELECT * FROM members) SELECT FROM members)")

    assert found.relations == {("members",)}


@pytest.mark.parametrize(
    ("sql", "pairs"),
    [
        pytest.param(
            "(EXISTS ( SELECT 1 FROM public.projects p WHERE ((p.id = tasks.project_id) AND "
            "(p.org_id IN ( SELECT m.org_id FROM public.members m WHERE (m.user_id = auth.uid()))))))",
            [("public.projects.id", "tasks.project_id"), ("public.projects.org_id", "public.members.org_id")],
            id="aliases",
        ),
        pytest.param(
            "(org_id IN ( SELECT m.org_id FROM (public.members m JOIN public.orgs USING (org_id))))",
            [("public.members.org_id", "public.orgs.org_id"), ("org_id", "public.members.org_id")],
            id="the row in question, and USING",
        ),
        pytest.param(
            "(EXISTS ( SELECT 1 FROM ( SELECT m.org_id AS id FROM public.members m) mine "
            "WHERE (mine.id = docs.org_id)))",
            [("id", "public.members.org_id"), ("id", "docs.org_id")],
            id="a subquery in FROM",
        ),
    ],
)
def test_columns_that_are_compared_keep_their_relations(sql: str, pairs: list[tuple[str, str]]) -> None:
    def name(reference: Reference) -> str:
        return ".".join((*(reference.relations[0] if reference.relations else ()), reference.name))

    assert [(name(one), name(other)) for one, other in read_expression(sql).joins] == pairs
