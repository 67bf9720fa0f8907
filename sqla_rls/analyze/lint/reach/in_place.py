"""Evaluates policies on rows of no table: no user data is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from sqla_rls.analyze.in_place.conditions import Access, Conditions, Tables, unused_prefix
from sqla_rls.analyze.in_place.conditions import row_of as source_of
from sqla_rls.analyze.in_place.decidable import Functions
from sqla_rls.analyze.in_place.evaluate import CONSTANTS, Evaluator, Question, Unit
from sqla_rls.analyze.in_place.rights import Rights
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.reach.conditions import conditions_of
from sqla_rls.analyze.lint.reach.reach import Reach
from sqla_rls.analyze.lint.reach.worlds import Worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.world import World


@dataclass(eq=False)
class InPlace:
    """Evaluates the policies of a database on rows of no table."""

    worlds: Worlds

    @property
    def database(self) -> Database:
        return self.worlds.database

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def reach(self, relation: Relation, role: str) -> Reach:
        connection = self.database.connection
        tables = Tables(self._prefix)
        schema = replace(self.schema, relations={**self.schema.relations, relation.name: relation})
        asked = Conditions(Access(schema, role, self.database.profiles_of(role)), tables)
        conditions = conditions_of(
            self.database, relation, role, lambda part: asked.of(relation.name, part), asked.spelled
        )
        self._functions.require_decidable(asked.expressions)
        self._functions.require_no_catalog_columns(
            [self.schema.relations[one] for one in self.schema.reads(relation.name)], asked.expressions
        )
        as_role = self._rights.evaluates_as(role, asked.expressions)
        universe = self.worlds.universe(relation, connection, schema)
        evaluator = Evaluator(connection)
        worlds, unmet = self.worlds.allowed(universe, evaluator)
        units = [_unit(world) for world in worlds]
        spelled = tuple(dict.fromkeys(sql for sql in conditions.values() if sql not in CONSTANTS))
        question = Question(
            spelled,
            tables.definitions,
            source_of(relation),
            forgets_plans=self._functions.may_be_frozen(asked.expressions),
        )
        actors = self.worlds.actors(universe, role)
        rows = []
        with evaluator.units(units):
            for actor in actors:
                answers = evaluator.answers(
                    question, len(units), actor, as_role=as_role, settings=universe.pools.vocabulary.settings
                )
                rows.append([{**dict(zip(spelled, one, strict=True)), **CONSTANTS} for one in answers])
        return Reach(
            relation=relation,
            role=role,
            universe=universe,
            actors=actors,
            worlds=worlds,
            unmet_checks=unmet,
            answers={part: [[one[sql] for one in row] for row in rows] for part, sql in conditions.items()},
        )

    @cached_property
    def _functions(self) -> Functions:
        return Functions(self.database.connection, self.schema.implied)

    @cached_property
    def _prefix(self) -> str:
        return unused_prefix([self.schema])

    @cached_property
    def _rights(self) -> Rights:
        return Rights(self.database.connection, self._functions)


def _unit(world: World) -> Unit:
    assert world.row is not None
    return Unit(world.row.values, world.values_by_relation)
