"""A subquery of a policy compares a column with itself, or with the wrong column of the row.

In `EXISTS (SELECT FROM members m WHERE m.org_id = org_id)`, a bare `org_id` is the column of members: a name
without a table means the innermost table that has it. The condition is true for each membership, and one
membership anywhere opens each row. A key compared with the key of another table, as in `m.org_id = docs.id`,
opens the rows whose numbers happen to be equal.

The catalog has each name with its table, as Postgres understood it; foreign keys say which columns hold
which key. Small worlds add a row that the caller reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from sqla_rls.analyze.in_place.splice import parsed
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.reach import Reach, Reaches
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import Relation

_Name: TypeAlias = tuple[str | None, str | None]


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (EXISTS (
          SELECT FROM members AS m WHERE m.org_id = org_id AND m.user_id = (SELECT auth.user_id())));
        GRANT SELECT ON docs, members TO authenticated;
    """,
    clean="""
        CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
        CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY team ON docs FOR SELECT TO authenticated USING (EXISTS (
          SELECT FROM members AS m WHERE m.org_id = docs.org_id AND m.user_id = (SELECT auth.user_id())));
        GRANT SELECT ON docs, members TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    # Plain names, as the tree has them.
    relations: dict[_Name, Relation] = {
        (one.schema, one.relname): one for one in database.schema.relations.values()
    }
    for table in database.tables:
        for policy in table.policies:
            for side, sql in (("using", policy.using), ("check", policy.check)):
                if sql is not None and parsed(sql).relations and _tree(sql) is None:
                    reason = f"the parser doesn't know the syntax of policy {policy.name}"
                    database.note_unknown(table.name, reason)
                for reason, fix in [] if sql is None else _wrong(relations, table, sql):
                    yield Finding(
                        object=table.name,
                        kind="table",
                        policy=policy.name,
                        text=f"Policy {policy.name} on {table.name} {reason}.",
                        evidence=[
                            *_example(database, table, policy.name, side),
                            Evidence(kind="catalog", text=f"the policy is {sql}", data={"expression": sql}),
                        ],
                        remedy=Remedy(
                            sql=f"ALTER POLICY … ON {table.name} USING (… {fix} …);",
                            python="member_of(…)",
                            text="Name the table of each column inside of a subquery.",
                        ),
                    )


def _wrong(relations: Mapping[_Name, Relation], table: Relation, sql: str) -> Iterator[tuple[str, str]]:
    """Yield a reason and a better condition for each comparison that can't be meant."""
    for left, right in _comparisons(table, sql):
        (one, a), (other, b) = left, right
        if one.relname is None or other.relname is None:
            continue
        inner, outer = (left, right) if other.relname == table.relname else (right, left)
        if (one.alias, a) == (other.alias, b):
            column = a if a in table.columns else "…"
            yield f"compares {one.alias}.{a} with itself", f"{one.alias}.{a} = {table.relname}.{column}"
            continue
        source = relations.get(inner[0].name)
        if outer[0].name != (table.schema, table.relname) or source is None or source.name == table.name:
            continue
        targets = {key.target for key in source.foreign_keys if inner[1] in key.columns}
        own = {key.target for key in table.foreign_keys if outer[1] in key.columns}
        better = [
            key.columns[0]
            for key in table.foreign_keys
            if len(key.columns) == 1 and key.target in targets and key.target != table.name
        ]
        is_other_key = (not own and (outer[1],) in table.keys) or (bool(own) and targets.isdisjoint(own))
        if better and is_other_key and table.name not in targets:
            wanted = f"{inner[0].alias}.{inner[1]} = {table.relname}.{better[0]}"
            yield f"compares {inner[0].alias}.{inner[1]} with the key {table.relname}.{outer[1]}", wanted


@cache
def _tree(sql: str) -> Any:
    """Return the tree of *sql*; None if the parser doesn't know its syntax."""
    import pglast

    try:
        return pglast.parse_sql(f"SELECT {sql}")[0].stmt
    except pglast.parser.ParseError:
        return None


class _Source:
    """A table of FROM; the alias by which columns name it."""

    def __init__(self, alias: str, schema: str | None, relname: str | None) -> None:
        self.alias, self.schema, self.relname = alias, schema, relname

    @property
    def name(self) -> _Name:
        return self.schema, self.relname


def _comparisons(table: Relation, sql: str) -> Iterator[tuple[tuple[_Source, str], tuple[_Source, str]]]:
    """Yield the columns on both sides of each ``=`` inside of a subquery."""
    tree = _tree(sql) if parsed(sql).relations else None
    top = {table.relname: _Source(table.relname, table.schema, table.relname)}
    yield from _inside(tree, top, in_subquery=False)


def _inside(
    node: Any, scope: Mapping[str, _Source], *, in_subquery: bool
) -> Iterator[tuple[tuple[_Source, str], tuple[_Source, str]]]:
    if isinstance(node, tuple | list):
        for each in node:
            yield from _inside(each, scope, in_subquery=in_subquery)
        return
    if not hasattr(node, "__slots__") or isinstance(node, str | int | float):
        return
    kind = type(node).__name__
    if kind == "SubLink":
        yield from _inside(node.testexpr, scope, in_subquery=in_subquery)
        yield from _inside(node.subselect, scope, in_subquery=True)
        return
    if kind == "SelectStmt" and node.fromClause:
        scope = {**scope, **{one.alias: one for each in node.fromClause for one in _sources(each)}}
    if kind == "A_Expr" and in_subquery and node.name and node.name[-1].sval == "=":
        left, right = _column(node.lexpr, scope), _column(node.rexpr, scope)
        if left is not None and right is not None:
            yield left, right
    for name in node.__slots__:
        child = getattr(node, name)
        if child is not None:
            yield from _inside(child, scope, in_subquery=in_subquery)


def _sources(node: Any) -> Iterator[_Source]:
    kind = type(node).__name__
    if kind == "RangeVar":
        alias = node.alias.aliasname if node.alias is not None else node.relname
        yield _Source(alias, node.schemaname, node.relname)
    elif kind == "JoinExpr":
        yield from _sources(node.larg)
        yield from _sources(node.rarg)
    elif getattr(node, "alias", None) is not None:
        yield _Source(node.alias.aliasname, None, None)


def _column(node: Any, scope: Mapping[str, _Source]) -> tuple[_Source, str] | None:
    if type(node).__name__ != "ColumnRef" or len(node.fields) < 2:
        return None
    names = [getattr(one, "sval", None) for one in node.fields]
    source = scope.get(str(names[-2]))
    return None if source is None or names[-1] is None else (source, names[-1])


def _example(database: Database, table: Relation, policy: str, side: str) -> Iterator[Evidence]:
    for role in database.roles_with_privileges(table.name):
        if (
            not database.is_active(table.name, role)
            or policy not in database.profiles[table.name, role].policies
        ):
            continue
        reach = Reaches.of(database).of_table(table.name, role)
        if reach is not None:
            yield from _reached(reach, policy, side)
            return


def _reached(reach: Reach, policy: str, side: str) -> Iterator[Evidence]:
    key = (policy, side)
    if key in reach.answers:
        for case in reach.cases(reach.identified):
            if case.world.rows and reach.is_true(key, case):
                yield reach.evidence(case, "{who} reaches {row}")
                return
