"""Expressions: USING of a policy, declared as SQL text."""

from __future__ import annotations

from tests.tables.cases import Case, expression


def text(name: str, sql: str, changed: str) -> Case:
    """SQL text, declared as it would be written by hand."""
    return expression("SQL text", name, sql, sql, changed, changed)


TEXTS = [
    text("only parentheses moved", "(id > 1 OR id < 0) AND name = 'x'", "id > 1 OR (id < 0 AND name = 'x')"),
    text(
        "redundant parentheses, spaces, case of keywords",
        "((id)  =  ((1))) aNd (NOT (name = 'x'))",
        "((id) = ((1)))",
    ),
    text("comments", "id = 1 -- and no more", "id = 2 /* now */"),
    text("a quoted string in dollars", "name = $$it's$$", "name = $x$it's $$ $x$"),
    text("E'…' and U&'…'", "name = E'\\\\ \\x41'", "name = U&'d\\0061t'"),
    text("boolean literals", "true", "'f'"),
    text("'yes' is true", "'yes'", "NULL"),
    text(
        "numeric constants",
        "amount > 1e3 AND ratio < .5",
        "amount > 1000.0 AND ratio < .5",
    ),
    text(
        "a double that prints short",
        "ratio = 0.1 + 0.2::float8",
        "ratio = 0.30000000000000004::float8",
    ),
    text(
        "timestamps",
        "at > '2020-01-01' AND local < '2020-01-01 10:00'",
        "at > '2020-01-01 00:00:01' AND local < '2020-01-01 10:00'",
    ),
    text("a timestamp with its zone", "at > '2020-01-01 00:00+02'", "at > '2020-01-01 00:00+03'"),
    text(
        "AT TIME ZONE",
        "at AT TIME ZONE 'Europe/Rome' > local",
        "at AT TIME ZONE 'Europe/Paris' > local",
    ),
    text("dates", "day BETWEEN '2020-01-01' AND CURRENT_DATE", "day BETWEEN '2020-01-01' AND 'infinity'"),
    text(
        "intervals",
        "lasts > '1 day 02:03' AND at > now() - interval '1 month'",
        "lasts > '1 day 02:04' AND at > now() - interval '1 month'",
    ),
    text("EXTRACT", "extract(hour FROM at) < 12", "extract(day FROM at) < 12"),
    text("ranges", "period @> now()", "NOT period @> now()"),
    text("inet", "address << '10.0.0.0/8'", "address <<= '10.0.0.0/8'"),
    text("bytea", "raw = '\\x00ff'", "raw = '\\x00fe'"),
    text("ALL and ANY of constants", "id <> ALL (ARRAY[1, 2])", "id <> ALL (ARRAY[1, 2, 3])"),
    text("ANY of an array literal", "name = ANY ('{a,b}')", "name = ANY ('{a,c}'::text[])"),
    text(
        "ARRAY(SELECT …)",
        "id = ANY (ARRAY(SELECT t_id FROM notes_of))",
        "id = ANY (ARRAY(SELECT id FROM notes_of))",
    ),
    text(
        "array subscripts and slices",
        "tags[1] = 'x' AND tags[1:2] <> '{}'",
        "tags[2] = 'x' AND tags[1:2] <> '{}'",
    ),
    text(
        "jsonb paths",
        "data #>> '{a,b}' = 'x' AND data ? 'a'",
        "data #>> '{a,c}' = 'x' AND data ? 'a'",
    ),
    text("jsonpath", "data @? '$.a[*] ? (@ > 1)'", "data @? '$.a[*] ? (@ > 2)'"),
    text("jsonb subscripts", "data['a'] = '1'", "data['b'] = '1'"),
    text(
        "current_setting() with casts",
        "current_setting('app.n', true)::int = id",
        "current_setting('app.n')::int = id",
    ),
    text(
        "nullif, coalesce, greatest", "coalesce(nullif(name, ''), code) = 'x'", "greatest(name, code) = 'x'"
    ),
    text("a cast of a cast", "id::text::varchar = 'x'", "id::varchar = 'x'"),
    text(
        "LIKE, SIMILAR TO, ~",
        "name LIKE 'a%' OR name SIMILAR TO '(a|b)%' OR name ~ '^a'",
        "name LIKE 'a%' OR name SIMILAR TO '(a|b)%' OR name ~* '^a'",
    ),
    text("COLLATE", "name COLLATE \"C\" > 'a'", "name > 'a' COLLATE \"C\""),
    text("BETWEEN SYMMETRIC", "id BETWEEN SYMMETRIC 1 AND n", "id NOT BETWEEN SYMMETRIC 1 AND n"),
    text(
        "OVERLAPS",
        "(at, at) OVERLAPS (now(), interval '1 day')",
        "(at, at) OVERLAPS (now(), interval '2 days')",
    ),
    text("IS TRUE, IS UNKNOWN", "(id = 1) IS TRUE", "(id = 1) IS NOT UNKNOWN"),
    text("row comparison", "(id, n) < (1, 2)", "ROW(id, n) = ROW(1, 2)"),
    text("the whole row", "everything IS NOT NULL", "to_jsonb(everything) ? 'x'"),
    text("a field of the whole row", "(everything).id = 1", "(everything.*) IS DISTINCT FROM NULL"),
    text("system columns", "tableoid = 'everything'::regclass AND xmin IS NOT NULL", "ctid IS NOT NULL"),
    text("a qualified column", "everything.id = 1", "public.everything.id = 2"),
    text(
        "regclass and other reg types",
        "name <> 'notes_of'::regclass::text",
        "name <> 'now()'::regprocedure::text",
    ),
    text("current_user", "name = current_user", "name = session_user"),
    text(
        "has_table_privilege()",
        "has_table_privilege('notes_of', 'SELECT')",
        "has_table_privilege('notes_of', 'UPDATE')",
    ),
    text("pg_has_role()", "pg_has_role('cases_reader', 'MEMBER')", "pg_has_role('cases_reader', 'USAGE')"),
    text("functions in other schemas", "elsewhere.known(name)", '"Else Where".known(name)'),
    text(
        "named, default and variadic arguments",
        "make_interval(days => id) > '0' AND jsonb_extract_path_text(data, VARIADIC ARRAY['a']) = 'x'",
        "make_interval(weeks => id) > '0' AND jsonb_extract_path_text(data, VARIADIC ARRAY['a']) = 'x'",
    ),
    text("an operator with its schema", "id OPERATOR(pg_catalog.=) 1", "id OPERATOR(pg_catalog.<>) 1"),
    text("(SELECT f())", "(SELECT auth.user_id()) = name", "(SELECT auth.user_id()) <> name"),
    text("a bare function", "auth.user_id() = name", "name = auth.user_id()"),
    text(
        "a correlated EXISTS",
        "EXISTS (SELECT FROM notes_of AS o WHERE o.t_id = everything.id)",
        "EXISTS (SELECT FROM notes_of AS o WHERE o.id = everything.id)",
    ),
    text(
        "an inner column that hides the outer",
        "EXISTS (SELECT FROM notes_of WHERE t_id = id)",
        "EXISTS (SELECT FROM notes_of WHERE t_id = everything.id)",
    ),
    text(
        "IN (SELECT …), NOT IN",
        "id IN (SELECT t_id FROM notes_of)",
        "id NOT IN (SELECT t_id FROM notes_of WHERE t_id IS NOT NULL)",
    ),
    text(
        "a join in a subquery",
        "EXISTS (SELECT FROM notes_of AS a JOIN notes_of AS b USING (t_id) LEFT JOIN everything AS o ON o.id = a.id)",
        "EXISTS (SELECT FROM notes_of AS a JOIN notes_of AS b USING (id))",
    ),
    text(
        "GROUP BY, HAVING, ORDER BY, LIMIT",
        "id = (SELECT t_id FROM notes_of GROUP BY t_id HAVING count(*) > 1 ORDER BY 1 LIMIT 1)",
        "id = (SELECT t_id FROM notes_of GROUP BY t_id HAVING count(*) > 1 ORDER BY 1 DESC LIMIT 1)",
    ),
    text(
        "UNION, VALUES, LATERAL",
        "id IN (SELECT t_id FROM notes_of UNION VALUES (1) )",
        "id IN (SELECT x.a FROM notes_of AS o, LATERAL (VALUES (o.t_id)) AS x(a))",
    ),
    text(
        "a CTE",
        "id IN (WITH w AS (SELECT t_id FROM notes_of) SELECT t_id FROM w)",
        "id IN (WITH w AS MATERIALIZED (SELECT t_id FROM notes_of) SELECT t_id FROM w)",
    ),
    text(
        "window functions, FILTER, DISTINCT",
        "id IN (SELECT row_number() OVER (PARTITION BY t_id ORDER BY id) FROM notes_of)",
        "id IN (SELECT DISTINCT count(*) FILTER (WHERE id > 1) FROM notes_of)",
    ),
    text(
        "set-returning functions in FROM",
        "id IN (SELECT g FROM generate_series(1, 3) AS g)",
        "id IN (SELECT o FROM unnest(ARRAY[7, 8]) WITH ORDINALITY AS u(v, o))",
    ),
    text(
        "jsonb_to_record",
        "name IN (SELECT r.a FROM jsonb_to_record(auth.session()) AS r(a text))",
        "name IN (SELECT r.b FROM jsonb_to_record(auth.session()) AS r(b text))",
    ),
    text("a label inside a subquery", "EXISTS (SELECT 1 AS one)", "EXISTS (SELECT 1 AS one WHERE false)"),
    text(
        "a self-reference",
        "EXISTS (SELECT FROM everything AS o WHERE o.n = everything.id)",
        "EXISTS (SELECT FROM everything AS o WHERE o.id = everything.n)",
    ),
    text(
        "xml and text search",
        "to_tsvector('english', name) @@ to_tsquery('english', 'a & b')",
        "to_tsvector('simple', name) @@ to_tsquery('simple', 'a & b')",
    ),
]
