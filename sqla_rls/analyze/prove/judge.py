"""Tries worlds of one relation, and compares the result of each statement with the intent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from sqla_rls.analyze.prove.attempts import Attempt, Attempts
from sqla_rls.analyze.prove.oracle import Decision
from sqla_rls.analyze.prove.proof import Direction, Violation
from sqla_rls.analyze.prove.worlds import Tables, as_row, caller_of
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.counterexamples import VERBS, row_in_words
from sqla_rls.analyze.worlds.generate import smaller_worlds
from sqla_rls.analyze.worlds.limit import TimeIsOver, TimeLimit
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import Met
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.analyze.worlds.scratch import Outcome, ScratchDatabase, Trial
from sqla_rls.analyze.worlds.statements import Statement
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import World
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller

#: A role and a command.
Pair: TypeAlias = tuple[str, Command]


@dataclass(slots=True)
class Tally:
    """The extent of the trial of one relation."""

    violations: dict[tuple[str, str, Command, Direction], Violation] = field(default_factory=dict)
    statements: Counter[Pair] = field(default_factory=Counter)
    #: Pairs whose intent refused, or permitted, something.
    refused: set[Pair] = field(default_factory=set)
    permitted: set[Pair] = field(default_factory=set)
    worlds: int = 0
    rejections: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    #: The budget's time was over before all worlds were tried.
    is_cut: bool = False
    met: Met = field(default_factory=Met)
    #: The rows that were not tried, since constraints refused them; a sentence for each table.
    untried: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Judge:
    """Tries worlds of one relation, and compares each statement with the intent."""

    scratch: ScratchDatabase
    superuser: str
    default_schema: str
    universe: Universe
    schema: Schema
    decided: Mapping[Pair, Decision]
    tally: Tally
    limit: TimeLimit

    def run(self, worlds: Sequence[World], groups: Sequence[tuple[Sequence[str], Profile]]) -> None:
        """Try *worlds* as the roles of each group, which have the same privileges."""
        made: set[int] = set()
        for roles, profile in groups:
            attempts = Attempts(universe=self.universe, profile=profile)
            actors = self.universe.pools.actors(roles)
            commands = {command for role, command in self.decided if role in roles}
            trials = [
                (world, [one for one in attempts.on(world) if one.command in commands]) for world in worlds
            ]
            found = self._observe(trials, actors, attempts)
            for number, ((world, tried), observed) in enumerate(zip(trials, found, strict=True)):
                if observed is None:
                    continue
                made.add(number)
                for actor, outcomes, seen in observed:
                    for attempt, outcome, owners in zip(tried, outcomes, seen.owners, strict=True):
                        self._note(world, actor, attempts, attempt, outcome, owners, seen)
        self.tally.worlds += len(made)

    def _note(
        self,
        world: World,
        actor: Actor,
        attempts: Attempts,
        attempt: Attempt,
        outcome: Outcome,
        owners: Outcome,
        seen: _Seen,
    ) -> None:
        pair = (actor.role, attempt.command)
        if (decision := self.decided.get(pair)) is None:
            return
        judged = self._judge(actor, attempt, outcome, owners, seen, decision)
        if judged is None:
            return
        self.tally.statements[pair] += 1
        if judged.permits:
            self.tally.permitted.add(pair)
        if judged.refuses:
            self.tally.refused.add(pair)
        direction = judged.direction
        if direction is None or (self.universe.relation.name, *pair, direction) in self.tally.violations:
            return
        violation = self._violation(world, actor, attempts, attempt, direction, (judged.permits, outcome))
        self.tally.violations[violation.key] = violation

    def _observe(
        self,
        trials: Sequence[tuple[World, Sequence[Attempt]]],
        actors: Sequence[Actor],
        attempts: Attempts,
    ) -> list[list[tuple[Actor, list[Outcome], _Seen]] | None]:
        """Run the statements, and those of the owner; None for a world that a constraint rejects."""
        scratch, superuser = self.scratch, self.superuser
        tables = [name for name in self.universe.rows if self.schema.relations[name].has_rows]
        looks = [Statement("SELECT", f"SELECT * FROM {name}") for name in tables]  # noqa: S608
        owner = Actor(role=superuser, claims=None, settings={})
        rows = scratch.run(
            [Trial(world, [*looks, attempts.all_rows]) for world, _ in trials], [owner], limit=self.limit
        )
        distinct = {_claims_key(actor): replace(actor, role=superuser) for actor in actors}
        asked = [
            Trial(
                world,
                [
                    *([] if world.row is None else [attempts.row(world.row)]),
                    *(attempt.owners for attempt in tried),
                ],
            )
            for world, tried in trials
        ]
        owners = scratch.run(asked, [*distinct.values()], limit=self.limit)
        done = scratch.run(
            [Trial(world, [attempt.statement for attempt in tried]) for world, tried in trials],
            actors,
            limit=self.limit,
        )
        found: list[list[tuple[Actor, list[Outcome], _Seen]] | None] = []
        for trial, (_, tried), seen, owned, own in zip(asked, trials, rows, owners, done, strict=True):
            rejected = seen.rejected or owned.rejected or own.rejected
            self.tally.met.note(self.universe, trial.world, rejected)
            if rejected:
                self.tally.rejections[rejected] += 1
                found.append(None)
                continue
            everything = [[json.loads(row) for row in seen.outcome(n).rows] for n in range(len(looks) + 1)]
            world = Tables(
                self.schema,
                {
                    name: [as_row(self.schema.relations[name], row) for row in each]
                    for name, each in zip(tables, everything, strict=False)
                },
                default_schema=self.default_schema,
            )
            width, extra = len(trial.statements), len(trial.statements) - len(tried)
            seen_by = {
                key: self._seen(
                    [owned.outcome(place * width + n) for n in range(width)], extra, everything[-1], world
                )
                for place, key in enumerate(distinct)
            }
            found.append(
                [
                    (
                        actor,
                        [own.outcome(place * len(tried) + n) for n in range(len(tried))],
                        seen_by[_claims_key(actor)],
                    )
                    for place, actor in enumerate(actors)
                ]
            )
        return found

    def _seen(self, outcomes: list[Outcome], extra: int, rows: list[Any], world: Tables) -> _Seen:
        """Return the facts of a world for one caller; the first *extra* outcomes are the row."""
        old = [json.loads(row) for one in outcomes[:extra] for row in one.rows]
        return _Seen(
            raw=rows,
            rows=[as_row(self.universe.relation, row) for row in rows],
            old=as_row(self.universe.relation, old[0]) if len(old) == 1 else None,
            world=world,
            owners=outcomes[extra:],
        )

    def _judge(
        self,
        actor: Actor,
        attempt: Attempt,
        outcome: Outcome,
        owners: Outcome,
        seen: _Seen,
        decision: Decision,
    ) -> _Judged | None:
        """Return the rows that the intent permits, and how the statement differs from it."""
        caller = caller_of(actor)
        if caller is None or owners.error is not None:
            return None
        relation = self.universe.relation
        if attempt.command == "SELECT":
            shown = [
                row
                for row, value in zip(seen.raw, seen.rows, strict=True)
                if self._asks(decision.test, caller, value, seen.world, attempt)
            ]
            wanted = Counter(_spelled({name: row[name] for name in attempt.columns}) for row in shown)
            found = Counter(_spelled(json.loads(row)) for row in outcome.rows)
            direction: Direction | None = "less" if decision.is_exact and wanted - found else None
            return _Judged(len(shown), len(shown) < len(seen.raw), "more" if found - wanted else direction)
        changed = [as_row(relation, json.loads(row)) for row in owners.rows]
        if len(changed) != 1:
            return None
        reading = self.decided.get((actor.role, "SELECT")) if attempt.reads else None
        permits, is_exact = True, decision.is_exact and (not attempt.reads or reading is not None)
        if attempt.command == "UPDATE":
            if seen.old is None:
                return None
            permits = self._asks(decision.test, caller, seen.old, seen.world, attempt) and self._asks(
                decision.new, caller, changed[0], seen.world, attempt
            )
        else:
            permits = self._asks(decision.test, caller, changed[0], seen.world, attempt)
        if reading is not None:
            is_exact = is_exact and reading.is_exact
            rows = changed if attempt.command != "UPDATE" else [seen.old or {}, changed[0]]
            permits = permits and all(
                self._asks(reading.test, caller, row, seen.world, attempt) for row in rows
            )
        if outcome.count and not permits:
            return _Judged(0, True, "more")
        return _Judged(
            int(permits), not permits, "less" if permits and is_exact and not outcome.count else None
        )

    def _asks(
        self, test: Any, caller: Caller, row: Mapping[str, Any], world: Tables, attempt: Attempt
    ) -> bool:
        try:
            return bool(test(caller, row, world))
        except Exception as error:
            where = f"{attempt.command} on {self.universe.relation.name} as {caller.role}"
            raise AnalysisError(
                f"the intent for {where} failed: {type(error).__name__}: {error}. Let it return True or False"
            ) from error

    def _violation(
        self,
        world: World,
        actor: Actor,
        attempts: Attempts,
        attempt: Attempt,
        direction: Direction,
        seen: tuple[int, Outcome],
    ) -> Violation:
        """Leave out rows as long as the violation stays and there is time, and describe it."""
        current, (intended, outcome) = world, seen
        shrunk = True
        while shrunk:
            shrunk = False
            for smaller in smaller_worlds(self.universe, current):
                try:
                    simpler = self._again(smaller, actor, attempts, attempt, direction)
                except TimeIsOver:
                    break
                if simpler is not None:
                    current, (intended, outcome), shrunk = smaller, simpler, True
                    break
        rows: dict[str, list[Mapping[str, Any]]] = {}
        for row in current.all_rows:
            rows.setdefault(row.relation, []).append(row.values)
        relation = self.universe.relation
        return Violation(
            object=relation.name,
            role=actor.role,
            command=attempt.command,
            direction=direction,
            claims=actor.claims,
            settings=actor.settings,
            rows=rows,
            statement=attempt.statement.text,
            intended=intended,
            found=outcome.count,
            outcome=str(outcome),
            text=self._sentence(current, actor, attempt, direction, outcome),
        )

    def _again(
        self, world: World, actor: Actor, attempts: Attempts, attempt: Attempt, direction: Direction
    ) -> tuple[int, Outcome] | None:
        (found,) = self._observe([(world, [attempt])], [actor], attempts)
        if found is None:
            return None
        ((_, (outcome,), seen),) = found
        decision = self.decided[actor.role, attempt.command]
        judged = self._judge(actor, attempt, outcome, seen.owners[0], seen, decision)
        return (judged.permits, outcome) if judged is not None and judged.direction == direction else None

    def _sentence(
        self, world: World, actor: Actor, attempt: Attempt, direction: Direction, outcome: Outcome
    ) -> str:
        can = "can" if direction == "more" else "can't"
        relation = self.universe.relation.name
        if attempt.command == "INSERT":
            about = f"run {attempt.statement.text}"
        elif world.row is not None:
            about = f"{VERBS[attempt.command]} {row_in_words(self.universe, world.row)}"
        else:
            about = f"{VERBS[attempt.command]} rows of {relation}"
        sentence = f"{actor.text} {can} {about}"
        if others := [row_in_words(self.universe, row) for row in world.rows]:
            sentence += f", with {', '.join(others)}"
        if outcome.error is not None:
            sentence += f" ({outcome})"
        against = "denies" if direction == "more" else "permits"
        return f"{sentence}; the intent {against} it"


@dataclass(frozen=True, slots=True)
class _Judged:
    """The number of rows that the intent permits, whether it refuses one, and how the statement differs."""

    permits: int
    refuses: bool
    direction: Direction | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """The results of the owner, with the claims of a caller."""

    raw: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    #: The row in question.
    old: Mapping[str, Any] | None
    world: Tables
    #: What each statement does for the owner.
    owners: Sequence[Outcome]


def _claims_key(actor: Actor) -> str:
    return repr((actor.claims, actor.settings))


def _spelled(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)
