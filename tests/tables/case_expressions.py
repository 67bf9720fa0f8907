"""Expressions: USING of a policy, declared as SQLAlchemy expressions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Integer,
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

from sqla_rls import auth, auth_uid, in_jwt_claim, jwt_claim, jwt_claim_contains
from tests.tables.cases import Case, Mood, expression


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
