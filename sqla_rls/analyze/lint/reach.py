"""The rows that callers reach in small worlds: each policy, and each command, evaluated on rows of no table.

Tables of the same shape are evaluated once.  Policies that need real rows, since a function reads tables, are
evaluated in the scratch database.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeVar

from sqlalchemy import ARRAY, Connection, Text, bindparam, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.conditions import PARTS, Access, Conditions, Denied, Part, Tables, Undecidable
from sqla_rls.analyze.in_place.conditions import row_of as source_of
from sqla_rls.analyze.in_place.constraints import Constraints
from sqla_rls.analyze.in_place.decidable import Functions
from sqla_rls.analyze.in_place.evaluate import Answer, Evaluator, Question, Unit
from sqla_rls.analyze.in_place.splice import Expression, parsed
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.target import query
from sqla_rls.analyze.worlds.counterexamples import row_in_words
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.pools import Actor, Shared
from sqla_rls.analyze.worlds.schema import PolicyText, Profile, Relation, Schema
from sqla_rls.analyze.worlds.statements import insertion
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, World
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError

_BUDGET: Final = Budget(worlds=100, rows=2)
_Value = TypeVar("_Value")
#: The most rows of other tables in a sentence.
_MOST_WORDS: Final = 5
#: The key of the cases among the answers that tables of a shape share.
_ALL_CASES: Final = object()
_BY_SETTINGS: Final = object()
_CONSTANTS: Final[Mapping[str, Answer]] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Case:
    """A caller, and a row in question with the rows of other tables."""

    actor: Actor
    world: World
    #: The place of both in ``Reach.answers``.
    place: tuple[int, int]

    @property
    def row(self) -> Row:
        assert self.world.row is not None
        return self.world.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The rows that callers of one role reach in one table, before privileges.

    Attributes:
        relation: the table.
        role: the role.
        universe: the rows and values that the worlds are made of.
        actors: the callers.
        worlds: the worlds; each has its row in question.
        answers: for each part of row security, and for ``(policy, "using")`` and ``(policy, "check")`` of
            each policy of the role: whether it is true, for each caller and each world.
        unmet_checks: the CHECK constraints that no row of the worlds satisfies.
    """

    relation: Relation
    role: str
    universe: Universe
    actors: Sequence[Actor]
    worlds: Sequence[World]
    answers: Mapping[Part | tuple[str, str], Sequence[Sequence[Answer]]]
    unmet_checks: tuple[str, ...] = ()
    #: The reach of the table that was evaluated, which has the same shape; the own policies by those of it.
    first: Reach | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    _shared: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, find: Callable[[Reach], _Value]) -> _Value:
        """Return what *find* returns for this reach; tables of the same shape share it.

        A Case in it fits each of these tables; ``policy()`` translates the name of a policy.
        """
        if key not in self._shared:
            self._shared[key] = find(self.first or self)
        return self._shared[key]  # type: ignore[no-any-return]

    def policy(self, name: str | None) -> str | None:
        """Return the own name of a policy that ``once()`` returns."""
        return None if name is None else self.names.get(name, name)

    def original(self, name: str) -> str:
        """Return the name of an own policy in the reach that ``once()`` asks."""
        return next((first for first, own in self.names.items() if own == name), name)

    def cases(self, actors: Iterable[Actor] | None = None) -> Iterator[Case]:
        """Yield each caller with each world, the smallest worlds first."""
        if _ALL_CASES not in self._shared:
            self._shared[_ALL_CASES] = [
                Case(actor, world, (place, number))
                for number, world in sorted(enumerate(self.worlds), key=lambda one: len(one[1].all_rows))
                for place, actor in enumerate(self.actors)
            ]
        if actors is None:
            yield from self._shared[_ALL_CASES]
            return
        chosen = list(actors)
        places = {place for place, actor in enumerate(self.actors) if actor in chosen}
        yield from (case for case in self._shared[_ALL_CASES] if case.place[0] in places)

    def is_true(self, part: Part | tuple[str, str], case: Case) -> bool:
        """Return whether *part* is true of the row in question."""
        actor, world = case.place
        return self.answers[part][actor][world] is True

    @property
    def identified(self) -> Sequence[Actor]:
        """The callers with a subject, or with a setting; without one, those with claims.

        If the policies ask for settings alone, these are the callers with a setting that isn't empty.
        """
        bound = [one for one in self.actors if any(one.settings.values())]
        is_by_settings: bool = bool(bound) and self.once(_BY_SETTINGS, Reach.depends_on_settings_alone)
        if is_by_settings:
            return bound
        found = [one for one in self.actors if "sub" in (one.claims or {}) or one.settings]
        return found or [one for one in self.actors if one.claims]

    def depends_on_settings_alone(self) -> bool:
        """Return whether callers with the same settings get the same answers, whatever their claims."""
        by_settings: dict[tuple[tuple[str, str], ...], int] = {}
        for place, actor in enumerate(self.actors):
            first = by_settings.setdefault(tuple(sorted(actor.settings.items())), place)
            if any(answers[first] != answers[place] for answers in self.answers.values()):
                return False
        return True

    @property
    def unidentified(self) -> Sequence[Actor]:
        """The callers without any claim and setting."""
        return [one for one in self.actors if not one.claims and not one.settings]

    def context_free(self) -> frozenset[int]:
        """Return the places of the worlds in which no other row decides."""
        name = self.universe.relation.name
        read = self.universe.schema.reads(name)
        return frozenset(
            place
            for place, world in enumerate(self.worlds)
            if not any(row.relation in read for row in world.rows)
        )

    def same_row(self, case: Case, other: Case) -> bool:
        """Return whether two cases differ in the row in question only."""
        return case.actor == other.actor and case.world.rows == other.world.rows

    def evidence(self, case: Case, sentence: str) -> Evidence:
        """Return a counterexample; in *sentence*, ``{who}`` is the caller and ``{row}`` the row."""
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in case.world.all_rows:
            rows.setdefault(self._name(row), []).append(row.values)
        own = {str(value) for value in (case.actor.claims or {}).values()}
        # Those of the caller first, and not all: the data has them.
        ordered = sorted(case.world.rows, key=lambda row: own.isdisjoint(map(str, row.values.values())))
        others = [self.words(row) for row in ordered[:_MOST_WORDS]]
        if len(ordered) > _MOST_WORDS:
            others.append(f"{len(ordered) - _MOST_WORDS} more rows")
        who = replace(case.actor, role=self.role).text
        text = sentence.replace("{who}", who).replace("{row}", self.words(case.row))
        unmet = "".join(f"; no generated row satisfies CHECK ({one})" for one in self.unmet_checks[:1])
        return Evidence(
            kind="counterexample",
            text=text + (f", with {', '.join(others)}" if others else "") + unmet,
            data={
                "role": self.role,
                "claims": case.actor.claims,
                "settings": dict(case.actor.settings),
                "rows": rows,
            },
        )

    def words(self, row: Row) -> str:
        """Return *row* in words."""
        return self._name(row) + row_in_words(self.universe, row).removeprefix(row.relation)

    def _name(self, row: Row) -> str:
        # The worlds may be those of another table of the same shape.
        return self.relation.name if row.relation == self.universe.relation.name else row.relation


@dataclass(slots=True)
class _Shape:
    """The part of a table that decides: tables with the same key have the same reach."""

    key: str
    relation: Relation
    policies: list[str]


@dataclass(eq=False)
class Reaches:
    """Answers about tables of a database; each is found once."""

    database: Database
    _known: dict[str, tuple[Reach | str, _Shape]] = field(default_factory=dict)
    _found: dict[tuple[str, str], Reach | str] = field(default_factory=dict)
    _accepted: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def of(cls, database: Database) -> Reaches:
        """Return the answers about *database*; one object for all rules."""
        return database.cached(cls, lambda: cls(database))

    def of_table(self, name: str, role: str) -> Reach | None:
        """Return the reach of *role* in table *name*; None if it can't be decided, which is noted."""
        if (name, role) not in self._found:
            self._found[name, role] = self._asked(name, role)
        found = self._found[name, role]
        if isinstance(found, str):
            self.database.note_unknown(name, found, role=role)
            return None
        return found

    def all(self) -> Iterator[Reach]:
        """Yield the reach of each caller's role in each table whose row security holds for it."""
        for relation in self.database.tables:
            if not relation.row_security or not relation.policies:
                continue
            for role in self.database.roles_with_privileges(relation.name):
                if self.database.is_active(relation.name, role):
                    reach = self.of_table(relation.name, role)
                    if reach is not None:
                        yield reach

    def _asked(self, name: str, role: str) -> Reach | str:
        relation = self.schema.relations[name]
        try:
            shape = self._shape(relation, role)
            if shape.key not in self._known:
                self._known[shape.key] = self._evaluated(shape.relation, role), shape
        except (Undecidable, AnalysisError) as error:
            return str(error)
        found, first = self._known[shape.key]
        if isinstance(found, str):
            return found
        if (found.relation.name, found.role) == (name, role):
            return replace(found, relation=relation)
        names = dict(zip(first.policies, shape.policies, strict=True))
        answers = {
            key if isinstance(key, str) else (names[key[0]], key[1]): one
            for key, one in found.answers.items()
        }
        return replace(found, relation=relation, role=role, first=found, names=names, answers=answers)

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def _profiles(self, role: str) -> Mapping[str, Profile]:
        if role not in self._by_role:
            self._by_role.update({one.name: {} for one in self.database.callers})
            for (relation, one), profile in self.database.profiles.items():
                self._by_role[one][relation] = profile
        return self._by_role[role]

    @cached_property
    def _by_role(self) -> dict[str, dict[str, Profile]]:
        return {}

    def _policies(self, relation: Relation, role: str) -> list[PolicyText]:
        names = self.database.profiles[relation.name, role].policies
        return [one for one in relation.policies if one.name in names]

    def _shape(self, relation: Relation, role: str) -> _Shape:
        """Return what decides which rows callers reach; tables with the same key are the same to them."""
        read = self.schema.reads(relation.name)
        others = sorted(read - {relation.name})
        expressions = [
            parsed(sql)
            for one in read
            for policy in self.schema.relations[one].policies
            for sql in (policy.using, policy.check)
            if sql is not None
        ]
        depends = any(one.depends_on_role for one in expressions)
        core = self._core(relation)
        policies = sorted(
            self._policies(relation, role),
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
            [repr(replace(self._profiles(role)[one], role="")) for one in others],
            self.database.is_active(relation.name, role),
            relation.name if relation.children or relation.name in self._read_by_others else "",
            role if depends else "",
            self.database.is_anonymous(role),
        ]
        return _Shape(repr(parts), core, [one.name for one in policies])

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

    def _evaluated(self, relation: Relation, role: str) -> Reach | str:
        connection = self.database.connection
        try:
            with undone(connection):
                return self._in_place(relation, role)
        except Undecidable as error:
            obstacle = str(error)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            obstacle = str(error.orig).partition("\n")[0]
        try:
            return self._in_scratch(self.schema.relations[relation.name], role)
        except (Undecidable, AnalysisError) as error:
            return f"{obstacle}, and the scratch database doesn't decide it: {error}"
        except DBAPIError as error:
            return f"{obstacle}, and {str(error.orig).partition(chr(10))[0]}"

    def _universe(self, relation: Relation, connection: Connection, schema: Schema) -> Universe:
        shared = Shared.of([schema], relation.name)
        return Universe.of(
            relation, schema, shared, lambda kind, value: self.accepts(connection, kind, value)
        )

    def accepts(self, connection: Connection, type_: str, value: str) -> bool:
        """Return whether *value* is a value of that type."""
        key = (type_, value)
        if type_ == "text":
            return True
        if key not in self._accepted and self.schema.version >= 160000:
            # Without a savepoint: it raises no error.
            asked = text("SELECT pg_catalog.pg_input_is_valid(:value, :type)")
            self._accepted[key] = bool(connection.scalar(asked, {"value": value, "type": type_}))
        if key not in self._accepted:
            try:
                with undone(connection):
                    # The name of a type is as the catalog prints it.
                    asked = text(f"SELECT CAST(:value AS {type_}) IS NULL")
                    connection.scalar(asked, {"value": value})
                    found = True
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                found = False
            self._accepted[key] = found
        return self._accepted[key]

    def _in_place(self, relation: Relation, role: str) -> Reach:
        connection = self.database.connection
        tables = Tables(self._prefix)
        schema = replace(self.schema, relations={**self.schema.relations, relation.name: relation})
        asked = Conditions(Access(schema, role, self._profiles(role)), tables)
        conditions = self._conditions(
            relation, role, lambda part: asked.of(relation.name, part), asked.spelled
        )
        self._functions.require_decidable(asked.expressions)
        as_role = self._evaluates_as(role, asked.expressions)
        universe = self._universe(relation, connection, schema)
        evaluator = Evaluator(connection)
        worlds, unmet = self._worlds(universe, evaluator)
        units = [_unit(world) for world in worlds]
        spelled = tuple(dict.fromkeys(sql for sql in conditions.values() if sql not in _CONSTANTS))
        question = Question(spelled, tables.definitions, source_of(relation))
        actors = self._actors(universe, role)
        rows = []
        with evaluator.units(units):
            for actor in actors:
                answers = evaluator.answers(
                    question, len(units), actor, as_role=as_role, settings=universe.pools.vocabulary.settings
                )
                rows.append([{**dict(zip(spelled, one, strict=True)), **_CONSTANTS} for one in answers])
        return Reach(
            relation=relation,
            role=role,
            universe=universe,
            actors=actors,
            worlds=worlds,
            unmet_checks=unmet,
            answers={part: [[one[sql] for one in row] for row in rows] for part, sql in conditions.items()},
        )

    def _conditions(
        self,
        relation: Relation,
        role: str,
        of_part: Callable[[Part], str],
        spelled: Callable[[str, str], str],
    ) -> dict[Part | tuple[str, str], str]:
        """Return the conditions of each part, and of each policy, as SQL."""
        found: dict[Part | tuple[str, str], str] = {}
        for part in PARTS:
            try:
                found[part] = of_part(part)
            except Denied:
                found[part] = "false"
        for policy in self._policies(relation, role):
            for side, sql in (("using", policy.using), ("check", policy.check)):
                if sql is not None:
                    try:
                        found[policy.name, side] = spelled(relation.name, sql)
                    except Denied:
                        found[policy.name, side] = "false"
        return found

    def _worlds(self, universe: Universe, evaluator: Evaluator) -> tuple[list[World], tuple[str, ...]]:
        """Return the worlds, and the CHECK constraints that no generated row satisfies: they don't hold."""
        schema, unmet = self._with_met_checks(universe, evaluator)
        found = self._allowed(universe, schema, evaluator)
        if not found and any(schema.relations[name].checks for name in universe.rows):
            # Each holds for a row, and no row satisfies all.
            schema, checks = _without_checks(schema, universe.rows, lambda _name, _check: False)
            unmet = (*unmet, *checks)
            found = self._allowed(universe, schema, evaluator)
        if not found:
            raise Undecidable("no row of the worlds satisfies the constraints")
        return found, unmet

    def _with_met_checks(self, universe: Universe, evaluator: Evaluator) -> tuple[Schema, tuple[str, ...]]:
        """Return the schema with the CHECK constraints that a generated row satisfies, and the others."""
        met: set[tuple[str, str]] = set()
        for name, rows in universe.rows.items():
            relation = universe.schema.relations[name]
            if not relation.checks or not rows:
                continue
            units = [Unit(row.values, {}) for row in rows]
            spelled = tuple(f"({check}) IS NOT FALSE" for check in relation.checks)
            with evaluator.units(units):
                answers = evaluator.answers(Question(spelled, {}, source_of(relation)), len(units))
            for place, check in enumerate(relation.checks):
                if any(answer[place] is True for answer in answers):
                    met.add((name, check))
        return _without_checks(universe.schema, universe.rows, lambda name, check: (name, check) in met)

    def _allowed(self, universe: Universe, schema: Schema, evaluator: Evaluator) -> list[World]:
        constraints = Constraints(schema, universe.relation, evaluator, {})
        if any(schema.relations[name].checks for name in universe.rows) or universe.relation.is_partition:
            constraints.learn(row for rows in universe.rows.values() for row in rows)
        found: list[World] = []
        for tried, world in enumerate(generate_worlds(universe, _BUDGET)):
            if len(found) == _BUDGET.worlds or tried > 4 * _BUDGET.worlds:
                break
            if world.row is not None and constraints.allow(world):
                found.append(world)
        return found

    def _actors(self, universe: Universe, role: str) -> list[Actor]:
        found = universe.pools.actors([role])
        if self.database.is_anonymous(role):
            # Callers without a token have no subject.
            found = [one for one in found if "sub" not in (one.claims or {})] or found
        return found

    @cached_property
    def _functions(self) -> Functions:
        return Functions(self.database.connection)

    @cached_property
    def _prefix(self) -> str:
        prefix = "sqla_rls_rows_"
        while any(
            prefix in (sql or "")
            for relation in self.schema.relations.values()
            for policy in relation.policies
            for sql in (policy.using, policy.check)
        ):
            prefix += "_"
        return prefix

    def _evaluates_as(self, role: str, expressions: Iterable[Expression]) -> bool:
        """Return whether the role itself evaluates *expressions*; else the connection's role does.

        Raises:
            Undecidable: neither can.
        """
        expressions = list(expressions)
        statement = query("role_in_place").bindparams(
            bindparam("schemas", type_=ARRAY(Text())), bindparam("signatures", type_=ARRAY(Text()))
        )
        parameters = {
            "role": role,
            "schemas": sorted({schema for one in expressions for schema in one.schemas}),
            "signatures": self._functions.signatures(expressions),
        }
        key = json.dumps(parameters)
        if key not in self._rights:
            found = self.database.connection.execute(statement, parameters).mappings().one()
            self._rights[key] = dict(found)
        may = self._rights[key]
        if may["may_set_role"] and may["may_use_schemas"]:
            return True
        if any(one.depends_on_role for one in expressions):
            raise Undecidable(f"a policy asks for the role, and the connection's role can't SET ROLE {role}")
        if not may["may_execute"]:
            raise Undecidable(f"role {role} may not execute a function that a policy calls")
        return False

    @cached_property
    def _rights(self) -> dict[str, dict[str, Any]]:
        return {}

    def _in_scratch(self, relation: Relation, role: str) -> Reach:
        """Evaluate the policies as they are, on real rows of the scratch database."""
        with self.database.scratch() as connection:
            self.database.require_complete(relation.name)
            return self._with_real_rows(connection, relation, role)

    def _with_real_rows(self, connection: Connection, relation: Relation, role: str) -> Reach:
        access = Access(self.schema, role, self._profiles(role))

        def of_part(part: Part) -> str:
            if not access.is_active(relation.name):
                return "true"
            permissive, restrictive = access.expressions(relation.name, part)
            if not permissive:
                return "false"
            either = " OR ".join(f"({one})" for one in permissive)
            return " AND ".join([*(f"({one})" for one in restrictive), f"({either})"])

        conditions = self._conditions(relation, role, of_part, lambda _, sql: sql)
        universe = self._universe(relation, connection, self.schema)
        evaluator = Evaluator(connection)
        worlds, unmet = self._worlds(universe, evaluator)
        spelled = tuple(dict.fromkeys(sql for sql in conditions.values() if sql not in _CONSTANTS))
        question = Question(spelled, {}, source_of(relation))
        actors = self._actors(universe, role)
        kept: list[World] = []
        columns: list[list[dict[str, Answer]]] = []
        for world in worlds:
            try:
                with undone(connection):
                    self.fill(connection, world)
                    found = self._in_world(evaluator, question, world, actors, universe)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                continue
            kept.append(world)
            columns.append(found)
        if not kept:
            raise Undecidable("no row of the worlds can be inserted")
        return Reach(
            relation=relation,
            role=role,
            universe=universe,
            actors=actors,
            worlds=kept,
            unmet_checks=unmet,
            answers={
                part: [[column[place][sql] for column in columns] for place in range(len(actors))]
                for part, sql in conditions.items()
            },
        )

    def fill(self, connection: Connection, world: World) -> None:
        """Insert the rows of *world* in a scratch database."""
        # Triggers and foreign keys don't matter to a policy.
        statements = ["SET LOCAL session_replication_role = replica"]
        statements += [insertion(self.schema.relations[row.relation], row.values) for row in world.all_rows]
        # One round trip: a table has about a hundred worlds.
        block = "".join(f"{one};\n" for one in statements)
        connection.exec_driver_sql(
            f"DO $sqla_rls_fill$ BEGIN\n{block}END $sqla_rls_fill$",
            execution_options={"no_parameters": True},
        )

    def _in_world(
        self,
        evaluator: Evaluator,
        question: Question,
        world: World,
        actors: Sequence[Actor],
        universe: Universe,
    ) -> list[dict[str, Answer]]:
        found: list[dict[str, Answer]] = []
        with evaluator.units([Unit(world.row.values if world.row else {}, {})]):
            for actor in actors:
                (answers,) = evaluator.answers(
                    question, 1, actor, as_role=True, settings=universe.pools.vocabulary.settings
                )
                found.append({**dict(zip(question.conditions, answers, strict=True)), **_CONSTANTS})
        return found


def _unit(world: World) -> Unit:
    assert world.row is not None
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in world.all_rows:
        rows.setdefault(row.relation, []).append(row.values)
    return Unit(world.row.values, rows)


def _without_checks(
    schema: Schema, names: Iterable[str], holds: Callable[[str, str], bool]
) -> tuple[Schema, tuple[str, ...]]:
    """Return *schema* with the CHECK constraints of the relations *names* that hold, and the others."""
    relations = dict(schema.relations)
    left: list[str] = []
    for name in names:
        checks = relations[name].checks
        kept = tuple(check for check in checks if holds(name, check))
        left += [check for check in checks if check not in kept]
        relations[name] = replace(relations[name], checks=kept)
    return replace(schema, relations=relations), tuple(left)


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
