"""A function that a policy calls without its name, such as that of a domain's check, counts as part of it."""

from __future__ import annotations

import pytest

from tests.support.in_place import Databases, decided, run

IS_CODE = "FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS"
BOTH = f"CREATE {IS_CODE} 'SELECT $1 = $$code$$'; CREATE DOMAIN code AS text CHECK (is_code(VALUE));"
CHANGE = f"CREATE OR REPLACE {IS_CODE} 'SELECT true'"
CHANGED = "function public.is_code(text) changes"
_WRAPPED = f"""CREATE {IS_CODE} 'SELECT $1 = $$code$$'; CREATE TYPE wrapped AS (v text);
CREATE FUNCTION opened(wrapped) RETURNS text LANGUAGE sql IMMUTABLE AS
  'SELECT CASE WHEN public.is_code(($1).v) THEN ($1).v END';
CREATE CAST (wrapped AS text) WITH FUNCTION opened(wrapped)"""
_OPERATOR = f"""CREATE {IS_CODE} 'SELECT $1 = $$code$$';
CREATE FUNCTION is_same(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
  'SELECT $1 = $2 AND public.is_code($1)';
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = is_same);"""


def function(body: str, *, language: str = "sql", argument: str = "text") -> str:
    head = f"CREATE FUNCTION asked({argument}) RETURNS boolean LANGUAGE {language} IMMUTABLE"
    return f"{head} AS $asked${body}$asked$"


# What both sides have before the policy, the policy's condition, what changes, and why it isn't decided.
CASES: dict[str, tuple[str, str, str, str]] = {
    "a cast to a domain": (BOTH, "user_id::code IS NOT NULL", CHANGE, CHANGED),
    "a cast to a domain over the domain": (
        f"{BOTH} CREATE DOMAIN other_code AS code",
        "user_id::other_code IS NOT NULL",
        CHANGE,
        CHANGED,
    ),
    "a cast to an array": (BOTH, "ARRAY[user_id]::code[] IS NOT NULL", CHANGE, CHANGED),
    "a cast to a row": (
        f"{BOTH} CREATE TYPE pair AS (a code, b int)",
        "(ROW(user_id, id)::pair).a IS NOT NULL",
        CHANGE,
        CHANGED,
    ),
    "a function that the check's function calls": (
        f"""CREATE {IS_CODE} 'SELECT $1 = $$code$$';
        CREATE FUNCTION is_valid(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT public.is_code($1)';
        CREATE DOMAIN code AS text CHECK (is_valid(VALUE))""",
        "user_id::code IS NOT NULL",
        CHANGE,
        CHANGED,
    ),
    "a check that casts to another domain": (
        f"{BOTH} CREATE DOMAIN cast_ AS text CHECK (VALUE::code IS NOT NULL)",
        "user_id::cast_ IS NOT NULL",
        CHANGE,
        CHANGED,
    ),
    "a cast in a body": (
        f"{BOTH} {function('SELECT $1::public.code IS NOT NULL')}",
        "asked(user_id)",
        CHANGE,
        CHANGED,
    ),
    "a variable of a body": (
        f"{BOTH} {function('DECLARE a public.code := $1; BEGIN RETURN a <> $$x$$; END', language='plpgsql')}",
        "asked(user_id)",
        CHANGE,
        CHANGED,
    ),
    "an argument": (
        f"{BOTH} {function('SELECT $1 IS NOT NULL', argument='code')}",
        "asked(user_id)",
        CHANGE,
        CHANGED,
    ),
    "an operator in a body": (
        f"{_OPERATOR} {function('SELECT $1 OPERATOR(public.===) $$code$$')}",
        "asked(user_id)",
        CHANGE,
        CHANGED,
    ),
    "a cast by a function": (_WRAPPED, "ROW(user_id)::wrapped::text = 'code'", CHANGE, CHANGED),
    "a cast by a function in a body": (
        f"{_WRAPPED}; {function('SELECT ROW($1)::public.wrapped::text = $$code$$')}",
        "asked(user_id)",
        CHANGE,
        CHANGED,
    ),
    "a generated column": (
        f"""CREATE {IS_CODE} 'SELECT $1 = $$code$$';
        ALTER TABLE own ADD is_code boolean GENERATED ALWAYS AS (is_code(user_id)) STORED""",
        "is_code",
        CHANGE,
        CHANGED,
    ),
    "a domain": (
        BOTH,
        "user_id::code IS NOT NULL",
        "ALTER DOMAIN code ADD CHECK (VALUE <> 'a')",
        "type public.code changes",
    ),
    "a check of the table": (
        f"CREATE {IS_CODE} 'SELECT $1 = $$code$$'; ALTER TABLE own ADD CHECK (is_code(user_id))",
        "auth.user_id() = user_id",
        f"{CHANGE}; ALTER POLICY p ON own USING (auth.user_id() = user_id OR user_id = 'other')",
        CHANGED,
    ),
    "a check of the domain of a column": (
        f"{BOTH} ALTER TABLE own ADD code code",
        "auth.user_id() = user_id",
        f"{CHANGE}; ALTER POLICY p ON own USING (auth.user_id() = user_id OR code = 'other')",
        CHANGED,
    ),
    "a check that reads a table": (
        f"""{BOTH} CREATE FUNCTION is_org(text) RETURNS boolean LANGUAGE sql STABLE AS
          'SELECT EXISTS (SELECT FROM public.orgs WHERE id::text = $1)';
        ALTER DOMAIN code ADD CHECK (is_org(VALUE))""",
        "auth.user_id() = user_id",
        "ALTER POLICY p ON own USING (user_id::code IS NOT NULL)",
        "function public.is_org(text) reads public.orgs",
    ),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", CASES)
def test_what_a_policy_calls_without_its_name_counts(databases: Databases, name: str) -> None:
    both, condition, change, reason = CASES[name]
    both = f"{both}; ALTER POLICY p ON own USING ({condition})"
    run(databases.before, both)
    with databases.changed(f"{both}; {change}") as sides:
        found = decided(*sides)

        unknown = [one for one in found.unknown if (one.object, one.role) == ("public.own", "reader")]
        assert {one.command for one in unknown} == {"SELECT", "INSERT", "UPDATE", "DELETE"}
        assert {one.reason for one in unknown} == {reason}
        assert not [one for one in found.same if (one.object, one.role) == ("public.own", "reader")]


@pytest.mark.exhaustive
@pytest.mark.parametrize("condition", ["user_id::code = auth.user_id()", "asked(user_id)"])
def test_a_function_that_no_check_of_the_policy_calls_may_change(
    databases: Databases, condition: str
) -> None:
    both = f"""CREATE FUNCTION is_code(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE DOMAIN code AS text CHECK (is_code(VALUE));
    {function("SELECT $1::public.code IS NOT NULL")};
    CREATE FUNCTION is_other(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $$other$$';
    CREATE DOMAIN other_code AS text CHECK (is_other(VALUE));
    ALTER TABLE docs ADD other_code other_code;
    ALTER POLICY p ON own USING ({condition})"""
    change = f"""CREATE OR REPLACE FUNCTION is_other(text) RETURNS boolean LANGUAGE sql IMMUTABLE
      AS 'SELECT true';
    ALTER POLICY p ON own USING ({condition} OR user_id IS NULL)"""
    run(databases.before, both)
    with databases.changed(f"{both}; {change}") as sides:
        found = decided(*sides)

        assert not [one for one in found.unknown if one.object == "public.own"]
        assert [one for one in found.same if (one.object, one.role) == ("public.own", "reader")]
