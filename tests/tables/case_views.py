"""Views: queries, options, grants, and what happens in one revision to what they read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    case,
    cast,
    exists,
    func,
    select,
    text,
    true,
    union_all,
)

from sqla_rls import grant, sql_function, view
from tests.tables.cases import READER, WRITER, Build, Case, Step, next_name, table

INVOKER = "CREATE VIEW {view} WITH (security_invoker = true) AS "


def declaration(name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    """The arguments of a view but for its name, made of the tables, and the statements that do the same."""
    relation = next_name("v")

    def step(declared: Any, sql: str) -> Step:
        def build(metadata: MetaData) -> None:
            arguments = declared(metadata.tables["everything"])
            query, *grants = arguments if isinstance(arguments, tuple) else (arguments,)
            options = grants.pop() if grants and isinstance(grants[-1], dict) else {}
            view(relation, metadata, query, *grants, **options)

        return Step(build, [one.replace("{view}", relation) for one in sql.split(" ;; ")])

    return Case(
        "Views",
        name,
        (relation,),
        step(declared, sql),
        step(changed, changed_sql),
        Step(lambda metadata: None, []),
        grants=True,
    )


def query(name: str, declared: Any, sql: str, changed: Any, changed_sql: str) -> Case:
    return declaration(name, declared, f"{INVOKER}{sql}", changed, f"{INVOKER}{changed_sql}")


def sql(name: str, declared: str, changed: str) -> Case:
    return query(name, lambda t: declared, declared, lambda t: changed, changed)


def _cte(t: Table, n: int) -> Any:
    newest = select(t.c.id).order_by(t.c.id.desc()).limit(n).cte("newest")
    return select(newest.c.id)


def _self_join(t: Table, condition: Any) -> Any:
    other = t.alias("other")
    return select(t.c.id, other.c.id.label("its")).join(other, condition(t, other))


def _lateral(t: Table, condition: Any) -> Any:
    newest = select(t.metadata.tables["notes_of"].c.id).where(condition(t)).lateral("newest")
    return select(t.c.id, newest.c.id.label("note")).join(newest, true())


def _of_reader(t: Table) -> Any:
    return select(t.c.id, t.c.name)


OF_READER = f"{INVOKER}SELECT id, name FROM everything"

QUERIES = [
    query(
        "a condition",
        lambda t: select(t.c.id, t.c.name).where(t.c.n.in_([1, 2])),
        "SELECT id, name FROM everything WHERE n IN (1, 2)",
        lambda t: select(t.c.id, t.c.name).where(t.c.n.in_([1, 3])),
        "SELECT id, name FROM everything WHERE n IN (1, 3)",
    ),
    query(
        "lists of varchar",
        lambda t: select(t.c.id).where(t.c.code.in_(["a", "b"]), t.c.code.not_in(["c", "d"])),
        "SELECT id FROM everything WHERE code IN ('a', 'b') AND code NOT IN ('c', 'd')",
        lambda t: select(t.c.id).where(t.c.code.in_(["a", "b"]), t.c.code.not_in(["c", "e"])),
        "SELECT id FROM everything WHERE code IN ('a', 'b') AND code NOT IN ('c', 'e')",
    ),
    query(
        "columns, computed and named",
        lambda t: select((t.c.n + 1).label("next"), func.upper(t.c.name).label("Upper Case")),
        'SELECT n + 1 AS next, upper(name) AS "Upper Case" FROM everything',
        lambda t: select((t.c.n + 1).label("next"), func.lower(t.c.name).label("Upper Case")),
        'SELECT n + 1 AS next, lower(name) AS "Upper Case" FROM everything',
    ),
    query(
        "another column at the end",
        lambda t: select(t.c.id),
        "SELECT id FROM everything",
        lambda t: select(t.c.id, t.c.name),
        "SELECT id, name FROM everything",
    ),
    query(
        "columns in another order",
        lambda t: select(t.c.id, t.c.name),
        "SELECT id, name FROM everything",
        lambda t: select(t.c.name, t.c.id),
        "SELECT name, id FROM everything",
    ),
    query(
        "a column of another type",
        lambda t: select(t.c.id, cast(t.c.name, String(5)).label("name")),
        "SELECT id, name::varchar(5) AS name FROM everything",
        lambda t: select(t.c.id, cast(t.c.name, String(6)).label("name")),
        "SELECT id, name::varchar(6) AS name FROM everything",
    ),
    query(
        "a column with another collation",
        lambda t: select(t.c.name.collate("C").label("name")),
        'SELECT name COLLATE "C" AS name FROM everything',
        lambda t: select(t.c.name.collate("POSIX").label("name")),
        'SELECT name COLLATE "POSIX" AS name FROM everything',
    ),
    query(
        "groups",
        lambda t: select(t.c.name, func.count().label("n")).group_by(t.c.name).having(func.count() > 1),
        "SELECT name, count(*) AS n FROM everything GROUP BY name HAVING count(*) > 1",
        lambda t: select(t.c.name, func.count().label("n")).group_by(t.c.name).having(func.count() > 2),
        "SELECT name, count(*) AS n FROM everything GROUP BY name HAVING count(*) > 2",
    ),
    query(
        "a window",
        lambda t: select(t.c.id, func.rank().over(partition_by=t.c.name, order_by=t.c.n).label("r")),
        "SELECT id, rank() OVER (PARTITION BY name ORDER BY n) AS r FROM everything",
        lambda t: select(t.c.id, func.rank().over(partition_by=t.c.name, order_by=t.c.n.desc()).label("r")),
        "SELECT id, rank() OVER (PARTITION BY name ORDER BY n DESC) AS r FROM everything",
    ),
    query(
        "a table joined with itself",
        lambda t: _self_join(t, lambda t, other: t.c.n == other.c.n),
        "SELECT everything.id, other.id AS its FROM everything JOIN everything AS other ON everything.n = other.n",
        lambda t: _self_join(t, lambda t, other: t.c.n > other.c.n),
        "SELECT everything.id, other.id AS its FROM everything JOIN everything AS other ON everything.n > other.n",
    ),
    query(
        "EXISTS",
        lambda t: select(t.c.id).where(exists().where(t.metadata.tables["notes_of"].c.t_id == t.c.id)),
        "SELECT id FROM everything WHERE EXISTS (SELECT 1 FROM notes_of WHERE t_id = everything.id)",
        lambda t: select(t.c.id).where(~exists().where(t.metadata.tables["notes_of"].c.t_id == t.c.id)),
        "SELECT id FROM everything WHERE NOT EXISTS (SELECT 1 FROM notes_of WHERE t_id = everything.id)",
    ),
    query(
        "a CTE",
        lambda t: _cte(t, 5),
        "WITH newest AS (SELECT id FROM everything ORDER BY id DESC LIMIT 5) SELECT id FROM newest",
        lambda t: _cte(t, 6),
        "WITH newest AS (SELECT id FROM everything ORDER BY id DESC LIMIT 6) SELECT id FROM newest",
    ),
    query(
        "LATERAL",
        lambda t: _lateral(t, lambda t: t.metadata.tables["notes_of"].c.t_id == t.c.id),
        "SELECT everything.id, newest.id AS note FROM everything"
        " JOIN LATERAL (SELECT notes_of.id FROM notes_of WHERE notes_of.t_id = everything.id) AS newest ON true",
        lambda t: _lateral(t, lambda t: t.metadata.tables["notes_of"].c.t_id > t.c.id),
        "SELECT everything.id, newest.id AS note FROM everything"
        " JOIN LATERAL (SELECT notes_of.id FROM notes_of WHERE notes_of.t_id > everything.id) AS newest ON true",
    ),
    query(
        "UNION",
        lambda t: union_all(select(t.c.id), select(t.metadata.tables["notes_of"].c.t_id)),
        "SELECT id FROM everything UNION ALL SELECT t_id FROM notes_of",
        lambda t: select(t.c.id).union(select(t.metadata.tables["notes_of"].c.t_id)),
        "SELECT id FROM everything UNION SELECT t_id FROM notes_of",
    ),
    query(
        "strings",
        lambda t: select(t.c.id).where(t.c.name.like("it's 100% :done \\ $$ {brace} %s %(x)s")),
        "SELECT id FROM everything WHERE name LIKE 'it''s 100% :done \\ $$ {brace} %s %(x)s'",
        lambda t: select(t.c.id).where(t.c.name.contains("_%", autoescape=True)),
        "SELECT id FROM everything WHERE name LIKE '%' || '/_/%' || '%' ESCAPE '/'",
    ),
    query(
        "CASE",
        lambda t: select(case((t.c.flag, "yes"), else_="no").label("said")),
        "SELECT CASE WHEN flag THEN 'yes' ELSE 'no' END AS said FROM everything",
        lambda t: select(case((t.c.flag, "yes"), else_="nay").label("said")),
        "SELECT CASE WHEN flag THEN 'yes' ELSE 'nay' END AS said FROM everything",
    ),
    query(
        "text() with columns",
        lambda t: text("SELECT id, name AS what FROM everything WHERE id::text <> ''").columns(
            id=Integer, what=Text
        ),
        "SELECT id, name AS what FROM everything WHERE id::text <> ''",
        lambda t: text("SELECT id, name AS what FROM everything WHERE id::text <> 'x'").columns(
            id=Integer, what=Text
        ),
        "SELECT id, name AS what FROM everything WHERE id::text <> 'x'",
    ),
    sql(
        "text with a comment, and a semicolon",
        "SELECT id, name FROM everything WHERE name <> ':x' -- as they write it",
        " SELECT id, name FROM everything WHERE name <> '%s'; ",
    ),
    sql(
        "times, with and without zone",
        "SELECT id FROM everything WHERE at > '2024-01-31 12:00+02' AND local < '2024-02-01' AND lasts > '1 day'",
        "SELECT id FROM everything WHERE at > '2024-01-31 12:00+03' AND local < '2024-02-01' AND lasts > '1 day'",
    ),
    sql(
        "whole row and system columns",
        "SELECT t AS whole, t.tableoid, t.xmin::text FROM everything AS t",
        "SELECT t AS whole, t.tableoid, t.xmax::text FROM everything AS t",
    ),
    sql("VALUES", "VALUES (1, 'a'), (2, 'b')", "VALUES (1, 'a'), (2, 'c')"),
    sql(
        "recursion",
        "WITH RECURSIVE r (n) AS (SELECT 1 UNION SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
        "WITH RECURSIVE r (n) AS (SELECT 1 UNION SELECT n + 1 FROM r WHERE n < 6) SELECT n FROM r",
    ),
    sql("no columns", "SELECT FROM everything", "SELECT FROM everything WHERE flag"),
]

OPTIONS = [
    declaration(
        "security_barrier",
        lambda t: (_of_reader(t), {"security_barrier": True}),
        OF_READER.replace("true)", "true, security_barrier = true)"),
        _of_reader,
        OF_READER,
    ),
    declaration(
        "check_option",
        lambda t: (_of_reader(t), {"check_option": "local"}),
        OF_READER.replace("true)", "true, check_option = local)"),
        lambda t: (_of_reader(t), {"check_option": "cascaded", "security_barrier": True}),
        OF_READER.replace("true)", "true, security_barrier = true, check_option = cascaded)"),
    ),
    declaration(
        "security_invoker, by an explicit word without it",
        lambda t: (_of_reader(t), {"security_invoker": False}),
        OF_READER.replace("WITH (security_invoker = true) ", ""),
        _of_reader,
        OF_READER,
    ),
    declaration(
        "grants",
        lambda t: (_of_reader(t), grant("SELECT", "INSERT", to=READER)),
        f"{OF_READER} ;; GRANT SELECT, INSERT ON {{view}} TO {READER}",
        lambda t: (_of_reader(t), grant("SELECT", to=WRITER, grant_option=True)),
        f'{OF_READER} ;; GRANT SELECT ON {{view}} TO "{WRITER.replace(chr(34), chr(34) * 2)}" WITH GRANT OPTION',
    ),
    declaration(
        "grants on columns",
        lambda t: (_of_reader(t), grant("SELECT", columns=["id"], to=READER), grant("UPDATE", to="PUBLIC")),
        f"{OF_READER} ;; GRANT SELECT (id) ON {{view}} TO {READER} ;; GRANT UPDATE ON {{view}} TO PUBLIC",
        lambda t: (
            select(t.c.id, t.c.code),
            grant("SELECT", columns=[t.c.id, t.c.code], to=READER),
            {"schema": "public"},
        ),
        f"{INVOKER}SELECT id, code FROM everything ;; GRANT SELECT (id, code) ON {{view}} TO {READER}",
    ),
]


def in_one_revision(name: str, marks: tuple[str, ...], *steps: tuple[Build, list[str]]) -> Case:
    created, changed, removed = (Step(*step) for step in steps)
    return Case("Views, in one revision", name, marks, created, changed, removed, grants=True)


#: What a table has that keeps its policy, which implies no privilege.
CLOSED = (
    "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY stays ON {table} FOR SELECT USING (false)",
)


def of_table(
    relation: str, sql: str, *, by_hand: tuple[str, ...] = CLOSED, grants: bool = True, **columns: Any
) -> tuple[Build, list[str]]:
    """A table that only the owner may read, and a view of it by SQL text."""

    def build(metadata: MetaData) -> None:
        table(metadata, relation, *(Column(name, type_) for name, type_ in columns.items()))
        granted = [grant("SELECT", to=READER)] if grants else []
        view(f"{relation}_view", metadata, sql, *granted)

    made = f"CREATE VIEW {relation}_view WITH (security_invoker = true) AS {sql}"
    granted = [f"GRANT SELECT ON {relation}_view TO {READER}"] if grants else []
    return build, [one.replace("{table}", relation) for one in by_hand] + [made, *granted]


def twofold(metadata: MetaData, columns: Any, schema: str) -> None:
    """A view, and one in another schema that reads it, and one that reads both."""
    lower = view("lower_view", metadata, columns(metadata.tables["everything"]))
    upper = view("upper view", metadata, select(lower), grant("SELECT", to=READER), schema=schema)
    view("top_view", metadata, select(lower.c.id).join(upper, lower.c.id == upper.c.id))


def twofold_sql(columns: str, schema: str) -> list[str]:
    upper = f'"{schema}"."upper view"'
    return [
        f"{INVOKER}SELECT {columns} FROM everything".replace("{view}", "lower_view"),
        f"{INVOKER}SELECT {columns} FROM lower_view".replace("{view}", upper),
        f"GRANT SELECT ON {upper} TO {READER}",
        f"{INVOKER}SELECT lower_view.id FROM lower_view JOIN {upper} ON lower_view.id = {upper}.id".replace(
            "{view}", "top_view"
        ),
    ]


def calling(arguments: str) -> Build:
    def build(metadata: MetaData) -> None:
        sql_function(
            "view_calls", metadata, arguments=arguments, returns="boolean", body="SELECT true", to=READER
        )
        t = metadata.tables["everything"]
        view("calling_view", metadata, select(t.c.id).where(func.view_calls(t.c.id)))

    return build


def calling_sql(arguments: str) -> list[str]:
    return [
        f"CREATE FUNCTION view_calls({arguments}) RETURNS boolean LANGUAGE sql RETURN true",
        "REVOKE EXECUTE ON FUNCTION view_calls FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION view_calls TO {READER}",
        f"{INVOKER}SELECT id FROM everything WHERE view_calls(id)".replace("{view}", "calling_view"),
    ]


VIEWS = [
    *QUERIES,
    *OPTIONS,
    in_one_revision(
        "a table and its view are made, and then dropped",
        ("made_and_gone",),
        of_table("made_and_gone", "SELECT id FROM made_and_gone"),
        (lambda metadata: None, []),
        of_table("made_and_gone", "SELECT id AS again FROM made_and_gone", grants=False),
    ),
    in_one_revision(
        "a new column is read, and dropped",
        ("view_column",),
        of_table("view_column", "SELECT id FROM view_column"),
        of_table("view_column", "SELECT id, owner FROM view_column", owner=Text),
        of_table("view_column", "SELECT id FROM view_column"),
    ),
    in_one_revision(
        "a column that is read is retyped",
        ("view_retyped",),
        *(
            of_table("view_retyped", "SELECT owner FROM view_retyped", owner=type_)
            for type_ in (String(20), String(30), Text())
        ),
    ),
    in_one_revision(
        "views that read each other change",
        ("lower_view", "upper view", "top_view"),
        (
            lambda metadata: twofold(metadata, lambda t: select(t.c.id), "elsewhere"),
            twofold_sql("id", "elsewhere"),
        ),
        (
            lambda metadata: twofold(metadata, lambda t: select(t.c.id, t.c.name), "elsewhere"),
            twofold_sql("id, name", "elsewhere"),
        ),
        (
            lambda metadata: twofold(metadata, lambda t: select(t.c.name, t.c.id), "Else Where"),
            twofold_sql("name, id", "Else Where"),
        ),
    ),
    in_one_revision(
        "a function that is called takes other arguments",
        ("calling_view", "view_calls"),
        (calling("who integer"), calling_sql("who integer")),
        (
            calling("who integer, other text DEFAULT ''"),
            calling_sql("who integer, other text DEFAULT ''"),
        ),
        (lambda metadata: None, []),
    ),
]
