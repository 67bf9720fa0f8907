"""The callers, and the small worlds that the constraints of their tables allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from sqlalchemy import Connection

from sqla_rls.analyze.in_place.conditions import Undecidable
from sqla_rls.analyze.in_place.conditions import row_of as source_of
from sqla_rls.analyze.in_place.constraints import Constraints
from sqla_rls.analyze.in_place.evaluate import Evaluator, Question, Unit
from sqla_rls.analyze.in_place.inputs import Inputs
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import refusing
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import answer
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World
from sqla_rls.catalog.query import undone

_BUDGET: Final = Budget(worlds=100, rows=2)


@dataclass(eq=False)
class Worlds:
    """Makes the callers and the worlds of tables."""

    database: Database

    @cached_property
    def _inputs(self) -> Inputs:
        return Inputs(self.database.schema.version)

    def universe(self, relation: Relation, connection: Connection, schema: Schema) -> Universe:
        """Return the rows and values that the worlds of *relation* are made of."""
        shared = Shared.of([schema], relation.name)

        def asks(statement: str) -> bool | None:
            with undone(connection):
                return answer(connection, statement)

        return Universe.of(
            relation,
            schema,
            shared,
            lambda kind, value: self._inputs.accept(connection, kind, value),
            refuses=refusing(schema, asks),
            spreads_accepted=False,
        )

    def allowed(self, universe: Universe, evaluator: Evaluator) -> tuple[list[World], tuple[str, ...]]:
        """Return the worlds, and the CHECK constraints that no generated row satisfies: they don't hold."""
        schema, unmet = self._with_met_checks(universe, evaluator)
        found = self._allowed(universe, schema, evaluator)
        names = _with_parents(schema, universe.rows)
        if not found and any(schema.relations[name].checks for name in names):
            # Each holds for a row, and no row satisfies all.
            schema, checks = _without_checks(schema, names, lambda _name, _check: False)
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

    def actors(self, universe: Universe, role: str) -> list[Actor]:
        found = universe.pools.actors([role])
        if self.database.is_anonymous(role):
            # Callers without a token have no subject.
            found = [one for one in found if "sub" not in (one.claims or {})] or found
        return found


def _with_parents(schema: Schema, names: Iterable[str]) -> list[str]:
    """Return the relations *names*, and those whose rows their foreign keys need."""
    found = list(names)
    for name in found:
        found += {key.target for key in schema.relations[name].foreign_keys}.difference(found)
    return found


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
