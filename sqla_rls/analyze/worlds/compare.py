"""Who can do what in one database and not in another: the same statements, tried in both.

Two databases with the same definitions permit the same.  Where a definition differs, worlds are tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.verdict import Budget, Comparison, Counterexample, Direction, Progress, Scope, Verdicts
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.beyond import may_ask_for_catalog, what_is_untried, what_varies
from sqla_rls.analyze.worlds.counterexamples import counterexample
from sqla_rls.analyze.worlds.definitions import is_changed, may_call, names_roles, uncompared
from sqla_rls.analyze.worlds.differences import Difference, again, is_comparable, smallest
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.limit import TimeIsOver, TimeLimit
from sqla_rls.analyze.worlds.objects import Profile, Relation
from sqla_rls.analyze.worlds.pools import Actor, asks_for_role_claim
from sqla_rls.analyze.worlds.refused import refused_rows, refuses, sentences
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import Outcome, ScratchDatabase, Trial, Tried, roles_of
from sqla_rls.analyze.worlds.search import Search
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.statements import Statements
from sqla_rls.analyze.worlds.tally import Group, Tally, has_insert
from sqla_rls.analyze.worlds.unchanged import Profiles, Unchanged
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row, Values, World

#: The part of a share of the time that is worth a second attempt.
_MUCH_MORE: Final = 1.5
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
    have_same_catalog: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Compare who can do what in two scratch databases, by real statements on real rows.

    Args:
        before: a superuser's connection to the first database, with psycopg.
        after: the same for the second, on a server of its own: roles belong to a server.
        budget: how much is tried.
        schemas: the schemas whose tables and views are compared; without them, all.
        left_out: sentences for ``Scope.left_out``.
        progress: is called with the number of objects done, their number, and the next object.
        have_same_catalog: whether the whole catalogs were shown to be the same.  It is called only if no
            definition differs, and some policy may ask for any fact of the catalog.

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
            have_same_catalog=have_same_catalog,
        ).run(schemas, progress)


@dataclass(slots=True)
class _Task:
    """A group whose commands on an object worlds decide."""

    name: str
    group: Group
    universes: _Universes
    tally: Tally = field(default_factory=Tally)


@dataclass(kw_only=True)
class _Comparing:
    sides: tuple[ScratchDatabase, ScratchDatabase]
    budget: Budget
    pool: ThreadPoolExecutor
    verdicts: Verdicts
    have_same_catalog: Callable[[], bool]
    objects: int = 0
    worlds: int = 0
    statements: int = 0
    limit: TimeLimit = field(default_factory=TimeLimit)
    #: The relation that is compared.
    about: str = ""

    @cached_property
    def joined(self) -> Schema:
        return self.schemas[0].joined(self.schemas[1])

    @property
    def schemas(self) -> tuple[Schema, Schema]:
        return self.sides[0].schema, self.sides[1].schema

    def run(self, schemas: Sequence[str], progress: Progress | None) -> Comparison:
        self.limit = TimeLimit(self.budget.seconds)
        names = [
            name
            for name in sorted({*self.schemas[0].relations, *self.schemas[1].relations})
            if not schemas or _any(self.schemas, name).schema in schemas
        ]
        roles = roles_of(self.schemas)
        roles_differ = self.schemas[0].definition_of_roles != self.schemas[1].definition_of_roles
        changed = [name for name in names if is_changed(self.schemas, name)]
        asking = [name for name in names if may_ask_for_catalog(self.schemas[0], name)]
        if asking and not (roles_differ or changed or not self.have_same_catalog()):
            asking = []
        changed = sorted({*changed, *asking})
        candidates = names if roles_differ else changed
        profiles = self._profiles(candidates, roles)
        if roles_differ:
            candidates = [
                name for name in names if name in set(changed) or self._profiles_differ(name, roles, profiles)
            ]
        self.verdicts.left_out += uncompared(
            (self.sides[0].connection, self.sides[1].connection), self.schemas, names
        )
        unchanged = Unchanged(schemas=self.schemas, profiles=profiles, may_call=self._may_call)
        tasks = [task for name in candidates for task in self._tasks(name, roles, profiles, unchanged)]
        self.objects = len(candidates)
        places = {name: place for place, name in enumerate(candidates)}
        share = self.limit.share(max(len(tasks), 1))
        cut: list[_Task] = []
        for number, task in enumerate(tasks):
            if progress is not None:
                progress(places[task.name], len(candidates), task.name)
            with self.limit.one_of(len(tasks) - number):
                if not self._decide(task):
                    cut.append(task)
        for number, task in enumerate(cut):
            # Others may have left time.
            if self.limit.share(len(cut) - number) > _MUCH_MORE * share:
                with self.limit.one_of(len(cut) - number):
                    if self._decide(task):
                        continue
            try:
                self._conclude(task)
            except DBAPIError as error:
                self._not_tried(task, error)
        for universes in dict.fromkeys(task.universes for task in tasks):
            self.verdicts.left_out += universes.left_out
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

    def _tasks(
        self, name: str, roles: Sequence[str], profiles: tuple[Profiles, Profiles], unchanged: Unchanged
    ) -> Iterator[_Task]:
        """Yield the groups of *roles* that worlds decide about."""
        relation = self.joined.relations[name]
        nothing = Universe.nothing(relation, self.joined)
        groups: dict[Any, Group] = {}
        universes = _Universes(self, relation)
        for role in roles:
            if not any((name, role) in each and each[name, role].has_privileges for each in profiles):
                continue
            held = tuple(each[name, role] for each in profiles if (name, role) in each)
            commands = Statements(universe=nothing, profiles=held).commands()
            same = unchanged.of(name, role, commands)
            for command in same:
                self.verdicts.add_same(name, [role], command, 0)
            asked: list[Command] = [command for command in commands if command not in same]
            if asked:
                own = role if asks_for_role_claim(universes.shared.vocabulary) else ""
                alike = self._likeness(name, role, profiles), same, own
                groups.setdefault(alike, Group(held, asked, same)).roles.append(role)
        for group in groups.values():
            if relation.kind == "f":
                self._not_decided(name, group, "the rows of a foreign table can't be made")
            elif (reason := what_varies(self.schemas, name, group.policies)) is not None:
                self._not_decided(name, group, reason)
            else:
                yield _Task(name, group, universes)

    def _decide(self, task: _Task) -> bool:
        """Find the verdicts of *task*; return False if it needs more time."""
        self.about = task.name
        earlier = task.tally
        try:
            try:
                task.tally = self._tried_worlds(task)
            except TimeIsOver:
                # Without time for the universe, there are no worlds.
                task.tally = Tally(unchanged=task.group.unchanged, is_cut=True)
            if task.tally.is_cut:
                task.tally.found = {**earlier.found, **task.tally.found}
                task.tally.worlds = max(earlier.worlds, task.tally.worlds)
                return False
            self._conclude(task)
        except DBAPIError as error:
            self._not_tried(task, error)
        return True

    def _not_tried(self, task: _Task, error: DBAPIError) -> None:
        if error.connection_invalidated:
            raise error
        first_line = str(error.orig).partition(chr(10))[0]
        self._not_decided(task.name, task.group, f"the statements can't be tried: {first_line}")

    def _tried_worlds(self, task: _Task) -> Tally:
        group, universe = task.group, task.universes.plain
        tally = self._tally(universe, group)
        if not tally.is_cut and (
            not tally.is_about(universe, *group.commands) or self._refused(universe, tally)
        ):
            # Only some values of the columns in constraints may be valid.
            try:
                tally = self._tally(task.universes.varied, group, tally)
            except TimeIsOver:
                tally.is_cut = True
        if tally.is_about(universe, *group.commands) and not tally.is_cut:
            self.verdicts.left_out += sentences(universe, self._refused(universe, tally), tally.met)
        return tally

    def _not_decided(self, name: str, group: Group, reason: str) -> None:
        for command in group.commands:
            self.verdicts.add_unknown(name, group.roles, command, reason)

    def _time_over(self, tally: Tally) -> str:
        return f"{self.budget.time_over} after {tally.worlds} worlds"

    def _refuses(self, relation: Relation, values: Values) -> bool:
        self.limit.check()
        return any(
            refuses(side.schema, relation.name, values, side.asks)
            for side in self.sides
            if relation.name in side.schema.relations
        )

    def _refused(self, universe: Universe, tally: Tally) -> dict[Row, str]:
        return {} if tally.is_cut else refused_rows(self.sides, universe, tally.met)

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
            signatures = side.schema.calls(name)
            calls.append(role in side.schema.roles and may_call(side.connection, role, signatures))
        return repr((own, calls))

    def _may_call(self, side: int, role: str) -> Mapping[str, tuple[bool, bool]]:
        schema = self.sides[side].schema
        return may_call(self.sides[side].connection, role, schema.functions) if role in schema.roles else {}

    def _tally(self, universe: Universe, group: Group, earlier: Tally | None = None) -> Tally:
        tally = Tally(
            found={} if earlier is None else dict(earlier.found),
            unchanged=group.unchanged,
        )
        try:
            self._fill(tally, universe, group)
        except TimeIsOver:
            tally.is_cut = True
        if earlier is not None:
            tally.add(earlier)
        return tally

    def _fill(self, tally: Tally, universe: Universe, group: Group) -> None:
        name = universe.relation.name
        statements = Statements(universe=universe, profiles=group.profiles)
        actors = universe.pools.actors(group.roles[:1])
        self._search(tally, universe, actors, statements)
        searched = tally.worlds
        worlds = generate_worlds(universe, self.budget)
        while batch := list(
            itertools.islice(worlds, min(_BATCH, self.budget.worlds - (tally.worlds - searched)))
        ):
            self.limit.check()
            if all(map(tally.is_settled, group.commands)):
                return
            trials = [
                Trial(world, [one for one in statements.on(world.row) if not tally.is_settled(one.command)])
                for world in batch
            ]
            self._try([trial for trial in trials if trial.statements], actors, universe, tally)
        if next(worlds, None) is not None:
            self.verdicts.left_out.append(
                f"{name}: {self.budget.worlds} worlds were tried, and there are more within "
                f"{self.budget.rows} rows per table"
            )

    def _search(
        self, tally: Tally, universe: Universe, actors: Sequence[Actor], statements: Statements
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
            is_known=tally.is_known,
            note=note,
        )
        for trial in search.trials():
            self._try([trial], actors, universe, tally)

    def _try(
        self, trials: Sequence[Trial], actors: Sequence[Actor], universe: Universe, tally: Tally
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
                tally.has_insert = has_insert(trial, actors, before, after)
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
        runs = [
            self.pool.submit(side.run, trials, actors, about=self.about, limit=self.limit)
            for side in self.sides
        ]
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
                    [trials[place] for place in places], actors, about=self.about, limit=self.limit
                )
                for place, tried in zip(places, again, strict=True):
                    found[place] = tried
        for name in sorted({name for one in (*before, *after) for name in one.without_triggers}):
            sentence = f"{name}: some rows were inserted without its triggers, which refuse them"
            if sentence not in self.verdicts.left_out:
                self.verdicts.left_out.append(sentence)

    def _conclude(self, task: _Task) -> None:
        name, group, tally = task.name, task.group, task.tally
        self.about = name
        if tally.is_cut:
            self.verdicts.left_out.append(f"{name}: {self._time_over(tally)}")
        for command in group.commands:
            examples: dict[Direction, Mapping[str, Counterexample]] = {}
            reason: str | None = None
            for direction in ("opens", "closes"):
                found = tally.found.get((command, direction))
                if found is None:
                    continue
                try:
                    shown = self._shown(found, direction, group.roles)
                except TimeIsOver:
                    reason = f"{self.budget.time_over} before a difference was tried again: {direction}"
                    continue
                if shown is None:
                    reason = "the results vary from run to run"
                    continue
                examples[direction] = shown
            if reason is not None:
                self.verdicts.add_unknown(name, group.roles, command, reason)
            if examples:
                # An example that repeats is a change, whatever the other direction does.
                for role in group.roles:
                    own: dict[Direction, Counterexample] = {
                        direction: shown[role] for direction, shown in examples.items()
                    }
                    self.verdicts.add_change(name, role, command, own)
            elif reason is None and (doubt := self._doubt(task, command)) is not None:
                self.verdicts.add_unknown(name, group.roles, command, doubt)
            elif reason is None:
                self.verdicts.add_same(name, group.roles, command, tally.worlds)

    def _shown(
        self, found: Difference, direction: Direction, roles: Sequence[str]
    ) -> Mapping[str, Counterexample] | None:
        """Return a counterexample of each of *roles*; None: the difference doesn't come again."""
        is_late = self.limit.is_late()
        with self.limit.last():
            least = smallest(found, direction, self._run, is_late=is_late)
            if least is None:
                return None
            examples: dict[str, Counterexample] = {}
            for role in roles:
                actor = replace(least.actor, role=role)
                own = again(least, least.world, actor, direction, self._run)
                if own is None:
                    return None
                outcomes = _told(*own.outcomes)
                examples[role] = counterexample(
                    own.universe, own.world, actor, own.statement, outcomes, direction
                )
            return examples

    def _doubt(self, task: _Task, command: Command) -> str | None:
        """Return why worlds without a difference don't say that there is none."""
        name, tally = task.name, task.tally
        if tally.is_cut:
            return self._time_over(tally)
        if not tally.is_about(task.universes.plain, command):
            most = max(tally.rejections, key=lambda one: tally.rejections[one], default="no value fits")
            return f"no world satisfies the constraints: {most}"
        if any(schema.is_opaque(name) for schema in self.schemas if name in schema.relations):
            return "a function runs SQL text that it computes, so it may read any table"
        return what_is_untried(self.schemas, name, task.group.policies)


@dataclass(eq=False)
class _Universes:
    """The universes of a relation, which are made when they are needed."""

    comparing: _Comparing
    relation: Relation

    @cached_property
    def plain(self) -> Universe:
        return self._made(varies_checked=False)

    @cached_property
    def varied(self) -> Universe:
        """That with other values in the columns of constraints, too."""
        return self._made(varies_checked=True)

    @cached_property
    def shared(self) -> Shared:
        """The vocabulary of both sides."""
        return Shared.of(self.comparing.schemas, self.relation.name)

    @property
    def left_out(self) -> list[str]:
        """What the budget leaves out of the universes that were made."""
        made = [vars(self)[name] for name in ("plain", "varied") if name in vars(self)]
        return [sentence for one in made for sentence in one.left_out]

    def _made(self, *, varies_checked: bool) -> Universe:
        comparing, name = self.comparing, self.relation.name
        side = comparing.sides[name in comparing.schemas[1].relations]

        def accepts(type_: str, value: str) -> bool:
            comparing.limit.check()
            return side.accepts(type_, value)

        made = Universe.of(
            self.relation,
            comparing.joined,
            self.shared,
            accepts,
            varies_checked=varies_checked,
            refuses=comparing._refuses,
        )
        made.check_time = comparing.limit.check
        return made


def _any(schemas: tuple[Schema, ...], name: str) -> Relation:
    return next(schema.relations[name] for schema in schemas if name in schema.relations)


def _told(before: Outcome, after: Outcome) -> tuple[str, str]:
    """Return both outcomes as text, with their rows where the numbers are equal."""
    if str(before) != str(after):
        return str(before), str(after)
    return f"{before}: {', '.join(before.rows)}", f"{after}: {', '.join(after.rows)}"
