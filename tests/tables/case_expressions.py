"""Expressions: USING of a policy, declared as SQLAlchemy has it and as text."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Integer,
    MetaData,
    String,
    Table,
    and_,
    any_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    tuple_,
)

from sqla_rls import Policy, auth, auth_uid, in_jwt_claim, jwt_claim, jwt_claim_contains
from tests.tables.cases import Case, Mood, Step, next_name


def expression(group: str, name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    """USING of a policy on the table that has a column of every type; what is declared may be a function of it."""
    policy = next_name("e")

    def step(declared: Any, sql: str) -> Step:
        def build(metadata: MetaData) -> None:
            made = metadata.tables["everything"]
            using: Any = declared(made) if callable(declared) else declared
            Policy(policy, using=using)._set_parent_with_dispatch(made)

        return Step(build, [f"CREATE POLICY {policy} ON everything USING ({sql}\n)"])

    return Case(
        group,
        name,
        (policy,),
        step(declared, sql),
        step(changed, changed_sql),
        Step(lambda metadata: None, []),
    )


def text(name: str, sql: str, changed: str) -> Case:
    """SQL text, declared as it would be written by hand."""
    return expression("SQL text", name, sql, sql, changed, changed)


def python(name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    return expression("SQLAlchemy expressions", name, declared, sql, changed, changed_sql)


def others(t: Table) -> Table:
    """What subqueries look into."""
    return t.metadata.tables["notes_of"]


def _recursive(t: Table, start: int) -> Any:
    tree = select(t.c.id, t.c.n).where(t.c.id == start).cte("tree", recursive=True, nesting=True)
    heir = t.alias("heir")
    tree = tree.union_all(select(heir.c.id, heir.c.n).where(heir.c.n == tree.c.id))
    return t.c.id.in_(select(tree.c.id))


TREE = (
    "id IN (WITH RECURSIVE tree(id, n) AS (SELECT everything.id AS id, everything.n AS n FROM everything WHERE everything.id = %s"
    " UNION ALL SELECT heir.id AS id, heir.n AS n FROM everything AS heir, tree WHERE heir.n = tree.id)"
    " SELECT tree.id FROM tree)"
)

MAY = (
    "(SELECT CASE jsonb_typeof(claims -> 'may') WHEN 'array' THEN claims -> 'may' @> '[\"%s\"]'::jsonb END"
    " FROM auth.jwt() AS claims)"
)
LISTED = (
    "%s = ANY (ARRAY(SELECT %s FROM auth.jwt() AS claims, jsonb_array_elements%s(CASE jsonb_typeof("
    "claims -> 'org' -> 'ids') WHEN 'array' THEN claims -> 'org' -> 'ids' ELSE '[null]' END) AS value))"
)
OF_NUMBERS = (
    "CASE WHEN value !~ '^(0|-?[1-9][0-9]{0,18})$' THEN NULL"
    " WHEN abs(value::numeric) <= 9223372036854775807 THEN value::bigint END"
)
OF_UUIDS = "CASE WHEN value ~ '^[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}$' THEN value::uuid END"

EXPRESSIONS = [
    python("=", lambda t: t.c.name == "x", "name = 'x'", lambda t: t.c.name == "y", "name = 'y'"),
    python(
        "only letter case",
        lambda t: t.c.name == "X",
        "name = 'X'",
        lambda t: t.c.name == "x",
        "name = 'x'",
    ),
    python(
        "IN on text",
        lambda t: t.c.name.in_(["a", "b"]),
        "name IN ('a', 'b')",
        lambda t: t.c.name.in_(["a"]),
        "name IN ('a')",
    ),
    python(
        "NOT IN on text",
        lambda t: t.c.name.not_in(["a", "b"]),
        "name NOT IN ('a', 'b')",
        lambda t: t.c.name.not_in(["a", "c"]),
        "name NOT IN ('a', 'c')",
    ),
    python(
        "IN on varchar",
        lambda t: t.c.code.in_(["a", "b"]),
        "code IN ('a', 'b')",
        lambda t: t.c.code.in_(["b", "a"]),
        "code IN ('b', 'a')",
    ),
    python(
        "NOT IN on varchar",
        lambda t: t.c.code.not_in(["a", "b"]),
        "code NOT IN ('a', 'b')",
        lambda t: t.c.code.in_(["a", "b"]),
        "code IN ('a', 'b')",
    ),
    python(
        "IN on int",
        lambda t: t.c.id.in_([1, 2, 3]),
        "id IN (1, 2, 3)",
        lambda t: t.c.id.in_([1, 2]),
        "id IN (1, 2)",
    ),
    python(
        "IN on bigint",
        lambda t: t.c.n.in_([1, 2**40]),
        "n IN (1, 1099511627776)",
        lambda t: t.c.n.not_in([1, 2**40]),
        "n NOT IN (1, 1099511627776)",
    ),
    python(
        "IN, empty",
        lambda t: t.c.id.in_([]),
        "id IN (NULL) AND (1 != 1)",
        lambda t: t.c.id.in_([1]),
        "id IN (1)",
    ),
    python(
        "= ANY",
        lambda t: t.c.name == any_(t.c.tags),
        "name = ANY (tags)",
        lambda t: literal("x") == any_(t.c.tags),
        "'x' = ANY (tags)",
    ),
    python(
        "enum =",
        lambda t: t.c.mood == Mood.ok,
        "mood = 'ok'",
        lambda t: t.c.mood.in_([Mood.ok, Mood.happy]),
        "mood IN ('ok', 'happy')",
    ),
    python(
        "only a cast",
        lambda t: cast(t.c.n, Integer) == 1,
        "CAST(n AS INTEGER) = 1",
        lambda t: t.c.n == 1,
        "n = 1",
    ),
    python(
        "CAST to varchar",
        lambda t: cast(t.c.n, String(5)) == "1",
        "n::varchar(5) = '1'",
        lambda t: cast(t.c.n, String(6)) == "1",
        "n::varchar(6) = '1'",
    ),
    python(
        "numeric",
        lambda t: t.c.amount > 1.50,
        "amount > 1.5",
        lambda t: t.c.amount >= 1.50,
        "amount >= 1.5",
    ),
    python(
        "now()",
        lambda t: t.c.at < func.now(),
        "at < now()",
        lambda t: t.c.at < func.now() - literal_column("interval '1 day'"),
        "at < now() - interval '1 day'",
    ),
    python(
        "AND, OR, NOT",
        lambda t: and_(or_(t.c.id > 1, t.c.id < 0), not_(t.c.name == "x")),
        "(id > 1 OR id < 0) AND name <> 'x'",
        lambda t: or_(t.c.id > 1, and_(t.c.id < 0, t.c.name != "x")),
        "id > 1 OR (id < 0 AND name <> 'x')",
    ),
    python(
        "CASE",
        lambda t: case((t.c.id > 1, t.c.name == "x"), else_=False),
        "CASE WHEN id > 1 THEN name = 'x' ELSE false END",
        lambda t: case((t.c.id > 1, t.c.name == "x"), else_=True),
        "CASE WHEN id > 1 THEN name = 'x' ELSE true END",
    ),
    python(
        "row comparison",
        lambda t: tuple_(t.c.id, t.c.n) == tuple_(1, 2),
        "(id, n) = (1, 2)",
        lambda t: tuple_(t.c.id, t.c.n).in_([(1, 2), (3, 4)]),
        "(id, n) IN ((1, 2), (3, 4))",
    ),
    python(
        "IS DISTINCT FROM",
        lambda t: t.c.name.is_distinct_from("x"),
        "name IS DISTINCT FROM 'x'",
        lambda t: t.c.name.is_not_distinct_from("x"),
        "name IS NOT DISTINCT FROM 'x'",
    ),
    python(
        "IS NULL",
        lambda t: t.c.name.is_(None),
        "name IS NULL",
        lambda t: t.c.name.is_not(None),
        "name IS NOT NULL",
    ),
    python(
        "COLLATE",
        lambda t: t.c.name.collate("C") < "x",
        "name COLLATE \"C\" < 'x'",
        lambda t: t.c.name.collate("POSIX") < "x",
        "name COLLATE \"POSIX\" < 'x'",
    ),
    python(
        "LIKE with % and :",
        lambda t: t.c.name.like("100%:x"),
        "name LIKE '100%:x'",
        lambda t: t.c.name.ilike("100%:x"),
        "name ILIKE '100%:x'",
    ),
    python(
        "LIKE … ESCAPE",
        lambda t: t.c.name.startswith("5%", autoescape=True),
        "name LIKE '5/%' || '%' ESCAPE '/'",
        lambda t: t.c.name.contains("5%", autoescape=True),
        "name LIKE '%' || '5/%' || '%' ESCAPE '/'",
    ),
    python(
        "a string with quotes, backslashes, $$",
        lambda t: t.c.name == 'it\'s "\\" $$ $sql$ {x} %s :y',
        "name = 'it''s \"\\\" $$ $sql$ {x} %s :y'",
        lambda t: t.c.name == 'it\'s "\\\\" $$',
        "name = 'it''s \"\\\\\" $$'",
    ),
    python(
        "a string with a line break",
        lambda t: t.c.name == "a\n-- b",
        "name = E'a\\n-- b'",
        lambda t: t.c.name == "a\n--b",
        "name = E'a\\n--b'",
    ),
    python(
        "a jsonb path",
        lambda t: t.c.data[("a", "b")].astext == "x",
        "data #>> '{a,b}' = 'x'",
        lambda t: t.c.data[("a", "b")].astext == "y",
        "data #>> '{a,b}' = 'y'",
    ),
    python(
        "jsonb operators",
        lambda t: t.c.data.has_key("a"),
        "data ? 'a'",
        lambda t: t.c.data.op("@>")(literal_column("'{\"a\": 1}'::jsonb")),
        "data @> '{\"a\": 1}'::jsonb",
    ),
    python(
        "array operators",
        lambda t: t.c.tags.contains(["a"]),
        "tags @> ARRAY['a']::text[]",
        lambda t: t.c.tags.overlap(["a"]),
        "tags && ARRAY['a']::text[]",
    ),
    python(
        "auth_uid() on text",
        lambda t: auth_uid(t.c.name),
        "(SELECT auth.user_id()) = name",
        lambda t: auth_uid(t.c.code),
        "(SELECT auth.user_id()) = code",
    ),
    python(
        "auth_uid() on bigint",
        lambda t: auth_uid(t.c.n),
        "(SELECT substring(auth.user_id() from '^(0|-?[1-9][0-9]{0,18})$')::bigint) = n",
        lambda t: auth_uid(t.c.id),
        "(SELECT substring(auth.user_id() from '^(0|-?[1-9][0-9]{0,18})$')::bigint) = id",
    ),
    python(
        "auth_uid() on uuid",
        lambda t: auth_uid(t.c.owner),
        "(SELECT auth.uid()) = owner",
        lambda t: t.c.owner != auth.uid(),
        "owner <> auth.uid()",
    ),
    python(
        "jwt_claim()",
        lambda t: jwt_claim("org", "role") == t.c.name,
        "(SELECT auth.jwt() -> 'org' ->> 'role') = name",
        lambda t: jwt_claim("org", "rôle") == t.c.name,
        "(SELECT auth.jwt() -> 'org' ->> 'rôle') = name",
    ),
    python(
        "jwt_claim_contains()",
        lambda t: jwt_claim_contains("may", value="rôle's"),
        MAY % "rôle''s",
        lambda t: ~jwt_claim_contains("may", value="rôle's"),
        f"NOT {MAY}" % "rôle''s",
    ),
    python(
        "in_jwt_claim() on text",
        lambda t: in_jwt_claim(t.c.name, "org", "ids"),
        LISTED % ("name", "CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END", ""),
        lambda t: in_jwt_claim(t.c.code, "org", "ids"),
        LISTED % ("code", "CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END", ""),
    ),
    python(
        "in_jwt_claim() on bigint and uuid",
        lambda t: in_jwt_claim(t.c.n, "org", "ids"),
        LISTED % ("n", OF_NUMBERS, "_text"),
        lambda t: ~in_jwt_claim(t.c.owner, "org", "ids"),
        f"NOT {LISTED}" % ("owner", OF_UUIDS, "_text"),
    ),
    python(
        "a correlated EXISTS",
        lambda t: exists().where(others(t).c.t_id == t.c.id),
        "EXISTS (SELECT 1 FROM notes_of WHERE notes_of.t_id = everything.id)",
        lambda t: ~exists().where(others(t).c.t_id == t.c.id),
        "NOT EXISTS (SELECT 1 FROM notes_of WHERE notes_of.t_id = everything.id)",
    ),
    python(
        "IN (SELECT …)",
        lambda t: t.c.id.in_(select(others(t).c.t_id)),
        "id IN (SELECT notes_of.t_id FROM notes_of)",
        lambda t: t.c.id.in_(select(others(t).c.id)),
        "id IN (SELECT notes_of.id FROM notes_of)",
    ),
    python(
        "= ANY (ARRAY(SELECT …))",
        lambda t: t.c.id == any_(func.array(select(others(t).c.t_id).scalar_subquery())),
        "id = ANY (ARRAY(SELECT notes_of.t_id FROM notes_of))",
        lambda t: t.c.id == any_(func.array(select(others(t).c.id).scalar_subquery())),
        "id = ANY (ARRAY(SELECT notes_of.id FROM notes_of))",
    ),
    python(
        "a scalar subquery",
        lambda t: (
            select(func.count()).select_from(others(t)).where(others(t).c.t_id == t.c.id).scalar_subquery()
            > 1
        ),
        "(SELECT count(*) AS count_1 FROM notes_of WHERE notes_of.t_id = everything.id) > 1",
        lambda t: select(func.count()).select_from(others(t)).scalar_subquery() > 1,
        "(SELECT count(*) AS count_1 FROM notes_of) > 1",
    ),
    python(
        "a self-reference",
        lambda t: exists().where(t.alias("o").c.n == t.c.id),
        "EXISTS (SELECT 1 FROM everything AS o WHERE o.n = everything.id)",
        lambda t: exists().where(t.alias("o").c.id == t.c.n),
        "EXISTS (SELECT 1 FROM everything AS o WHERE o.id = everything.n)",
    ),
    python("a recursive CTE", lambda t: _recursive(t, 1), TREE % 1, lambda t: _recursive(t, 2), TREE % 2),
    python("a boolean column", lambda t: t.c.flag, "flag", lambda t: ~t.c.flag, "NOT flag"),
    python("True and False", lambda t: True, "true", lambda t: False, "false"),
]

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
