"""Postgres decides whether a condition admits all rows, none, or some.

A condition that the planner folds to a constant is decided by that.  Real statements on small worlds decide
about the others.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, CursorResult
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import refusing
from sqla_rls.analyze.worlds.scratch import Outcome, ScratchDatabase, Trial, Tried
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.statements import Statement, Statements, quoted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World

#: The worlds of one round trip; the first few settle most conditions.
_FIRST_BATCH: Final = 6
_BATCH: Final = 16
#: The parts of a plan node by which it admits fewer than all rows.
_CONDITIONS: Final = ("Filter", "One-Time Filter", "Index Cond", "Recheck Cond", "TID Cond", "Join Filter")


def constant(
    connection: Connection, relation: Relation, expression: str, immutable: Collection[str] = ()
) -> bool | None:
    """Return what *expression* is for every row of *relation*, if the planner folds it; else None.

    Args:
        connection: a superuser's connection to a scratch database, in AUTOCOMMIT.
        relation: a table.
        expression: a condition on its rows, with every name qualified.
        immutable: the signatures of functions that say IMMUTABLE.  The planner believes them, and would fold
            a claim to the value that it has for no caller.  So they count as STABLE: the planner folds what
            it can put in place of a call.

    Emits:
        EXPLAIN; for a partitioned table, of a temporary table with its columns.  ALTER FUNCTION, undone.
    """
    name, is_copy = relation.name, relation.kind == "p"

    def run(statement: str) -> CursorResult[Any]:
        return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    try:
        run("BEGIN")
        for signature in immutable:
            run(f"ALTER FUNCTION {signature} STABLE")
        if is_copy:
            # The plan of a partitioned table without partitions has no rows for any condition.
            name = f"pg_temp.{quoted(relation.relname)}"
            run(f"CREATE TEMPORARY TABLE {quoted(relation.relname)} (LIKE {relation.name})")
        statement = f"EXPLAIN (FORMAT JSON, COSTS OFF) SELECT FROM ONLY {name} WHERE ({expression})"
        plan = run(statement).scalar_one()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None
    finally:
        if not connection.invalidated:
            run("ROLLBACK")
    node = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    if node["Node Type"] == "Result":
        return False if node.get("One-Time Filter") == "false" else None
    return None if "Plans" in node or any(one in node for one in _CONDITIONS) else True


@dataclass(slots=True)
class Answer:
    """What the worlds showed for a command."""

    #: It reached a row, or all that there were.
    reached: bool = False
    #: It didn't reach a row that there was.
    missed: bool = False
    worlds: int = 0
    #: The first error that isn't a denial.
    error: str | None = None

    @property
    def is_settled(self) -> bool:
        return self.reached and self.missed


@dataclass(kw_only=True)
class Worlds:
    """The small worlds of a relation, for any role."""

    database: ScratchDatabase
    relation: Relation
    budget: Budget
    #: The role whose statements reach all rows.
    superuser: str
    _universes: dict[bool, Universe] = field(default_factory=dict)
    #: The statements of a row, by the privileges of a role.
    _tried: dict[object, list[Statement]] = field(default_factory=dict)

    def answers(self, role: str, profile: Profile, commands: Iterable[Command]) -> Mapping[Command, Answer]:
        """Try *commands* as callers of *role*, until each has reached a row and missed one."""
        answers: dict[Command, Answer] = {command: Answer() for command in commands}
        for varies_checked in (False, True):
            self._try(self._universe(varies_checked=varies_checked), role, profile, answers)
            if any(answer.reached or answer.missed for answer in answers.values()):
                # Otherwise only some values of the columns in constraints may be valid.
                break
        return answers

    def _universe(self, *, varies_checked: bool) -> Universe:
        if varies_checked not in self._universes:
            schema = self.database.schema
            self._universes[varies_checked] = Universe.of(
                self.relation,
                schema,
                Shared.of([schema], self.relation.name),
                self.database.accepts,
                varies_checked=varies_checked,
                refuses=refusing(schema, self.database.asks),
                spreads_accepted=False,
            )
        return self._universes[varies_checked]

    def _try(
        self, universe: Universe, role: str, profile: Profile, answers: Mapping[Command, Answer]
    ) -> None:
        statements = Statements(universe=universe, profiles=(profile,))
        actors = universe.pools.actors([role])
        if self.relation.is_view:
            actors += universe.pools.actors([self.superuser])
        worlds = itertools.islice(generate_worlds(universe, self.budget), self.budget.worlds)
        size = _FIRST_BATCH
        while batch := list(itertools.islice(worlds, size)):
            size = _BATCH
            trials = [Trial(world, self._statements(statements, world, answers)) for world in batch]
            trials = [trial for trial in trials if trial.statements]
            if all(answer.is_settled for answer in answers.values()):
                return
            for trial, tried in zip(trials, self.database.run(trials, actors), strict=True):
                if tried.rejected is None:
                    self._judge(trial, tried, actors, answers)

    def _statements(
        self, statements: Statements, world: World, answers: Mapping[Command, Answer]
    ) -> list[Statement]:
        """Return the statements for commands that aren't settled."""
        (profile,) = statements.profiles
        held = (profile.selects, profile.inserts, profile.updates, profile.delete)
        key = (statements.universe is self._universes.get(True), held, world.row)
        if key not in self._tried:
            self._tried[key] = self._alone(statements, world)
        return [
            one for one in self._tried[key] if one.command in answers and not answers[one.command].is_settled
        ]

    def _alone(self, statements: Statements, world: World) -> list[Statement]:
        """Return the statements that reach the row in question by their command alone."""
        return [
            one
            for one in statements.on(world.row)
            if (one.command == "SELECT" or not one.returns_rows)
            and (one.command not in ("UPDATE", "DELETE") or self.relation.is_view or one.reaches_all)
            and not (one.command == "INSERT" and world.row is not None)
        ]

    def _judge(
        self, trial: Trial, tried: Tried, actors: Sequence[Actor], answers: Mapping[Command, Answer]
    ) -> None:
        width = len(trial.statements)
        for place, statement in enumerate(trial.statements):
            outcomes = [tried.outcome(number * width + place) for number in range(len(actors))]
            answer = answers[statement.command]
            answer.worlds += 1
            if self.relation.is_view:
                _judge_view(outcomes, answer)
            else:
                # An INSERT is of one row.
                rows = sum(row.relation == self.relation.name for row in trial.world.all_rows)
                rows = 1 if statement.command == "INSERT" else rows
                for outcome in outcomes:
                    _judge_rows(outcome, answer, rows, reads=statement.command in ("SELECT", "DELETE"))


#: The row violates a constraint that Postgres checks after the policies.
_AFTER_POLICIES: Final = ("23502", "23503", "23505")
#: The value, or the row, is none for the table.
_NO_ROW: Final = ("22", "23", "44")


def _judge_rows(outcome: Outcome, answer: Answer, rows: int, *, reads: bool) -> None:
    error = outcome.error
    if error is None:
        answer.reached |= outcome.count > 0
        answer.missed |= outcome.count < rows
    elif not reads and error.startswith(_AFTER_POLICIES):
        answer.reached = True
    elif reads or not error.startswith(_NO_ROW):
        answer.missed = True
        if "row-level security policy" not in error:
            answer.error = answer.error or error.partition("\n")[0]


def _judge_view(outcomes: Sequence[Outcome], answer: Answer) -> None:
    """A view shows all of its rows to a caller if it shows them to every caller, and to a superuser."""
    half = len(outcomes) // 2
    callers, superusers = outcomes[:half], outcomes[half:]
    if all(one.error is not None and one.error.startswith(_NO_ROW) for one in superusers):
        return
    most = max(one.count for one in outcomes)
    answer.reached |= any(one.error is None and one.count > 0 for one in callers)
    answer.missed |= most > 0 and any(one.error is not None or one.count < most for one in callers)
    for one in callers:
        if one.error is not None and not one.error.startswith("42501"):
            answer.error = answer.error or one.error.partition("\n")[0]


def all_of(permissive: Sequence[str], restrictive: Sequence[str]) -> str:
    """Return the condition that one of *permissive* and all of *restrictive* hold."""
    parts = [" OR ".join(f"({one})" for one in permissive) or "false", *restrictive]
    return " AND ".join(f"({one})" for one in parts)
