"""The shapes of tables: those of the same shape are evaluated once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema


@dataclass(slots=True)
class Shape:
    """The part of a table that decides: tables with the same key have the same reach."""

    key: str
    relation: Relation
    policies: list[str]


@dataclass(eq=False)
class Shapes:
    """The shapes of the tables of a database."""

    database: Database

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def of(self, relation: Relation, role: str) -> Shape:
        """Return what decides which rows callers reach; tables with the same key are the same to them."""
        read = self.schema.reads(relation.name)
        others = sorted(read - {relation.name})
        core = self._core(relation)
        policies = sorted(
            self.database.policies_of(relation, role),
            key=lambda one: (one.command, one.permissive, one.using or "", one.check or "", one.name),
        )
        parts: list[Any] = [
            [
                (one.permissive, one.command, _nameless(one.using, relation), _nameless(one.check, relation))
                for one in policies
            ],
            list(core.columns.values()),
            [_nameless(one, relation) for one in core.checks],
            core.partition_check,
            core.keys,
            [(key.columns, key.target, key.target_columns) for key in core.foreign_keys],
            relation.row_security,
            relation.forced,
            others,
            sorted(self.schema.calls(relation.name)),
            [repr(replace(self.database.profiles_of(role)[one], role="")) for one in others],
            self.database.is_active(relation.name, role),
            relation.name if relation.children or relation.name in self._read_by_others else "",
            role if access_asks_for_role(self.schema, read) else "",
            self.database.is_anonymous(role),
        ]
        return Shape(repr(parts), core, [one.name for one in policies])

    @cached_property
    def _read_by_others(self) -> frozenset[str]:
        """The tables that others read: one of them may decide about a row of another."""
        return frozenset(
            edge.reads
            for source, edges in self.schema.edges.items()
            for edge in edges
            if edge.reads is not None and edge.reads != source
        )

    def _core(self, relation: Relation) -> Relation:
        """Return *relation* with the columns that decide, and those of its keys."""
        edges = [
            edge
            for edge in self.schema.edges.get(relation.name, ())
            if edge.reads == relation.name and edge.part in ("policy", "trigger", "constraint")
        ]
        is_whole = any(edge.column is None for edge in edges) or relation.children
        if is_whole or relation.name in self._read_by_others:
            return relation
        kept = {edge.column for edge in edges if edge.part != "constraint"}
        kept |= {name for key in relation.keys[:1] for name in key}
        for column in relation.columns.values():
            if column.name in kept and column.generated is not None:
                return relation
        if relation.checks or relation.partition_check:
            kept |= {edge.column for edge in edges}
        return replace(
            relation,
            columns={name: one for name, one in relation.columns.items() if name in kept},
            keys=tuple(key for key in relation.keys if set(key) <= kept),
            foreign_keys=tuple(key for key in relation.foreign_keys if set(key.columns) <= kept),
        )


def _nameless(sql: str | None, relation: Relation) -> str | None:
    """Return *sql* with a mark in the place of the table's own name."""
    if sql is None or relation.relname not in sql:
        return sql
    from pglast.parser import scan

    names = {relation.relname, '"' + relation.relname.replace('"', '""') + '"'}
    parts, position = [], 0
    for token in scan(sql):
        if sql[token.start : token.end + 1] in names:
            parts += [sql[position : token.start], "\0"]
            position = token.end + 1
    return "".join([*parts, sql[position:]])
