"""Expressions and bodies that ask for the catalog, and those that don't."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from sqla_rls.analyze.vocabulary import read_expression, read_function
from sqla_rls.analyze.vocabulary.outside import asks_for_catalog

pytestmark = pytest.mark.one_postgres

ASKS = (
    "CAST(name AS regclass) IS NULL",
    "regrole 'alice' IS NULL",
    "names::pg_catalog.regclass[] IS NULL",
    'CAST(name AS "regclass") IS NULL',
    'name::U&"\\0072egclass" IS NULL',
    "name :: /* a comment */ regclass IS NULL",
    "name::public.kind_of_table IS NULL",
    "JSON_VALUE(doc, '$.a' RETURNING regclass) IS NULL",
    "EXISTS (SELECT FROM json_to_record(doc) AS d (a regclass))",
    "EXISTS (SELECT FROM ROWS FROM (json_to_record(doc) AS (a regclass)) AS d)",
    "has_table_privilege('t', 'SELECT')",
    "pg_catalog.\"has_any_column_privilege\"('t', 'SELECT')",
    "U&\"obj\\005fdescription\"(1, 'pg_class') = ''",
    "shobj_description(1, 'pg_database') = ''",
    "col_description(1, 1) = ''",
    "pg_get_userbyid(1) = 'a'",
    "pg_relation_size('t') > 0",
    "to_regclass(name) IS NULL",
    "regclass(name) IS NULL",
    "'a=r/a'::aclitem = acl",
    "aclcontains(acl, acl)",
    "makeaclitem(1, 1, 'SELECT', false) = a",
    "oidvectortypes(types) = ''",
    "to_tsvector('english', body) @@ words",
    'EXISTS (SELECT FROM pg_catalog."pg_roles")',
    "EXISTS (SELECT FROM information_schema . tables)",
    "EXISTS (WITH pg_roles AS (SELECT * FROM pg_roles) SELECT FROM pg_roles)",
    "information_schema._pg_truetypid(a, b) = 1",
    # In places that an earlier part of the expression decides.
    "jsonb_extract_path_text(doc, key, obj_description(1)) = ''",
    "(a, pg_get_userbyid(b)) IN (SELECT * FROM t)",
    "a = ALL (SELECT b FROM t ORDER BY pg_get_userbyid(b) LIMIT 1)",
)

ASKS_NOT = (
    "region = pg_catalog.lower(name)",
    "pg_note = 'pg_class'",
    "note = 'obj_description(1)'",
    "public.pg_thing(a)",
    "my_description(a) = ''",
    "auth.has_team_privilege(a)",
    "has_team_privilege(a)",
    "name::public.regclass IS NULL",
    'name::"REGCLASS" IS NULL',
    "name::public.region IS NULL",
    "EXISTS (SELECT FROM public.pg_notes)",
    "EXISTS (WITH pg_roles AS (SELECT 1) SELECT FROM pg_roles)",
    "EXISTS (WITH RECURSIVE pg_a AS (SELECT 1 UNION SELECT 2 FROM pg_a) SELECT FROM pg_a)",
    "pg_column_size(a) < 1000 AND pg_size_pretty(b) = ''",
    "pg_has_role('a', 'USAGE')",
    "current_setting(name) = ''",
)

BODIES_THAT_ASK = (
    ("sql", "SELECT $1::regclass::text"),
    ("sql", "BEGIN ATOMIC SELECT pg_get_userbyid(1); END"),
    ("plpgsql", "BEGIN RETURN a::regclass = b; END"),
    ("plpgsql", "DECLARE a regclass := 't'; BEGIN RETURN a::text = 't'; END"),
    ("plpgsql", "DECLARE a pg_catalog.regclass[]; BEGIN RETURN true; END"),
    ("plpgsql", "DECLARE a public.kind_of_table; BEGIN RETURN true; END"),
    ("plpgsql", "DECLARE a U&\"kind!005fof_table\" UESCAPE '!'; BEGIN RETURN true; END"),
    ("plpgsql", "BEGIN EXECUTE text; RETURN true; END"),
    # The argument isn't known, so that the parser refuses the body.
    ("plpgsql", "BEGIN given := 'a'; RETURN given = 'b'; END"),
    ("c", "a_function"),
)

BODIES_THAT_ASK_NOT = (
    ("sql", "SELECT my_description($1) = 'pg_class'"),
    ("plpgsql", "DECLARE a public.region; BEGIN a := lower('regclass'); RETURN a = 'b'; END"),
)

# The functions with arguments of the catalog, those of privileges and comments, the relations and the types.
OF_POSTGRES = (
    """
    SELECT DISTINCT p.proname FROM pg_proc AS p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace
           AND p.proname !~ '^(brin|gin)_|val$|^table_to_xml|^get_current_ts_config$|^pg_' AND EXISTS (
       SELECT FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) AS a (oid)
         JOIN pg_type AS t ON t.oid = a.oid
        WHERE t.typname ~ '^_?(reg|aclitem)')
    """,
    """
    SELECT DISTINCT p.proname FROM pg_proc AS p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^has_.*_privilege$|_description$'
    """,
    """
    SELECT c.relname FROM pg_class AS c
     WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v')
    """,
    "SELECT t.typname FROM pg_type AS t WHERE t.typname ~ '^(reg|aclitem)' AND t.oid < 16384",
)


def test_only_names_of_postgres_ask_for_the_catalog() -> None:
    types = {("public", "kind_of_table")}
    for sql in ASKS:
        assert asks_for_catalog(read_expression(sql), types), sql
    for sql in ASKS_NOT:
        assert not asks_for_catalog(read_expression(sql), types), sql
    for language, body in BODIES_THAT_ASK:
        assert asks_for_catalog(read_function(language, body), types), body
    for language, body in BODIES_THAT_ASK_NOT:
        assert not asks_for_catalog(read_function(language, body), types), body


@pytest.mark.exhaustive
def test_each_function_and_relation_that_takes_objects_of_the_catalog_asks_for_it(
    engine: Engine,
) -> None:
    with engine.connect() as connection:
        functions, described, relations, types = (connection.scalars(text(one)).all() for one in OF_POSTGRES)

    assert len(functions) > 50
    assert len(described) > 10
    assert len(relations) > 100
    assert len(types) > 11
    for name in (*functions, *described):
        assert asks_for_catalog(read_expression(f'"{name}"() IS NULL')), name
    for name in relations:
        assert asks_for_catalog(read_expression(f"EXISTS (SELECT FROM {name})")), name
    for name in types:
        assert asks_for_catalog(read_expression(f"name::{name} IS NULL")), name
