"""Evaluates policies as they are, on real rows of the scratch database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.conditions import Access, Part, Undecidable
from sqla_rls.analyze.in_place.conditions import row_of as source_of
from sqla_rls.analyze.in_place.decidable import Functions
from sqla_rls.analyze.in_place.evaluate import CONSTANTS, Answer, Evaluator, Question, Unit
from sqla_rls.analyze.in_place.splice import parsed
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.reach.conditions import conditions_of
from sqla_rls.analyze.lint.reach.reach import Reach
from sqla_rls.analyze.lint.reach.worlds import Worlds
from sqla_rls.analyze.worlds.objects import Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.statements import insertion, quoted, quoted_list
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World
from sqla_rls.catalog.query import undone


@dataclass(eq=False)
class InScratch:
    """Evaluates the policies of a database in its scratch database."""

    worlds: Worlds

    @property
    def database(self) -> Database:
        return self.worlds.database

    @property
    def schema(self) -> Schema:
        return self.database.schema

    def reach(self, relation: Relation, role: str) -> Reach:
        """Evaluate the policies as they are, on real rows of the scratch database."""
        with self.database.scratch() as connection:
            self.database.require_complete(relation.name)
            self._grant_usage(connection, relation, role)
            return self._with_real_rows(connection, relation, role)

    def _grant_usage(self, connection: Connection, relation: Relation, role: str) -> None:
        """Grant USAGE on the schemas that policies name: their text needs it, and a policy itself doesn't."""
        expressions = [
            parsed(sql)
            for policy in self.database.policies_of(relation, role)
            for sql in (policy.using, policy.check)
            if sql is not None
        ]
        named = {schema for one in expressions for schema in one.schemas}
        named |= {schema for one in expressions for schema, _ in one.relations if schema}
        if named:
            connection.exec_driver_sql(
                f"GRANT USAGE ON SCHEMA {quoted_list(sorted(named))} TO {quoted(role)}",
                execution_options={"no_parameters": True},
            )

    def _with_real_rows(self, connection: Connection, relation: Relation, role: str) -> Reach:
        access = Access(self.schema, role, self.database.profiles_of(role))

        def of_part(part: Part) -> str:
            if not access.is_active(relation.name):
                return "true"
            permissive, restrictive = access.expressions(relation.name, part)
            if not permissive:
                return "false"
            either = " OR ".join(f"({one})" for one in permissive)
            return " AND ".join([*(f"({one})" for one in restrictive), f"({either})"])

        conditions = conditions_of(self.database, relation, role, of_part, lambda _, sql: sql)
        universe = self.worlds.universe(relation, connection, self.schema)
        evaluator = Evaluator(connection)
        worlds, unmet = self.worlds.allowed(universe, evaluator)
        spelled = tuple(dict.fromkeys(sql for sql in conditions.values() if sql not in CONSTANTS))
        question = Question(
            spelled,
            {},
            source_of(relation),
            forgets_plans=Functions(connection, self.schema.implied).may_be_frozen(map(parsed, spelled)),
        )
        actors = self.worlds.actors(universe, role)
        kept: list[World] = []
        columns: list[list[dict[str, Answer]]] = []
        for world in worlds:
            try:
                with undone(connection):
                    fill(self.schema, connection, world)
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
                found.append({**dict(zip(question.conditions, answers, strict=True)), **CONSTANTS})
        return found


def fill(schema: Schema, connection: Connection, world: World) -> None:
    """Insert the rows of *world* in a scratch database."""
    # Triggers and foreign keys don't matter to a policy.
    statements = ["SET LOCAL session_replication_role = replica"]
    statements += [insertion(schema.relations[row.relation], row.values) for row in world.all_rows]
    # One round trip: a table has about a hundred worlds.
    block = "".join(f"{one};\n" for one in statements)
    connection.exec_driver_sql(
        f"DO $sqla_rls_fill$ BEGIN\n{block}END $sqla_rls_fill$",
        execution_options={"no_parameters": True},
    )
