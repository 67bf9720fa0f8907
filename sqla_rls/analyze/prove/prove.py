"""Compares the rights that Postgres grants with the intent, by real statements on real rows."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, MetaData, text

from sqla_rls.analyze.prove.attempts import Attempt, Attempts
from sqla_rls.analyze.prove.mutants import run
from sqla_rls.analyze.prove.oracle import COMMANDS, Decision, Oracle
from sqla_rls.analyze.prove.proof import Direction, Kept, NotStated, Proof, Violation
from sqla_rls.analyze.prove.worlds import Tables, as_row, caller_of
from sqla_rls.analyze.verdict import Budget, Scope
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.generate import Row, Universe, World
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Profile, Relation, Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import Outcome, ScratchDatabase, Trial, roles_of
from sqla_rls.analyze.worlds.statements import Statement
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller

#: A role and a command.
Pair: TypeAlias = tuple[str, Command]
#: The most worlds that are sent together.
_BATCH: Final = 16
Progress: TypeAlias = Callable[[int, int, str], None]

_VERBS: Final[Mapping[Command, str]] = {
    "SELECT": "read",
    "INSERT": "insert",
    "UPDATE": "update",
    "DELETE": "delete",
}


def prove(
    connection: Connection,
    metadatas: Iterable[MetaData],
    *,
    budget: Budget | None = None,
    schemas: Sequence[str] = (),
    left_out: Iterable[str] = (),
    progress: Progress | None = None,
) -> Proof:
    """Try every command of every role on the protected tables of a scratch database.

    Each table is opened once, and the run must notice that.

    Args:
        connection: a superuser's connection to a scratch database, with psycopg.
        metadatas: the models with the intents.
        budget: how much is tried.
        schemas: the schemas whose tables and views are tried; without them, all.
        left_out: sentences for ``Scope.left_out``.
        progress: is called with the number of objects done, their number, and the next object.

    Raises:
        AnalysisError: an intent raises an error, or the run wouldn't notice a hole.

    Emits:
        INSERT of the rows of each world, and SELECT, INSERT, UPDATE and DELETE as each role.  All is undone.
    """
    prover = Prover.of(connection, metadatas, budget or Budget())
    return prover.run(schemas, left_out, progress)


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


@dataclass(kw_only=True)
class Prover:
    """Tries statements in a scratch database, and compares them with the intents."""

    scratch: ScratchDatabase
    oracle: Oracle
    budget: Budget
    superuser: str
    roles: Sequence[str]
    deadline: float | None = None
    #: The tables and views that lack a part.
    incomplete: frozenset[str] = frozenset()
    _accepted: dict[tuple[str, str], bool] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        connection: Connection,
        metadatas: Iterable[MetaData],
        budget: Budget,
        *,
        incomplete: frozenset[str] = frozenset(),
    ) -> Prover:
        scratch = ScratchDatabase.open(connection)
        oracle = Oracle(
            metadatas=tuple(metadatas),
            default_schema=scratch.connection.dialect.default_schema_name or "public",
        )
        schema = scratch.schema
        roles = [role for role in roles_of([schema]) if not schema.roles[role].bypasses_row_security]
        deadline = None if budget.seconds is None else time.monotonic() + budget.seconds
        return cls(
            scratch=scratch,
            oracle=oracle,
            budget=budget,
            superuser=str(scratch.connection.scalar(text("SELECT current_user"))),
            roles=roles,
            deadline=deadline,
            incomplete=incomplete,
        )

    def objects(self, schemas: Sequence[str] = ()) -> list[str]:
        """Return the tables and views that are tried."""
        return [
            name
            for name, relation in sorted(self.scratch.schema.relations.items())
            if (not schemas or relation.schema in schemas)
            and relation.kind in ("r", "p", "v")
            and (relation.row_security or relation.is_view or self.oracle.concerns(relation))
        ]

    def run(self, schemas: Sequence[str], left_out: Iterable[str], progress: Progress | None) -> Proof:
        violations: list[Violation] = []
        not_stated: list[NotStated] = []
        kept: list[Kept] = []
        omitted = [*left_out, *self._left_out()]
        worlds = statements = controls = 0
        names = self.objects(schemas)
        for number, name in enumerate(names):
            if progress is not None:
                progress(number, len(names), name)
            decided, undecided = self._decisions(name)
            not_stated += undecided
            if self.scratch.schema.reads(name) & self.incomplete:
                reason = "the scratch database lacks a part of it, or of a table that its policies read"
                not_stated += [NotStated(object=name, role=r, command=c, reason=reason) for r, c in decided]
                continue
            tally = self.attempt(name, decided, self.scratch.schema)
            worlds += tally.worlds
            statements += sum(tally.statements.values())
            violations += tally.violations.values()
            omitted += tally.left_out
            broken = {(one.role, one.command) for one in tally.violations.values()}
            if not tally.worlds and decided:
                most = tally.rejections.most_common(1)
                reason = f"no world satisfies the constraints: {most[0][0] if most else 'no value fits'}"
                not_stated += [NotStated(object=name, role=r, command=c, reason=reason) for r, c in decided]
                continue
            noticed = self._control(name, decided, tally)
            for (role, command), decision in decided.items():
                if (role, command) in broken:
                    continue
                if (control := noticed.get((role, command))) is None:
                    reason = "no statement could be compared with the intent in the worlds that were tried"
                    not_stated.append(NotStated(object=name, role=role, command=command, reason=reason))
                    continue
                controls += 1
                kept.append(
                    Kept(
                        object=name,
                        role=role,
                        command=command,
                        source=decision.source,
                        statements=tally.statements[role, command],
                        control=control,
                    )
                )
        if progress is not None and names:
            progress(len(names), len(names), "")

        def order(one: Any) -> tuple[str, str, str]:
            return one.object, one.role, one.command

        return Proof(
            violations=tuple(sorted(violations, key=order)),
            not_stated=tuple(sorted(not_stated, key=order)),
            kept=tuple(sorted(kept, key=order)),
            scope=Scope(
                evaluation="scratch",
                objects=len(names),
                worlds=worlds,
                statements=statements,
                rows_per_table=self.budget.rows,
                left_out=tuple(dict.fromkeys(omitted)),
            ),
            controls=controls,
        )

    def _left_out(self) -> Iterator[str]:
        for role in self.scratch.schema.roles.values():
            if role.bypasses_row_security and not role.is_superuser:
                yield f"Role {role.name} bypasses row security: it isn't tried."

    def _decisions(self, name: str) -> tuple[dict[Pair, Decision], list[NotStated]]:
        relation = self.scratch.schema.relations[name]
        profiles = read_profiles(self.scratch.connection, [relation], self.roles)
        decided: dict[Pair, Decision] = {}
        undecided: list[NotStated] = []
        for role in self.roles:
            profile = profiles[name, role]
            if profile.owns and not relation.forced:
                continue
            for command in COMMANDS:
                if relation.is_view and command != "SELECT":
                    continue
                found = self.oracle.decide(relation, command, role)
                if isinstance(found, Decision):
                    decided[role, command] = found
                elif _has_privilege(profile, command):
                    undecided.append(NotStated(object=name, role=role, command=command, reason=found))
        return decided, undecided

    def decisions(self, name: str) -> dict[Pair, Decision]:
        """Return the intents for a table or view."""
        return self._decisions(name)[0]

    def _control(self, name: str, decided: Mapping[Pair, Decision], tally: Tally) -> dict[Pair, Any]:
        """Open the table, and require that each pair notices; close it for pairs that refuse nothing."""
        broken = {(one.role, one.command) for one in tally.violations.values()}
        tried = {pair: one for pair, one in decided.items() if tally.statements[pair] and pair not in broken}
        opened = {pair: one for pair, one in tried.items() if pair in tally.refused}
        closed = {
            pair: one
            for pair, one in tried.items()
            if pair not in opened and pair in tally.permitted and one.is_exact
        }
        noticed: dict[Pair, Any] = {}
        relation = self.scratch.schema.relations[name]
        for pairs, statements, direction, control in (
            (opened, _opening(relation, self.roles), "more", "hole"),
            (closed, _closing(relation, self.scratch.schema), "less", "revoked"),
        ):
            if not pairs:
                continue
            with self.changed(statements) as schema:
                found = self.attempt(name, pairs, schema, controls=True)
            missed = {
                (role, command)
                for role, command in pairs
                if (name, role, command, direction) not in found.violations
            }
            if missed:
                role, command = min(missed)
                raise AnalysisError(
                    f"the run can't be trusted: it didn't notice a planted change ({control}) on {name}, for "
                    f"{command} as {role}. Raise the budget, or report it"
                )
            noticed |= dict.fromkeys(pairs, control)
        return noticed

    @contextmanager
    def changed(self, statements: Sequence[str]) -> Iterator[Schema]:
        """Run *statements*; in the block, the database has the schema that is returned."""
        connection = self.scratch.connection
        connection.commit()
        connection.execution_options(isolation_level="READ COMMITTED")
        try:
            run(connection, statements)
            yield Schema.read(connection)
        finally:
            connection.rollback()
            connection.execution_options(isolation_level="AUTOCOMMIT")

    def attempt(
        self,
        name: str,
        decided: Mapping[Pair, Decision],
        schema: Schema,
        *,
        controls: bool = False,
        known: Collection[Any] = (),
        first: bool = False,
    ) -> Tally:
        """Try the worlds of a table or view.

        Args:
            name: the table or view.
            decided: the intents.
            schema: the present schema of the database.
            controls: stop when each pair has a violation.
            known: violations that don't count for *first*.
            first: stop at the first violation.
        """
        tally = Tally()
        if not decided:
            return tally
        joined = self.scratch.schema.joined(schema)
        relation = joined.relations[name]
        roles = sorted({role for role, _ in decided})
        joined, shared = self.oracle.informed(relation, joined, roles, self.accepts)
        profiles = read_profiles(self.scratch.connection, [relation], roles)
        groups: dict[Any, list[str]] = {}
        for role in roles:
            groups.setdefault(repr(replace(profiles[name, role], role="", policies=())), []).append(role)
        for varies in (False, True):
            universe = Universe.of(relation, joined, shared, self.accepts, varies_checked=varies)
            trial = _Trial(self, universe, joined, decided, tally)
            worlds = universe.worlds(self.budget)
            size = 1
            while batch := list(islice(worlds, size)):
                if tally.worlds >= self.budget.worlds:
                    tally.left_out.append(
                        f"{name}: {self.budget.worlds} worlds were tried, and there are more within "
                        f"{self.budget.rows} rows per table"
                    )
                    break
                if self.deadline is not None and time.monotonic() > self.deadline:
                    tally.left_out.append(f"{name}: the time was over after {tally.worlds} worlds")
                    break
                trial.run(batch, [(alike, profiles[name, alike[0]]) for alike in groups.values()])
                if first and tally.violations.keys() - set(known):
                    return tally
                broken = {(role, command) for _, role, command, _ in tally.violations}
                if controls and broken >= decided.keys():
                    return tally
                size = min(2 * size, _BATCH)
            tally.left_out += universe.left_out
            if tally.worlds:
                # Otherwise, only some values of the columns in constraints may be valid.
                break
        return tally

    def accepts(self, type_: str, value: str) -> bool:
        """Whether *value* is a value of that type."""
        if (type_, value) not in self._accepted:
            self._accepted[type_, value] = self.scratch.accepts(type_, value)
        return self._accepted[type_, value]


@dataclass(slots=True)
class _Trial:
    prover: Prover
    universe: Universe
    schema: Schema
    decided: Mapping[Pair, Decision]
    tally: Tally

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
        violation = self._violation(world, actor, attempts, attempt, direction)
        self.tally.violations[violation.key] = violation

    def _observe(
        self,
        trials: Sequence[tuple[World, Sequence[Attempt]]],
        actors: Sequence[Actor],
        attempts: Attempts,
    ) -> list[list[tuple[Actor, list[Outcome], _Seen]] | None]:
        """Run the statements, and those of the owner; None for a world that a constraint rejects."""
        scratch, superuser = self.prover.scratch, self.prover.superuser
        tables = [name for name in self.universe.rows if self.schema.relations[name].has_rows]
        looks = [Statement("SELECT", f"SELECT * FROM {name}") for name in tables]  # noqa: S608
        owner = Actor(role=superuser, claims=None, settings={})
        rows = scratch.run([Trial(world, [*looks, attempts.all_rows]) for world, _ in trials], [owner])
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
        owners = scratch.run(asked, [*distinct.values()])
        done = scratch.run(
            [Trial(world, [attempt.statement for attempt in tried]) for world, tried in trials], actors
        )
        found: list[list[tuple[Actor, list[Outcome], _Seen]] | None] = []
        for trial, (_, tried), seen, owned, own in zip(asked, trials, rows, owners, done, strict=True):
            if rejected := seen.rejected or owned.rejected or own.rejected:
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
                default_schema=self.prover.oracle.default_schema,
            )
            width, extra = len(trial.statements), len(trial.statements) - len(tried)
            seen_by: dict[str, _Seen] = {}
            for place, key in enumerate(distinct):
                outcomes = [owned.outcome(place * width + n) for n in range(width)]
                old = [json.loads(row) for one in outcomes[:extra] for row in one.rows]
                seen_by[key] = _Seen(
                    raw=everything[-1],
                    rows=[as_row(self.universe.relation, row) for row in everything[-1]],
                    old=as_row(self.universe.relation, old[0]) if len(old) == 1 else None,
                    world=world,
                    owners=outcomes[extra:],
                )
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
        self, world: World, actor: Actor, attempts: Attempts, attempt: Attempt, direction: Direction
    ) -> Violation:
        """Leave out rows as long as the violation stays, and describe it."""
        current = world
        judged = self._again(current, actor, attempts, attempt, direction)
        shrunk = judged is not None
        while shrunk:
            shrunk = False
            for smaller in _smaller(self.universe, current):
                simpler = self._again(smaller, actor, attempts, attempt, direction)
                if simpler is not None:
                    current, judged, shrunk = smaller, simpler, True
                    break
        intended, outcome = judged or (0, Outcome())
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
            about = f"{_VERBS[attempt.command]} {self._shown(world.row)}"
        else:
            about = f"{_VERBS[attempt.command]} rows of {relation}"
        sentence = f"{actor.text} {can} {about}"
        if others := [self._shown(row) for row in world.rows]:
            sentence += f", with {', '.join(others)}"
        if outcome.error is not None:
            sentence += f" ({outcome})"
        against = "denies" if direction == "more" else "permits"
        return f"{sentence}; the intent {against} it"

    def _shown(self, row: Row) -> str:
        """The row with its key and the columns that decide."""
        relation = self.schema.relations[row.relation]
        key = relation.keys[0] if relation.keys else ()
        deciding = self.universe.deciding.get(row.relation, ())
        names = [name for name in row.values if name in key or name in deciding or not key]
        inner = ", ".join(
            f"{name}={'NULL' if row.values[name] is None else row.values[name]}" for name in names
        )
        return f"{row.relation}({inner})"


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


def _has_privilege(profile: Profile, command: Command) -> bool:
    held = {
        "SELECT": profile.selects,
        "INSERT": profile.inserts,
        "UPDATE": profile.updates,
        "DELETE": profile.delete,
    }
    return profile.usage and bool(held[command])


def _quoted(connection_name: str) -> str:
    from psycopg import sql

    return sql.Identifier(connection_name).as_string(None)


def _opening(relation: Relation, roles: Iterable[str]) -> list[str]:
    """Open a table to *roles*."""
    grantees = ", ".join(map(_quoted, roles))
    opened = (
        f"ALTER VIEW {relation.name} SET (security_invoker = false)"
        if relation.is_view
        else f"ALTER TABLE {relation.name} DISABLE ROW LEVEL SECURITY"
    )
    return [
        opened,
        f"GRANT USAGE ON SCHEMA {_quoted(relation.schema)} TO {grantees}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {relation.name} TO {grantees}",
    ]


def _closing(relation: Relation, schema: Schema) -> list[str]:
    """Take the privileges on a table from every role."""
    grantees = ", ".join(["PUBLIC", *(_quoted(role) for role in schema.roles if role != relation.owner)])
    return [f"REVOKE ALL ON {relation.name} FROM {grantees}"]


def _smaller(universe: Universe, world: World) -> Iterator[World]:
    """The worlds with one row less, and the rows that foreign keys need."""
    for place in range(len(world.rows)):
        kept = [row for number, row in enumerate(world.rows) if number != place]
        rows: list[Row] = kept if world.row is None else [*kept, world.row]
        completed = universe.complete(rows)
        if completed is not None and len(completed) < len(world.all_rows):
            yield replace(world, rows=tuple(row for row in completed if row != world.row))
