"""Compares the rights that Postgres grants with the intent, by real statements on real rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, MetaData, text

from sqla_rls.analyze.prove.judge import Judge, Pair, Tally
from sqla_rls.analyze.prove.mutants import run
from sqla_rls.analyze.prove.oracle import Decision, Oracle
from sqla_rls.analyze.prove.proof import Kept, NotStated, Proof, Violation
from sqla_rls.analyze.verdict import Budget, Progress, Scope
from sqla_rls.analyze.why.explanation import COMMANDS, Command
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.limit import TimeIsOver, TimeLimit
from sqla_rls.analyze.worlds.objects import PUBLIC, Profile, Relation
from sqla_rls.analyze.worlds.refused import refused_rows, refusing, sentences
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import ScratchDatabase, roles_of
from sqla_rls.analyze.worlds.statements import quoted
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.world import Row
from sqla_rls.exc import AnalysisError

#: The most worlds that are sent together.
_BATCH: Final = 16


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


@dataclass(slots=True, kw_only=True)
class _Found:
    """The results so far."""

    violations: list[Violation] = field(default_factory=list)
    not_stated: list[NotStated] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    omitted: list[str]
    worlds: int = 0
    statements: int = 0

    def add_not_stated(self, name: str, pairs: Iterable[Pair], reason: str) -> None:
        self.not_stated += [NotStated(object=name, role=r, command=c, reason=reason) for r, c in pairs]


@dataclass(kw_only=True)
class Prover:
    """Tries statements in a scratch database, and compares them with the intents."""

    scratch: ScratchDatabase
    oracle: Oracle
    budget: Budget
    superuser: str
    roles: Sequence[str]
    limit: TimeLimit = field(default_factory=TimeLimit)
    #: The tables and views that lack a part.
    incomplete: frozenset[str] = frozenset()
    _accepted: dict[tuple[str, str], bool] = field(default_factory=dict)
    #: The tables and views of which constraints refuse rows, unless the columns in constraints vary, too.
    _varied: set[str] = field(default_factory=set)

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
        return cls(
            scratch=scratch,
            oracle=oracle,
            budget=budget,
            superuser=str(scratch.connection.scalar(text("SELECT current_user"))),
            roles=roles,
            limit=TimeLimit(budget.seconds),
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
        found = _Found(omitted=[*left_out, *self._left_out()])
        names = self.objects(schemas)
        for number, name in enumerate(names):
            if progress is not None:
                progress(number, len(names), name)
            self._prove(name, found)
        if progress is not None and names:
            progress(len(names), len(names), "")

        def order(one: Any) -> tuple[str, str, str]:
            return one.object, one.role, one.command

        return Proof(
            violations=tuple(sorted(found.violations, key=order)),
            not_stated=tuple(sorted(found.not_stated, key=order)),
            kept=tuple(sorted(found.kept, key=order)),
            scope=Scope(
                evaluation="scratch",
                objects=len(names),
                worlds=found.worlds,
                statements=found.statements,
                rows_per_table=self.budget.rows,
                left_out=tuple(dict.fromkeys(found.omitted)),
            ),
            controls=len(found.kept),
        )

    def _prove(self, name: str, found: _Found) -> None:
        """Add to *found* the result of each role and command on a table or view."""
        decided, undecided = self._decisions(name)
        found.not_stated += undecided
        if not decided:
            return
        if self.scratch.schema.reads(name) & self.incomplete:
            reason = "the scratch database lacks a part of it, or of a table that its policies read"
            found.add_not_stated(name, decided, reason)
            return
        tally = self.attempt(name, decided, self.scratch.schema)
        found.worlds += tally.worlds
        found.statements += sum(tally.statements.values())
        found.violations += tally.violations.values()
        found.omitted += tally.left_out
        broken = {(one.role, one.command) for one in tally.violations.values()}
        unbroken = [pair for pair in decided if pair not in broken]
        if (obstacle := self._obstacle(tally)) is not None:
            found.add_not_stated(name, unbroken, obstacle)
            return
        noticed = self._control(name, decided, tally)
        reason = "no statement could be compared with the intent in the worlds that were tried"
        reason = self._time_over(tally) if self.limit.is_over else reason
        found.add_not_stated(name, (pair for pair in unbroken if pair not in noticed), reason)
        found.kept += [
            Kept(
                object=name,
                role=role,
                command=command,
                source=decided[role, command].source,
                statements=tally.statements[role, command],
                control=noticed[role, command],
            )
            for role, command in unbroken
            if (role, command) in noticed
        ]

    def _obstacle(self, tally: Tally) -> str | None:
        """Return why the trial of an object leaves its pairs without a result; None if it doesn't."""
        if not tally.worlds and not tally.is_cut:
            most = tally.rejections.most_common(1)
            return f"no world satisfies the constraints: {most[0][0] if most else 'no value fits'}"
        if tally.untried:
            return "; ".join(tally.untried)
        return self._time_over(tally) if tally.is_cut else None

    def _left_out(self) -> Iterator[str]:
        for role in self.scratch.schema.roles.values():
            if role.bypasses_row_security and not role.is_superuser:
                yield f"Role {role.name} bypasses row security: it isn't tried."

    def _decisions(self, name: str) -> tuple[dict[Pair, Decision], list[NotStated]]:
        relation = self.scratch.schema.relations[name]
        profiles = read_profiles(self.scratch.connection, [relation], self.roles)
        decided: dict[Pair, Decision] = {}
        undecided: list[NotStated] = []
        of_public = profiles.get((name, PUBLIC))
        for role in self.roles:
            profile = profiles[name, role]
            is_like_public = replace(profile, role=PUBLIC) == of_public
            if profile.owns and not relation.forced:
                continue
            for command in COMMANDS:
                if relation.is_view and command != "SELECT":
                    continue
                found = self.oracle.decide(relation, command, role, is_like_public=is_like_public)
                has_privilege = _has_privilege(profile, command)
                if isinstance(found, Decision):
                    if role != PUBLIC or has_privilege or found.needs_privilege:
                        decided[role, command] = found
                elif has_privilege:
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
            if found.is_cut:
                continue
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
            yield Schema.read(connection, of_new_rows=True)
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

        def is_answered() -> bool:
            """Return whether the violations so far are all that is asked for."""
            if first and tally.violations.keys() - set(known):
                return True
            return (
                controls and {(role, command) for _, role, command, _ in tally.violations} >= decided.keys()
            )

        universes: list[Universe] = []
        for varies in (False, True):
            universe = Universe.of(
                relation,
                joined,
                shared,
                self.accepts,
                varies_checked=varies,
                refuses=refusing(joined, self.scratch.asks),
                spreads_accepted=False,
            )
            judge = Judge(
                scratch=self.scratch,
                superuser=self.superuser,
                default_schema=self.oracle.default_schema,
                universe=universe,
                schema=joined,
                decided=decided,
                tally=tally,
                limit=self.limit,
            )
            universes.append(universe)
            worlds = generate_worlds(universe, self.budget)
            size, earlier = 1, tally.worlds
            while batch := list(islice(worlds, size)):
                if tally.worlds - earlier >= self.budget.worlds:
                    tally.left_out.append(
                        f"{name}: {self.budget.worlds} worlds were tried, and there are more within "
                        f"{self.budget.rows} rows per table"
                    )
                    break
                try:
                    self.limit.check()
                    judge.run(batch, [(alike, profiles[name, alike[0]]) for alike in groups.values()])
                except TimeIsOver:
                    tally.left_out.append(f"{name}: {self._time_over(tally)}")
                    tally.is_cut = True
                    break
                if is_answered():
                    return tally
                size = min(2 * size, _BATCH)
            tally.left_out += universe.left_out
            if tally.is_cut:
                break
            # Otherwise, only some values of the columns in constraints may be valid.
            if tally.worlds and not varies:
                if not controls and not first and self._refused(universe, tally):
                    self._varied.add(name)
                if name not in self._varied:
                    break
        if not controls and not first and tally.worlds and not tally.is_cut:
            tally.untried += sentences(universes[0], self._refused(universes[0], tally), tally.met)
        return tally

    def _time_over(self, tally: Tally) -> str:
        return f"{self.budget.time_over} after {tally.worlds} worlds"

    def _refused(self, universe: Universe, tally: Tally) -> dict[Row, str]:
        return refused_rows([self.scratch], universe, tally.met)

    def accepts(self, type_: str, value: str) -> bool:
        """Whether *value* is a value of that type."""
        if (type_, value) not in self._accepted:
            self._accepted[type_, value] = self.scratch.accepts(type_, value)
        return self._accepted[type_, value]


def _has_privilege(profile: Profile, command: Command) -> bool:
    held = {
        "SELECT": profile.selects,
        "INSERT": profile.inserts,
        "UPDATE": profile.updates,
        "DELETE": profile.delete,
    }
    return profile.usage and bool(held[command])


def _opening(relation: Relation, roles: Iterable[str]) -> list[str]:
    """Open a table to *roles*."""
    grantees = ", ".join(role if role == PUBLIC else quoted(role) for role in roles)
    opened = (
        [f"ALTER VIEW {relation.name} SET (security_invoker = false)"]
        if relation.is_view
        else [
            f"ALTER TABLE {relation.name} DISABLE ROW LEVEL SECURITY",
            # A trigger that denies the statement would hide the hole.
            f"ALTER TABLE {relation.name} DISABLE TRIGGER USER",
        ]
    )
    return [
        *opened,
        f"GRANT USAGE ON SCHEMA {quoted(relation.schema)} TO {grantees}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {relation.name} TO {grantees}",
    ]


def _closing(relation: Relation, schema: Schema) -> list[str]:
    """Take the privileges on a table from every role."""
    grantees = ", ".join([PUBLIC, *(quoted(role) for role in schema.roles if role != relation.owner)])
    return [f"REVOKE ALL ON {relation.name} FROM {grantees}"]
