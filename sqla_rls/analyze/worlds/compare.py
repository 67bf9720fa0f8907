"""Who can do what in one database and not in another: the same statements, tried in both.

Two databases with the same definitions permit the same.  Where a definition differs, worlds are tried.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.verdict import TIME_OVER, Budget, Comparison, Counterexample, Direction, Scope, Verdicts
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.beyond import what_is_untried, what_varies
from sqla_rls.analyze.worlds.counterexamples import counterexample
from sqla_rls.analyze.worlds.definitions import is_changed, may_call, names_roles, uncompared
from sqla_rls.analyze.worlds.differences import Difference, is_comparable, smallest
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import Met, refused_rows, refuses, sentences
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import Outcome, ScratchDatabase, Trial, Tried, roles_of
from sqla_rls.analyze.worlds.search import Search
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.statements import Statements
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, Values, World

Progress: TypeAlias = Callable[[int, int, str], None]

#: The worlds of one round trip.
_BATCH: Final = 32


def compare_databases(
    before: Connection,
    after: Connection,
    *,
    budget: Budget | None = None,
    schemas: Sequence[str] = (),
    left_out: Iterable[str] = (),
    progress: Progress | None = None,
) -> Comparison:
    """Compare who can do what in two scratch databases, by real statements on real rows.

    Args:
        before: a superuser's connection to the first database, with psycopg.
        after: the same for the second, on a server of its own: roles belong to a server.
        budget: how much is tried.
        schemas: the schemas whose tables and views are compared; without them, all.
        left_out: sentences for ``Scope.left_out``.
        progress: is called with the number of objects done, their number, and the next object.

    Returns:
        The changes, each with its smallest counterexample.

    Emits:
        INSERT of the rows of each world, and SELECT, INSERT, UPDATE and DELETE as each role.  All is undone.
    """
    with ThreadPoolExecutor(2) as pool:
        sides = tuple(pool.map(ScratchDatabase.open, (before, after)))
        return _Comparing(
            sides=(sides[0], sides[1]),
            budget=budget or Budget(),
            pool=pool,
            verdicts=Verdicts(left_out=list(left_out)),
        ).run(schemas, progress)


@dataclass(slots=True)
class _Tally:
    """The differences that the worlds of one object showed for one role."""

    found: dict[tuple[Command, Direction], Difference] = field(default_factory=dict)
    worlds: int = 0
    #: A row of the relation satisfies the constraints.
    has_row: bool = False
    #: An INSERT wasn't rejected by a constraint.
    has_insert: bool = False
    rejections: dict[str, int] = field(default_factory=dict)
    #: The budget's time was over before all worlds were tried.
    is_cut: bool = False
    met: Met = field(default_factory=Met)
    #: Why worlds without a difference don't say that there is none.
    untried: str | None = None

    def add(self, earlier: _Tally) -> None:
        """Add the worlds of another universe; their differences are known."""
        self.worlds += earlier.worlds
        self.has_row |= earlier.has_row
        self.has_insert |= earlier.has_insert
        self.is_cut |= earlier.is_cut
        self.met.add(earlier.met)
        for rejected, number in earlier.rejections.items():
            self.rejections[rejected] = self.rejections.get(rejected, 0) + number

    def is_about(self, universe: Universe, *commands: Command) -> bool:
        """Return whether the constraints left rows for *commands*."""
        if not universe.relation.has_rows:
            return self.worlds > 0
        return self.has_row or (self.has_insert and commands == ("INSERT",))


@dataclass(kw_only=True)
class _Comparing:
    sides: tuple[ScratchDatabase, ScratchDatabase]
    budget: Budget
    pool: ThreadPoolExecutor
    verdicts: Verdicts
    objects: int = 0
    worlds: int = 0
    statements: int = 0
    deadline: float | None = None
    #: The relation that is compared.
    about: str = ""

    @cached_property
    def joined(self) -> Schema:
        return self.schemas[0].joined(self.schemas[1])

    @property
    def schemas(self) -> tuple[Schema, Schema]:
        return self.sides[0].schema, self.sides[1].schema

    def run(self, schemas: Sequence[str], progress: Progress | None) -> Comparison:
        if self.budget.seconds is not None:
            self.deadline = time.monotonic() + self.budget.seconds
        names = [
            name
            for name in sorted({*self.schemas[0].relations, *self.schemas[1].relations})
            if not schemas or _any(self.schemas, name).schema in schemas
        ]
        roles = roles_of(self.schemas)
        roles_differ = self.schemas[0].definition_of_roles != self.schemas[1].definition_of_roles
        changed = [name for name in names if is_changed(self.schemas, name)]
        candidates = names if roles_differ else changed
        profiles = self._profiles(candidates, roles)
        if roles_differ:
            candidates = [
                name for name in names if name in set(changed) or self._profiles_differ(name, roles, profiles)
            ]
        self.verdicts.left_out += uncompared(
            (self.sides[0].connection, self.sides[1].connection), self.schemas, names
        )
        for number, name in enumerate(candidates):
            if progress is not None:
                progress(number, len(candidates), name)
            self._compare(name, roles, profiles)
        if progress is not None and candidates:
            progress(len(candidates), len(candidates), "")
        return self._result()

    def _result(self) -> Comparison:
        return self.verdicts.comparison(
            Scope(
                evaluation="scratch",
                objects=self.objects,
                worlds=self.worlds,
                statements=self.statements,
                rows_per_table=self.budget.rows,
            )
        )

    def _profiles(
        self, names: Iterable[str], roles: Sequence[str]
    ) -> tuple[Mapping[tuple[str, str], Profile], Mapping[tuple[str, str], Profile]]:
        names = list(names)
        found = []
        for side in self.sides:
            read = {
                each for name in names if name in side.schema.relations for each in side.schema.reads(name)
            }
            relations = [side.schema.relations[name] for name in sorted(read)]
            found.append(read_profiles(side.connection, relations, roles))
        return found[0], found[1]

    def _profiles_differ(self, name: str, roles: Sequence[str], profiles: tuple[Any, Any]) -> bool:
        read = self.schemas[0].reads(name) | self.schemas[1].reads(name)
        if any(names_roles(schema, name) for schema in self.schemas):
            return True
        return any(
            profiles[0].get((each, role)) != profiles[1].get((each, role)) for each in read for role in roles
        )

    def _compare(self, name: str, roles: Sequence[str], profiles: tuple[Any, Any]) -> None:
        self.objects += 1
        self.about = name
        groups: dict[Any, list[str]] = {}
        for role in roles:
            if any((name, role) in each and each[name, role].has_privileges for each in profiles):
                groups.setdefault(self._likeness(name, role, profiles), []).append(role)
        if not groups:
            return
        relation = self.joined.relations[name]
        if relation.kind == "f":
            self._not_tried(name, groups, profiles, "the rows of a foreign table can't be made")
            return
        side = self.sides[name in self.schemas[1].relations]
        shared = Shared.of(self.schemas, name)
        universe = Universe.of(relation, self.joined, shared, side.accepts, refuses=self._refuses)
        varied: Universe | None = None
        for alike in groups.values():
            held = tuple(each[name, alike[0]] for each in profiles if (name, alike[0]) in each)
            statements = Statements(universe=universe, profiles=held)
            commands = statements.commands()
            policies = {policy for profile in held for policy in profile.policies}
            if (reason := what_varies(self.schemas, name, policies)) is not None:
                for command in commands:
                    self.verdicts.add_unknown(name, alike, command, reason)
                continue
            try:
                tally = self._tally(universe, alike[0], statements)
                if not tally.is_about(universe, *commands) or self._refused(universe, tally):
                    # Only some values of the columns in constraints may be valid.
                    if varied is None:
                        varied = Universe.of(
                            relation,
                            self.joined,
                            shared,
                            side.accepts,
                            varies_checked=True,
                            refuses=self._refuses,
                        )
                    statements = Statements(universe=varied, profiles=held)
                    tally = self._tally(varied, alike[0], statements, tally)
                if tally.is_about(universe, *commands) and not tally.is_cut:
                    self.verdicts.left_out += sentences(universe, self._refused(universe, tally), tally.met)
                tally.untried = what_is_untried(self.schemas, name, policies)
                self._conclude(universe, alike, commands, tally)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                reason = f"the statements can't be tried: {str(error.orig).partition(chr(10))[0]}"
                for command in commands:
                    self.verdicts.add_unknown(name, alike, command, reason)
        self.verdicts.left_out += [*universe.left_out, *(varied.left_out if varied is not None else ())]

    def _refuses(self, relation: Relation, values: Values) -> bool:
        return any(
            refuses(side.schema, relation.name, values, side.asks)
            for side in self.sides
            if relation.name in side.schema.relations
        )

    def _refused(self, universe: Universe, tally: _Tally) -> dict[Row, str]:
        return {} if tally.is_cut else refused_rows(self.sides, universe, tally.met)

    def _not_tried(
        self, name: str, groups: Mapping[Any, Sequence[str]], profiles: tuple[Any, Any], reason: str
    ) -> None:
        universe = Universe.nothing(self.joined.relations[name], self.joined)
        for alike in groups.values():
            held = tuple(each[name, alike[0]] for each in profiles if (name, alike[0]) in each)
            for command in Statements(universe=universe, profiles=held).commands():
                self.verdicts.add_unknown(name, alike, command, reason)

    def _likeness(self, name: str, role: str, profiles: tuple[Any, Any]) -> Any:
        """Return a value that two roles have in common if each statement does the same as either."""
        if any(names_roles(schema, name) for schema in self.schemas):
            return role
        read = sorted(self.schemas[0].reads(name) | self.schemas[1].reads(name))
        own = [
            replace(profile, role="") if profile is not None else None
            for side in profiles
            for profile in (side.get((each, role)) for each in read)
        ]
        calls = []
        for side in self.sides:
            signatures = sorted(side.schema.calls(name))
            attributes = side.schema.roles.get(role)
            calls.append(attributes is not None and may_call(side.connection, role, signatures))
        return repr((own, calls))

    def _tally(
        self, universe: Universe, role: str, statements: Statements, earlier: _Tally | None = None
    ) -> _Tally:
        tally = _Tally(found={} if earlier is None else dict(earlier.found))
        self._fill(tally, universe, role, statements)
        if earlier is not None:
            tally.add(earlier)
        return tally

    def _fill(self, tally: _Tally, universe: Universe, role: str, statements: Statements) -> None:
        name, commands = universe.relation.name, statements.commands()
        actors = universe.pools.actors([role])
        self._search(tally, universe, actors, statements)
        searched = tally.worlds
        worlds = generate_worlds(universe, self.budget)
        while batch := list(
            itertools.islice(worlds, min(_BATCH, self.budget.worlds - (tally.worlds - searched)))
        ):
            if self._is_over(tally, name):
                return
            if all(_is_settled(tally, command) for command in commands):
                return
            trials = [
                Trial(world, [one for one in statements.on(world.row) if not _is_settled(tally, one.command)])
                for world in batch
            ]
            self._try([trial for trial in trials if trial.statements], actors, universe, tally)
        if next(worlds, None) is not None:
            self.verdicts.left_out.append(
                f"{name}: {self.budget.worlds} worlds were tried, and there are more within "
                f"{self.budget.rows} rows per table"
            )

    def _search(
        self, tally: _Tally, universe: Universe, actors: Sequence[Actor], statements: Statements
    ) -> None:
        """Try the worlds that a search among many rows at once finds."""

        def note(world: World, was_tried: bool, rejected: str | None) -> None:
            tally.met.note(universe, world, rejected)
            if was_tried and rejected is None:
                tally.worlds += 1
                tally.has_row |= any(row.relation == universe.relation.name for row in world.rows)

        search = Search(
            universe=universe,
            statements=statements,
            actors=actors,
            budget=self.budget,
            run=self._run,
            is_known=lambda *difference: difference in tally.found,
            note=note,
            is_over=lambda: self._is_over(tally, universe.relation.name),
        )
        for trial in search.trials():
            self._try([trial], actors, universe, tally)

    def _is_over(self, tally: _Tally, name: str) -> bool:
        """Return whether the time of the budget is over, and say so."""
        if self.deadline is None or time.monotonic() <= self.deadline:
            return False
        if not tally.is_cut:
            self.verdicts.left_out.append(f"{name}: the time was over after {tally.worlds} worlds")
            tally.is_cut = True
        return True

    def _try(
        self, trials: Sequence[Trial], actors: Sequence[Actor], universe: Universe, tally: _Tally
    ) -> None:
        for trial, before, after in zip(trials, *self._run(trials, actors), strict=True):
            rejected = before.rejected or after.rejected
            tally.met.note(universe, trial.world, rejected)
            if rejected is not None:
                tally.rejections[rejected] = tally.rejections.get(rejected, 0) + 1
                continue
            tally.worlds += 1
            tally.has_row |= trial.world.row is not None
            if not tally.has_insert:
                tally.has_insert = _has_insert(trial, actors, before, after)
            if before.results == after.results:
                continue
            asked = [(actor, statement) for actor in actors for statement in trial.statements]
            for place, (actor, statement) in enumerate(asked):
                old, new = before.outcome(place), after.outcome(place)
                if not is_comparable(trial.world, statement, old, new):
                    continue
                if new.permits_more_than(old):
                    difference = Difference(universe, trial.world, actor, statement, (old, new))
                    tally.found.setdefault((statement.command, "opens"), difference)
                if old.permits_more_than(new):
                    difference = Difference(universe, trial.world, actor, statement, (old, new))
                    tally.found.setdefault((statement.command, "closes"), difference)

    def _run(self, trials: Sequence[Trial], actors: Sequence[Actor]) -> tuple[list[Tried], list[Tried]]:
        self.worlds += len(trials)
        self.statements += sum(len(actors) * len(trial.statements) for trial in trials)
        runs = [self.pool.submit(side.run, trials, actors, about=self.about) for side in self.sides]
        # After an error of one side, its connection must wait for that of the other.
        wait(runs)
        before, after = runs[0].result(), runs[1].result()
        self._align_triggers(trials, actors, before, after)
        return before, after

    def _align_triggers(
        self, trials: Sequence[Trial], actors: Sequence[Actor], before: list[Tried], after: list[Tried]
    ) -> None:
        """Run the worlds again in which the triggers of one side alone have fired, and say so of all."""
        for found, others, side in ((before, after, self.sides[0]), (after, before, self.sides[1])):
            places = [
                place
                for place, (one, other) in enumerate(zip(found, others, strict=True))
                if other.without_triggers and not one.without_triggers and one.rejected is None
            ]
            if places:
                again = side.run_without_triggers(
                    [trials[place] for place in places], actors, about=self.about
                )
                for place, tried in zip(places, again, strict=True):
                    found[place] = tried
        for name in sorted({name for one in (*before, *after) for name in one.without_triggers}):
            sentence = f"{name}: some rows were inserted without its triggers, which refuse them"
            if sentence not in self.verdicts.left_out:
                self.verdicts.left_out.append(sentence)

    def _conclude(
        self, universe: Universe, roles: Sequence[str], commands: Sequence[Command], tally: _Tally
    ) -> None:
        name = universe.relation.name
        for command in commands:
            examples: dict[Direction, Counterexample] = {}
            varies = False
            for direction in ("opens", "closes"):
                found = tally.found.get((command, direction))
                if found is not None:
                    least = smallest(found, direction, self._run)
                    if least is None:
                        varies = True
                        continue
                    examples[direction] = counterexample(
                        least.universe,
                        least.world,
                        least.actor,
                        least.statement,
                        _told(*least.outcomes),
                        direction,
                    )
            if varies:
                self.verdicts.add_unknown(name, roles, command, "the results vary from run to run")
            # An example that repeats is a change, whatever the other direction does.
            if examples or not varies:
                self._decided(universe, roles, command, examples, tally)

    def _decided(
        self,
        universe: Universe,
        roles: Sequence[str],
        command: Command,
        examples: Mapping[Direction, Counterexample],
        tally: _Tally,
    ) -> None:
        name = universe.relation.name
        if not examples and not tally.is_about(universe, command):
            most = max(tally.rejections, key=lambda one: tally.rejections[one], default="no value fits")
            reason = TIME_OVER if tally.is_cut else f"no world satisfies the constraints: {most}"
            self.verdicts.add_unknown(name, roles, command, reason)
            return
        if not examples and any(
            schema.is_opaque(name) for schema in self.schemas if name in schema.relations
        ):
            reason = "a function runs SQL text that it computes, so it may read any table"
            self.verdicts.add_unknown(name, roles, command, reason)
            return
        if not examples and tally.untried is not None:
            self.verdicts.add_unknown(name, roles, command, tally.untried)
            return
        if not examples:
            self.verdicts.add_same(name, roles, command, tally.worlds)
            return
        for role in roles:
            self.verdicts.add_change(name, role, command, examples)


def _has_insert(trial: Trial, actors: Sequence[Actor], before: Tried, after: Tried) -> bool:
    """Return whether some INSERT got as far as a row, or was denied, on both sides."""
    asked = [statement for _ in actors for statement in trial.statements]
    return any(
        statement.command == "INSERT"
        and not any((each.outcome(place).error or "").startswith(("22", "23")) for each in (before, after))
        for place, statement in enumerate(asked)
    )


def _any(schemas: tuple[Schema, ...], name: str) -> Relation:
    return next(schema.relations[name] for schema in schemas if name in schema.relations)


def _told(before: Outcome, after: Outcome) -> tuple[str, str]:
    """Return both outcomes as text, with their rows where the numbers are equal."""
    if str(before) != str(after):
        return str(before), str(after)
    return f"{before}: {', '.join(before.rows)}", f"{after}: {', '.join(after.rows)}"


def _is_settled(tally: _Tally, command: Command) -> bool:
    return (command, "opens") in tally.found and (command, "closes") in tally.found
