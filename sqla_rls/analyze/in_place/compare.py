"""Who can do what before and after, decided on a live database without reading or changing its rows.

Postgres evaluates the policies of both sides on rows of no table.  What can't be decided in this way is
Unknown, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place.asking import access_asks_for_role
from sqla_rls.analyze.in_place.attempts import Attempt, Attempts
from sqla_rls.analyze.in_place.conditions import (
    PARTS,
    Access,
    Conditions,
    Denied,
    Part,
    Tables,
    Undecidable,
    row_of,
    unused_prefix,
)
from sqla_rls.analyze.in_place.constraints import Constraints, read_actions
from sqla_rls.analyze.in_place.decidable import Functions
from sqla_rls.analyze.in_place.definers import Name
from sqla_rls.analyze.in_place.evaluate import CONSTANTS, Answer, Evaluator, Question
from sqla_rls.analyze.in_place.inputs import Inputs
from sqla_rls.analyze.in_place.proof import is_proved
from sqla_rls.analyze.in_place.rights import Rights
from sqla_rls.analyze.in_place.sides import BothSides, Side
from sqla_rls.analyze.in_place.splice import Expression
from sqla_rls.analyze.in_place.triggers import commands_of_triggers
from sqla_rls.analyze.verdict import Budget, Comparison, Counterexample, Direction, Scope, Verdicts
from sqla_rls.analyze.why.explanation import COMMANDS, Command
from sqla_rls.analyze.why.trust import Untrusted
from sqla_rls.analyze.worlds.beyond import alike_in_all_worlds
from sqla_rls.analyze.worlds.counterexamples import counterexample, size_of
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import refusing
from sqla_rls.analyze.worlds.scratch import answer
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.catalog.query import pinned, undone

#: Milliseconds: a policy that never ends isn't decided.
STATEMENT_TIMEOUT: Final = 20_000
_DIRECTIONS: Final[tuple[Direction, ...]] = ("opens", "closes")
_OUTCOMES: Final = ("not permitted", "permitted")
_PARTS_OF: Final[Mapping[Command, tuple[Part, ...]]] = {
    "SELECT": ("select",),
    "INSERT": ("insert", "select", "update", "update_check"),
    "UPDATE": ("update", "update_check", "select"),
    "DELETE": ("delete", "select"),
}


def compare_in_place(
    connection: Connection,
    before: Side,
    after: Side,
    *,
    names: Collection[str],
    roles: Mapping[str, Collection[str]] | None = None,
    budget: Budget | None = None,
    untrusted: Untrusted | None = None,
) -> Comparison:
    """Compare who can do what with the relations *names* before and after a migration.

    Nothing is written, and no user data is read: the policies see rows that are made up.

    Args:
        connection: a connection to the database, as before the migration.
        before: the database.
        after: the database after the migration.
        names: the tables and views, ``schema.name`` as Postgres quotes it.
        roles: the only roles that are compared, of some of these.
        budget: how much is tried.
        untrusted: the objects whose code doesn't run; None in a scratch database.

    Emits:
        SELECT statements in a transaction that is read only and rolled back, with ``set_config(…, true)``
        for each caller.  They take no lock above ACCESS SHARE.

    Raises:
        AnalysisError: pglast isn't installed.
    """
    with pinned(connection):
        connection.execute(
            text(
                "SELECT pg_catalog.set_config('search_path', 'pg_catalog', true), "
                "pg_catalog.set_config('statement_timeout', :timeout, true), "
                "pg_catalog.set_config('transaction_read_only', 'on', true)"
            ),
            {"timeout": str(STATEMENT_TIMEOUT)},
        )
        both = BothSides(before, after)
        comparing = _Comparing(connection, both, budget or Budget(), roles or {}, untrusted or Untrusted())
        return comparing.run(sorted(names))


@dataclass(slots=True)
class _Likeness:
    """Roles to which the same is permitted, and what one of them may do on each side."""

    roles: list[str]
    profiles: tuple[Profile, ...]


@dataclass(slots=True)
class _Found:
    """An attempt that is permitted on one side only; the smallest has the least order."""

    attempt: Attempt
    actor: Actor
    order: tuple[int, int, int]


@dataclass(slots=True)
class _Part:
    """A part of row security on both sides: conditions as SQL."""

    conditions: tuple[str, str]
    expressions: frozenset[Expression]
    obstacle: str | None = None

    @property
    def is_same(self) -> bool:
        return self.obstacle is None and self.conditions[0] == self.conditions[1]


class _Comparing:
    def __init__(
        self,
        connection: Connection,
        sides: BothSides,
        budget: Budget,
        only: Mapping[str, Collection[str]],
        untrusted: Untrusted,
    ) -> None:
        self.connection, self.sides, self.budget, self.only = connection, sides, budget, only
        self.evaluator = Evaluator(connection)
        self.joined = sides.joined
        self.functions = Functions(connection, self.joined.implied)
        self.deadline = None if budget.seconds is None else time.monotonic() + budget.seconds
        self.verdicts = Verdicts()
        self.worlds = 0
        self.actions: Mapping[tuple[str, str, str], tuple[str, str]] = {}
        # A migration may add a type.
        self.inputs = Inputs(self.joined.version, may_lack_types=True)
        self.rights = Rights(connection, self.functions, own_role="the migrating role")
        self.untrusted = untrusted

    def run(self, names: Sequence[str]) -> Comparison:
        self.actions = read_actions(self.connection)
        for name in names:
            self._compare(name)

        return self.verdicts.comparison(
            Scope(
                evaluation="in place",
                objects=len(names),
                worlds=self.worlds,
                statements=self.evaluator.statements,
                rows_per_table=self.budget.rows,
            )
        )

    def _compare(self, name: str) -> None:
        groups: dict[Any, _Likeness] = {}
        for role in self.sides.roles(name):
            if name in self.only and role not in self.only[name]:
                continue
            profiles = tuple(
                side.profiles[name, role] for side in self.sides if (name, role) in side.profiles
            )
            if any(profile.has_privileges for profile in profiles):
                alike = groups.setdefault(self._likeness(name, role), _Likeness([], profiles))
                alike.roles.append(role)
        universe: Universe | None = None
        for alike in groups.values():
            obstacle = self.sides.obstacle(name, alike.roles[0]) or self.untrusted.obstacle(
                self.joined.reads(name), self.joined.calls(name)
            )
            if obstacle is None:
                try:
                    with undone(self.connection):
                        universe = universe or self._universe(name)
                        self._decide(universe, alike)
                    continue
                except Undecidable as error:
                    obstacle = str(error)
                except DBAPIError as error:
                    if error.connection_invalidated:
                        raise
                    obstacle = str(error.orig).partition("\n")[0]
            for command in _commands(alike.profiles):
                self.verdicts.add_unknown(name, alike.roles, command, obstacle)

    def _likeness(self, name: str, role: str) -> Any:
        """Return a value that two roles have in common if the same is permitted to both."""
        read = self.sides.read(name)
        held = [side.profiles.get((one, role)) for side in self.sides for one in read]
        expressions = self.sides.expressions(read)
        asks = any(
            access_asks_for_role(schema, [one for one in read if one in schema.relations])
            for schema in self.sides.schemas
        )
        return repr(
            (
                [None if profile is None else replace(profile, role="") for profile in held],
                self.rights.of(role, expressions),
                [side.doubts.get((one, role)) for side in self.sides for one in read],
                role if asks else "",
            )
        )

    def _universe(self, name: str, *, varies_checked: bool = False) -> Universe:
        shared = Shared.of(self.sides.schemas, name)
        return Universe.of(
            self.joined.relations[name],
            self.joined,
            shared,
            self._accepts,
            varies_checked=varies_checked,
            refuses=refusing(self.joined, self._asks),
        )

    def _asks(self, statement: str) -> bool | None:
        with undone(self.connection):
            return answer(self.connection, statement)

    def _accepts(self, type_: str, value: str) -> bool:
        return self.inputs.accept(self.connection, type_, value)

    def _decide(self, universe: Universe, alike: _Likeness) -> None:
        name, role = universe.relation.name, alike.roles[0]
        self.sides.require_same_columns(name)
        tables = Tables(unused_prefix(self.sides.schemas))
        parts: dict[Part, _Part] = {part: self._part(name, role, part, tables) for part in PARTS}
        keeps_privileges = self.sides.keeps_privileges(name, role)
        before, after = (schema.relations[name] for schema in self.sides.schemas)
        triggered = commands_of_triggers(before) | commands_of_triggers(after)
        surroundings_are_same = not triggered or self.sides.is_same_around(name, role)
        open_: list[Command] = []
        for command in _commands(alike.profiles):
            needed = [parts[part] for part in _PARTS_OF[command]]
            obstacle = next((one.obstacle for one in needed if one.obstacle is not None), None)
            is_same = keeps_privileges and all(one.is_same for one in needed)
            if is_same and (command not in triggered or surroundings_are_same):
                self.verdicts.add_same(name, alike.roles, command, worlds=0)
            elif obstacle is not None:
                self.verdicts.add_unknown(name, alike.roles, command, obstacle)
            elif command in triggered:
                self.verdicts.add_unknown(
                    name, alike.roles, command, "a trigger may change or refuse the row"
                )
            else:
                open_.append(command)
        if not open_:
            return
        try:
            # Which rows there may be, the constraints of the database before decide.
            self._require_same(self.sides.constraints(name))
        except Undecidable as error:
            for command in open_:
                self.verdicts.add_unknown(name, alike.roles, command, str(error))
        else:
            self._try(universe, alike, open_, parts, tables)

    def _part(self, name: str, role: str, part: Part, tables: Tables) -> _Part:
        conditions: list[str] = []
        expressions: set[Expression] = set()
        queries: set[Expression] = set()
        replaced: set[Name] = set()
        kept: set[Name] = set()
        try:
            for side in self.sides:
                profiles = {one: held for (one, each), held in side.profiles.items() if each == role}
                if name not in profiles:
                    conditions.append("false")
                    continue
                asked = Conditions(
                    Access(side.schema, role, profiles),
                    tables,
                    definers=side.definers,
                    owners=side.profiles,
                )
                try:
                    conditions.append(asked.of(name, part))
                except Denied:
                    conditions.append("false")
                expressions |= asked.expressions
                queries |= asked.queries
                replaced |= asked.replaced
                kept |= asked.kept
            replaced -= kept
            self.functions.require_decidable(expressions, but=replaced)
            self.functions.require_no_catalog_columns(
                [self.joined.relations[one] for one in self.sides.read(name)], expressions
            )
            generated = self.sides.generated(name, expressions)
            self.functions.require_decidable(generated)
            self._require_same([*expressions, *generated], but_bodies=replaced)
            self._require_callable(role, expressions, queries)
            self._require_same_groups(role, expressions)
        except Undecidable as error:
            return _Part(("", ""), frozenset(), str(error))
        return _Part((conditions[0], conditions[1]), frozenset(expressions))

    def _require_same(self, expressions: Sequence[Expression], *, but_bodies: Collection[Name] = ()) -> None:
        """Raise Undecidable if a function or a domain that *expressions* reach changes."""
        self.sides.require_same_functions(self.functions.signatures(expressions), but_bodies=but_bodies)
        self.sides.require_same_types(self.functions.types(expressions))

    def _require_callable(
        self, role: str, expressions: Collection[Expression], queries: Collection[Expression]
    ) -> None:
        """Raise Undecidable if *queries* in place of calls may say something else than the functions."""
        if not queries:
            return
        # The function would run as its owner.
        if self.functions.ask_for_role(queries):
            raise Undecidable("a function that a policy calls asks for the role of its owner")
        if not self.rights.of(role, expressions)["may_execute"]:
            raise Undecidable(f"role {role} may not execute a function that a policy calls")

    def _require_same_groups(self, role: str, expressions: Collection[Expression]) -> None:
        """Raise Undecidable if the groups of *role* may decide, and the migration changes them."""
        if role not in self.sides.after.regrouped:
            return
        if self.functions.ask_for_role(expressions):
            raise Undecidable(f"a policy asks for the role, and role {role} gets other groups")
        if not self.rights.of("", expressions)["may_execute"]:
            raise Undecidable(f"role {role} gets other groups, which may execute other functions")

    def _try(
        self,
        universe: Universe,
        alike: _Likeness,
        commands: Sequence[Command],
        parts: Mapping[Part, _Part],
        tables: Tables,
        *,
        is_varied: bool = False,
    ) -> None:
        name, role = universe.relation.name, alike.roles[0]
        constraints = Constraints(self.joined, universe.relation, self.evaluator, self.actions)
        attempts = Attempts(universe, alike.profiles, constraints)
        constraints.learn(row for rows in universe.rows.values() for row in rows)
        tried = attempts.within(self.budget)
        if not is_varied and not {one.statement.command for one in tried} >= {*commands} - {*attempts.doubts}:
            # Only some values of the columns in constraints may be valid.
            varied = self._universe(name, varies_checked=True)
            self._try(varied, alike, commands, parts, tables, is_varied=True)
            return
        for command in commands:
            if command in attempts.doubts:
                self.verdicts.add_unknown(name, alike.roles, command, attempts.doubts[command])
        commands = [command for command in commands if command not in attempts.doubts]
        tried = [attempt for attempt in tried if attempt.statement.command in commands]
        self.worlds += attempts.worlds
        needed = [parts[part] for part in PARTS if any(part in _PARTS_OF[command] for command in commands)]
        conditions = dict.fromkeys(sql for part in needed for sql in part.conditions)
        asked = tuple(sql for sql in conditions if sql not in ("true", "false"))
        expressions = {one for part in needed for one in part.expressions}
        as_role = self.rights.evaluates_as(role, expressions)
        question = Question(
            asked,
            tables.definitions,
            row_of(universe.relation),
            forgets_plans=self.functions.may_be_frozen(expressions),
        )
        actors = universe.pools.actors([role])
        found: dict[tuple[Command, Direction], _Found] = {}
        is_pointwise = dict.fromkeys(PARTS, True)
        attempted = {attempt.statement.command for attempt in tried}
        settings = universe.pools.vocabulary.settings
        with self.evaluator.units(attempts.units):
            for place, actor in enumerate(actors):
                if self.deadline is not None and time.monotonic() > self.deadline:
                    self.verdicts.left_out.append(
                        f"{name}: {self.budget.time_over} after {place} of {len(actors)} callers"
                    )
                    raise Undecidable(self.budget.time_over)
                rows = self.evaluator.answers(
                    question, len(attempts.units), actor, as_role=as_role, settings=settings
                )
                answers = [{**dict(zip(asked, row, strict=True)), **CONSTANTS} for row in rows]
                self._tally(tried, actor, answers, parts, role, name, found)
                for part in PARTS:
                    if parts[part] in needed:
                        old, new = parts[part].conditions
                        is_pointwise[part] &= all(row[old] == row[new] for row in answers)
        exhausted = attempts.is_exhausted and not universe.left_out
        for command in commands:
            proved = (
                exhausted
                and command != "UPDATE"
                and all(is_pointwise[part] for part in _PARTS_OF[command])
                and is_proved(
                    universe.relation,
                    {one for p in _PARTS_OF[command] for one in parts[p].expressions},
                    [unit.row for unit in attempts.units],
                )
            )
            worlds = attempts.worlds if command in attempted else 0
            untried = self.functions.untried(one for p in _PARTS_OF[command] for one in parts[p].expressions)
            self._conclude(universe, alike, command, found, worlds, proved, untried)
        self.verdicts.left_out += universe.left_out

    def _tally(
        self,
        tried: Sequence[Attempt],
        actor: Actor,
        answers: Sequence[Mapping[str, Answer]],
        parts: Mapping[Part, _Part],
        role: str,
        name: str,
        found: dict[tuple[Command, Direction], _Found],
    ) -> None:
        for number, attempt in enumerate(tried):
            permitted = []
            for place, side in enumerate(self.sides):
                profile = side.profiles.get((name, role))
                permitted.append(
                    profile is not None
                    and attempt.has_privileges(profile)
                    and all(answers[unit][parts[part].conditions[place]] for unit, part in attempt.needs)
                    and all(
                        answers[unit][parts[part].conditions[place]] is not None
                        for unit, part in attempt.others
                    )
                )
            if permitted[0] == permitted[1]:
                continue
            direction: Direction = "opens" if permitted[1] else "closes"
            order = (len(attempt.world.all_rows), size_of(actor), number)
            known = found.get((attempt.statement.command, direction))
            if known is None or order < known.order:
                found[attempt.statement.command, direction] = _Found(attempt, actor, order)

    def _conclude(
        self,
        universe: Universe,
        alike: _Likeness,
        command: Command,
        found: Mapping[tuple[Command, Direction], _Found],
        worlds: int,
        proved: bool,
        untried: Sequence[str],
    ) -> None:
        name = universe.relation.name
        for role in alike.roles:
            examples: dict[Direction, Counterexample] = {
                direction: counterexample(
                    universe,
                    one.attempt.world,
                    replace(one.actor, role=role),
                    one.attempt.statement,
                    (_OUTCOMES[direction == "closes"], _OUTCOMES[direction == "opens"]),
                    direction,
                )
                for direction in _DIRECTIONS
                if (one := found.get((command, direction))) is not None
            }
            if examples:
                self.verdicts.add_change(name, role, command, examples)
            elif not worlds:
                reason = "no row of the worlds satisfies the constraints"
                self.verdicts.add_unknown(name, [role], command, reason)
            elif untried:
                self.verdicts.add_unknown(name, [role], command, alike_in_all_worlds(untried))
            else:
                self.verdicts.add_same(name, [role], command, worlds, proved=proved)


def _commands(profiles: Sequence[Profile]) -> list[Command]:
    held: Mapping[Command, bool] = {
        "SELECT": any(one.selects for one in profiles),
        "INSERT": any(one.inserts for one in profiles),
        "UPDATE": any(one.updates for one in profiles),
        "DELETE": any(one.delete for one in profiles),
    }
    return [command for command in COMMANDS if held[command]]
