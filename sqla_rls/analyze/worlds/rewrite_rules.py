"""The rules of CREATE RULE: statements that run with the rights of the owner of their table or view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.acting import reach_of
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteRule:
    """A rule.

    Attributes:
        name: the name, quoted.
        relation: the table or view that has the rule.
        command: the command that runs the rule.
        definition: the statement that makes it.
        uses: the names of the relations that its actions read or write.
        only_inserts: whether its actions insert values, and neither read nor change a row of a table.
    """

    name: str
    relation: Relation
    command: str
    definition: str
    uses: frozenset[str]
    only_inserts: bool


def read_rules(connection: Connection, schema: Schema) -> list[RewriteRule]:
    """Return the rules of *schema*; with a search_path of pg_catalog, definitions have all names in full."""
    by_oid = {one.oid: one for one in schema.relations.values()}
    names: dict[tuple[str | None, str | None], str] = {
        (one.schema, one.relname): name for name, one in schema.relations.items()
    }
    found = []
    for row in connection.execute(query("rewrite_rules")).mappings():
        if row["oid"] not in by_oid:
            continue
        uses, others = set[str](), False
        for place, is_insert in _places(row["definition"]):
            others |= not is_insert
            if place in names:
                uses.add(names[place])
        found.append(
            RewriteRule(
                name=row["name"],
                relation=by_oid[row["oid"]],
                command=row["command"],
                definition=row["definition"],
                uses=frozenset(uses),
                only_inserts=not others,
            )
        )
    return found


def tables_past_policies(schema: Schema, rule: RewriteRule) -> Iterator[tuple[str, str]]:
    """Yield each table that *rule* uses, also through views, with the role whose rights it has there."""
    for name in sorted(rule.uses):
        if not schema.relations[name].is_view:
            yield name, rule.relation.owner
            continue
        for reached, role in sorted(reach_of(schema, name).relations):
            if not schema.relations[reached].is_view:
                yield reached, role


def _places(definition: str) -> Iterator[tuple[tuple[str | None, str | None], bool]]:
    """Yield the names in the actions of CREATE RULE, and whether the place is the target of an INSERT."""
    import pglast
    from pglast.ast import InsertStmt, Node, RangeVar

    def inside(node: Any, target: Any = None) -> Iterator[tuple[tuple[str | None, str | None], bool]]:
        if isinstance(node, tuple | list):
            for part in node:
                yield from inside(part, target)
        elif isinstance(node, RangeVar):
            yield (node.schemaname, node.relname), node is target
        elif isinstance(node, Node):
            is_plain = isinstance(node, InsertStmt) and node.onConflictClause is None
            inserted = node.relation if isinstance(node, InsertStmt) and is_plain else target
            for name in node:
                yield from inside(getattr(node, name), inserted)

    statement: Any = pglast.parse_sql(definition)[0].stmt
    yield from inside(statement.actions)
