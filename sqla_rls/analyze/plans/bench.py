"""Measures policies on generated rows in a scratch database, before and after a change.

All of it is undone: the rows, the changes, and what the statements of callers do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.in_place import Side, compare_in_place
from sqla_rls.analyze.plans.ask import Query, plan_of
from sqla_rls.analyze.plans.changes import Change
from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.analyze.plans.rows import ROWS, TIME_IS_OVER, Rows
from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.why.acting import as_caller
from sqla_rls.analyze.why.target import script
from sqla_rls.analyze.worlds.generate import generate_worlds
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.analyze.worlds.scratch import ScratchDatabase, Trial, Tried
from sqla_rls.analyze.worlds.shared import Shared
from sqla_rls.analyze.worlds.statements import Statements
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller

#: Seconds: a slower statement counts as that slow.
TIMEOUT: Final = 3.0
_REPEAT: Final = 3
_WORLDS: Final = 100


_SEARCH_PATH: Final = text(
    "SELECT pg_catalog.set_config(name, reset_val, true) FROM pg_catalog.pg_settings "
    "WHERE name = 'search_path'"
)


@dataclass(kw_only=True)
class Bench:
    """A scratch database with generated rows."""

    connection: Connection
    schema: Schema
    rows: Rows
    #: The tables without generated rows, with the reasons.
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    #: No measurement begins after this moment of ``time.monotonic()``.
    until: float = math.inf

    @classmethod
    @contextmanager
    def open(
        cls,
        connection: Connection,
        names: Collection[str],
        size: int = ROWS,
        *,
        seconds: float = math.inf,
    ) -> Iterator[Bench]:
        """Fill the tables of a scratch database until the end of the block.

        Args:
            connection: a superuser's connection to a scratch database.
            names: the relations that are measured.
            size: the rows of each table.
            seconds: the most seconds; half of them are for the rows.
        """
        start = time.monotonic()
        with undone(connection):
            # A caller's statements resolve names as in the database.
            connection.execute(_SEARCH_PATH)
            _set(connection, "statement_timeout", "0")
            schema = Schema.read(connection, of_new_rows=True)
            rows = Rows.of(connection, schema, names, size)
            # Triggers and foreign keys take time that no policy can save.
            _set(connection, "session_replication_role", "replica")
            filled = rows.insert(until=start + seconds / 2)
            _set(connection, "statement_timeout", f"{TIMEOUT}s")
            yield cls(
                connection=connection,
                schema=schema,
                rows=rows,
                left_out=filled.left_out,
                until=start + seconds,
            )

    def measure(self, query: Query, actor: Actor, parameters: Any = None, *, repeat: int = _REPEAT) -> Plan:
        """Return the plan of *query* as *actor*, with times.

        Raises:
            AnalysisError: the time is over.
        """
        if time.monotonic() > self.until:
            raise AnalysisError(TIME_IS_OVER)
        claims = dict(actor.claims or {})
        caller = Caller(role=actor.role, subject=claims.get("sub"), claims=claims)
        with as_caller(self.connection, caller, None):
            for name, value in actor.settings.items():
                _set(self.connection, name, value)
            return plan_of(self.connection, query, parameters, analyze=True, timeout=TIMEOUT, repeat=repeat)

    def actor(
        self, query: Query, role: str, parameters: Any = None, claims: Mapping[str, Any] | None = None
    ) -> Actor | None:
        """Return a caller of *role* who may run *query*, one with rows if there is one."""
        possible: Actor | None = None
        for actor in self.rows.actors(role, claims or {}):
            try:
                found = self.measure(query, actor, parameters, repeat=1)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                continue
            if _has_rows(found):
                return actor
            possible = possible or actor
        return possible

    def without_row_security(self, query: Query) -> Plan:
        """Return the plan of *query* as superuser, with times."""
        return plan_of(self.connection, query, analyze=True, timeout=TIMEOUT, repeat=_REPEAT)

    def with_changes(self, statements: Sequence[str], query: Query, actor: Actor) -> Plan | None:
        """Return the plan of *query* after *statements*; None if there is an error."""
        try:
            with undone(self.connection):
                for statement in statements:
                    self.run(statement)
                return self.measure(query, actor)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return None

    def run(self, statement: str) -> None:
        """Run a statement as superuser."""
        self.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def evidence(self, schema: Schema, changes: Sequence[Change]) -> str | None:
        """Say why *changes* admit the same rows; None if that isn't known."""
        if all(change.keeps_access for change in changes):
            return "an index changes no access"
        names = sorted({change.relation for change in changes if not change.keeps_access})
        if all(change.policy is not None or change.keeps_access for change in changes):
            found = self._compared_in_place(schema, changes, names)
            if found is not None:
                return found or None
        return self._compared_in_worlds(schema, changes, names)

    def _profiles(self, schema: Schema, names: Collection[str]) -> Any:
        read = sorted({one for name in names for one in schema.reads(name)})
        roles = [role.name for role in schema.roles.values() if not role.is_superuser]
        return read_profiles(self.connection, [schema.relations[one] for one in read], roles)

    def _compared_in_place(
        self, schema: Schema, changes: Sequence[Change], names: Sequence[str]
    ) -> str | None:
        """Return a sentence; "" if the rows differ, None if that isn't decided."""
        before = Side(schema=schema, profiles=self._profiles(schema, names))
        with undone(self.connection):
            for change in changes:
                self.run(change.statement)
            later = Schema.read(self.connection, of_new_rows=True)
            after = Side(schema=later, profiles=self._profiles(later, names))
        found = compare_in_place(self.connection, before, after, names=names, budget=Budget(worlds=_WORLDS))
        if found.changes:
            return ""
        if found.unknown:
            return None
        drops = any(change.kind == "several_permissive_policies" for change in changes)
        if drops and not all(one.proved or one.worlds == 0 for one in found.same):
            # A policy may admit rows that no small world has.
            return ""
        worlds = max((one.worlds for one in found.same), default=0)
        return f"it admits the same rows in {worlds} small worlds"

    def _compared_in_worlds(
        self, schema: Schema, changes: Sequence[Change], names: Sequence[str]
    ) -> str | None:
        """Run real statements on real rows, before and after *changes*."""
        tried = 0
        with undone(self.connection):
            _set(self.connection, "session_replication_role", "origin")
            for name in ("try_statements", "accepts"):
                self.run(script(name))
            tables = [one.name for one in schema.relations.values() if one.has_rows]
            self.run(f"TRUNCATE {', '.join(tables)} CASCADE")
            scratch = ScratchDatabase(self.connection, schema)
            profiles = self._profiles(schema, names)
            for name in names:
                relation = schema.relations[name]
                universe = Universe.of(relation, schema, Shared.of([schema], name), scratch.accepts)
                held = {
                    role: one for (of, role), one in profiles.items() if of == name and one.has_privileges
                }
                for role, profile in held.items():
                    outcomes = self._same_outcomes(scratch, universe, role, profile, changes)
                    if outcomes is None:
                        return None
                    tried += sum(one.rejected is None for one in outcomes)
        return f"it admits the same rows in {tried} small worlds" if tried else None

    def _same_outcomes(
        self,
        scratch: ScratchDatabase,
        universe: Universe,
        role: str,
        profile: Profile,
        changes: Sequence[Change],
    ) -> Sequence[Tried] | None:
        """Return the outcomes of *role*; None if they differ with *changes*, or from one run to the next."""
        trials = _trials(universe, profile)
        actors = universe.pools.actors([role])
        before = scratch.run(trials, actors)
        with undone(self.connection):
            for change in changes:
                self.run(change.statement)
            after = scratch.run(trials, actors)
        return before if before == after and scratch.run(trials, actors) == before else None


def _trials(universe: Universe, profile: Profile) -> list[Trial]:
    statements = Statements(universe=universe, profiles=(profile,))
    found: list[Trial] = []
    for world in generate_worlds(universe, Budget(worlds=_WORLDS)):
        if len(found) == _WORLDS:
            break
        found.append(Trial(world, statements.on(world.row)))
    return found


def _has_rows(plan: Plan) -> bool:
    return any(scan.rows > 0 for scan in plan.scans)


def _set(connection: Connection, name: str, value: str) -> None:
    connection.execute(
        text("SELECT pg_catalog.set_config(:name, :value, true)"), {"name": name, "value": value}
    )
