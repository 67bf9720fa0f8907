"""Finds the intent for a command of a role, and what the worlds need so that it can be told from others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, Final

from sqlalchemy import MetaData, Table

from sqla_rls.analyze.intent import Intent, Test, intents
from sqla_rls.analyze.prove.declared import Declared, NotDerivable, declared_intent, declared_tables
from sqla_rls.analyze.prove.proof import Source
from sqla_rls.analyze.prove.worlds import NotedClaims, NotedRow, Tables, as_row, caller_of, constants_of
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.vocabulary import Constant, Vocabulary, read_expression
from sqla_rls.analyze.why.explanation import COMMANDS, Command, Part
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import PUBLIC, Edge, Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.declare.base import kept_on
from sqla_rls.declare.collect import declared
from sqla_rls.declare.views import declared_views
from sqla_rls.snapshot import PUBLIC as DECLARED_PUBLIC
from sqla_rls.snapshot import Role
from sqla_rls.tokens.caller import Caller

#: The most worlds in which a test is watched.
_WATCHED: Final = 60


@dataclass(frozen=True, slots=True)
class Decision:
    """The intent for a command of a role; *new* is for the row after UPDATE."""

    test: Test
    new: Test
    source: Source
    #: Whether a role that may do less is a violation.
    is_exact: bool = True

    @property
    def needs_privilege(self) -> bool:
        """Whether a role without the privilege may be a violation."""
        if self.source == "stated":
            return True
        return self.is_exact and any(
            isinstance(one, Declared) and one.permissive for one in (self.test, self.new)
        )


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The intents of models."""

    metadatas: tuple[MetaData, ...]
    default_schema: str = "public"
    _noted: dict[str, _Noted] = field(default_factory=dict)

    @cached_property
    def _stated(self) -> dict[tuple[str, str, Command, str], Intent]:
        return {
            (*self._key(intent.table), command, PUBLIC if role == DECLARED_PUBLIC else role): intent
            for intent in intents(*self.metadatas, *self._metadatas_of_views)
            for command in intent.commands
            for role in intent.roles
        }

    @property
    def _metadatas_of_views(self) -> list[MetaData]:
        """The Table of a declared view has a MetaData of its own."""
        found = {view.table.metadata: None for view in declared_views(self.metadatas)}
        return [one for one in found if one not in self.metadatas]

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Table]:
        return {self._key(table): table for table in declared_tables(self.metadatas).values()}

    @cached_property
    def _vocabularies(self) -> dict[tuple[str, str], Vocabulary]:
        found: dict[tuple[str, str], Vocabulary] = {}
        for policy in declared(self.metadatas, default_schema=self.default_schema).policies.values():
            key = (policy.table.schema or self.default_schema, policy.table.name)
            for expression in (policy.using, policy.with_check):
                if expression is not None:
                    found[key] = found.get(key, Vocabulary()).merged(read_expression(expression))
        return found

    @property
    def roles(self) -> set[str]:
        """The roles of stated intents."""
        return {role for *_, role in self._stated}

    def concerns(self, relation: Relation) -> bool:
        """Return whether the models state an intent for *relation*."""
        key = (relation.schema, relation.relname)
        return key in self._tables or any(one[:2] == key for one in self._stated)

    def decide(
        self, relation: Relation, command: Command, role: str, *, is_like_public: bool = False
    ) -> Decision | str:
        """Return the intent, or how to state it.

        Args:
            relation: the table or view.
            command: the command.
            role: the role.
            is_like_public: whether the role has the privileges and the policies of PUBLIC alone, and so the
                stated intent for PUBLIC.
        """
        key = (relation.schema, relation.relname)
        stated = self._stated.get((*key, command, role))
        if stated is None and is_like_public:
            stated = self._stated.get((*key, command, PUBLIC))
        if stated is not None:
            return Decision(stated.test, stated.new, "stated")
        how = f'State it: intends({relation.relname}, "{command}", role="{role}", rows=…)'
        table = self._tables.get(key)
        if table is None:
            what = "a view" if relation.is_view else "a table that no model protects"
            return f"it is {what}. {how}"
        try:
            before = self._declared(table, command, "using", role)
            after = self._declared(table, command, "check", role)
        except NotDerivable as problem:
            return f"{problem}. {how}"
        test = after if command == "INSERT" else before
        return Decision(test, after, "declared", before.is_exact and after.is_exact)

    def _declared(self, table: Table, command: Command, part: Part, role: str) -> Declared:
        if command in ("SELECT", "DELETE"):
            part = "using"
        elif command == "INSERT":
            part = "check"
        return declared_intent(table, command, part, role, kept_on(self.metadatas, Role))

    def _key(self, table: Table) -> tuple[str, str]:
        return table.schema or self.default_schema, table.name

    def informed(
        self, relation: Relation, schema: Schema, roles: Collection[str], accepts: Any
    ) -> tuple[Schema, Shared]:
        """Return the schema and the vocabulary with what the intents for *relation* read.

        A policy that forgets a condition doesn't name its columns.  The intent does: it is watched, once.
        """
        if relation.name not in self._noted:
            self._noted[relation.name] = self._watched(relation, schema, roles, accepts)
        noted = self._noted[relation.name]
        return _with_edges(schema, relation, noted), self._shared(relation, schema, noted)

    def _watched(self, relation: Relation, schema: Schema, roles: Collection[str], accepts: Any) -> _Noted:
        decisions = [
            (role, found)
            for role in sorted(roles)
            for command in COMMANDS
            if isinstance(found := self.decide(relation, command, role), Decision)
        ]
        names = {name for one in schema.relations.values() for name in (one.relname, one.name, *one.columns)}
        noted = _Noted()
        noted.loose = tuple(
            constant
            for _, one in decisions
            if one.source == "stated"
            for test in (one.test, one.new)
            for constant in constants_of(test)
            if constant.value not in names
        )
        for _ in range(4):
            before = noted.size
            shared = self._shared(relation, schema, noted)
            universe = Universe.of(relation, _with_edges(schema, relation, noted), shared, accepts)
            _watch(universe, schema, decisions, noted, self.default_schema)
            if noted.size == before:
                break
        return noted

    def _shared(self, relation: Relation, schema: Schema, noted: _Noted) -> Shared:
        shared = Shared.of([schema], relation.name)
        own = self._vocabularies.get((relation.schema, relation.relname), Vocabulary())
        seen = Vocabulary(loose=tuple(dict.fromkeys(noted.loose)), claims=tuple(sorted(noted.claims)))
        return replace(shared, vocabulary=shared.vocabulary.merged(own, seen))


@dataclass(slots=True)
class _Noted:
    """The columns and tables that the intents for a relation read."""

    columns: set[tuple[str, str]] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    claims: set[tuple[str, ...]] = field(default_factory=set)
    loose: tuple[Constant, ...] = ()

    @property
    def size(self) -> int:
        return len(self.columns) + len(self.tables) + len(self.claims)


def _watch(
    universe: Universe,
    schema: Schema,
    decisions: Sequence[tuple[str, Decision]],
    noted: _Noted,
    default_schema: str,
) -> None:
    relation = universe.relation
    candidates = universe.rows.get(relation.name, ())
    callers: dict[str, list[Caller]] = {}
    for actor in universe.pools.actors(sorted({role for role, _ in decisions})):
        if (caller := caller_of(actor)) is not None:
            object.__setattr__(caller, "claims", NotedClaims(caller.claims, noted.claims.add))
            callers.setdefault(actor.role, []).append(caller)
    asked = {
        (role, id(test)): (role, test) for role, one in decisions for test in (one.test, one.new)
    }.values()
    for world in islice(generate_worlds(universe, Budget(worlds=_WATCHED)), _WATCHED):
        rows: dict[str, list[Any]] = {}
        for row in world.all_rows:
            rows.setdefault(row.relation, []).append(
                NotedRow(_complete(schema.relations[row.relation], row.values), _noting(noted, row.relation))
            )
        tables = Tables(schema, rows, default_schema=default_schema, noted=noted.tables.add)
        asked_of = world.row or next(iter(candidates), None)
        values = {} if asked_of is None else _complete(relation, asked_of.values)
        for role, test in asked:
            for caller in callers.get(role, ()):
                # An error is the run's to report.
                with suppress(Exception):
                    test(caller, NotedRow(values, _noting(noted, relation.name)), tables)


def _complete(relation: Relation, values: Any) -> dict[str, Any]:
    return {**dict.fromkeys(relation.columns), **as_row(relation, values)}


def _noting(noted: _Noted, relation: str) -> Any:
    return lambda column: noted.columns.add((relation, column))


def _with_edges(schema: Schema, relation: Relation, noted: _Noted) -> Schema:
    """Return *schema* as if a policy of *relation* read the noted columns."""
    found = [
        Edge("policy", name, column, None)
        for name, column in sorted(noted.columns)
        if column in schema.relations[name].columns
    ]
    found += [Edge("policy", name, None, None) for name in sorted(noted.tables) if name != relation.name]
    own = tuple(dict.fromkeys((*schema.edges.get(relation.name, ()), *found)))
    return replace(schema, edges={**schema.edges, relation.name: own})
