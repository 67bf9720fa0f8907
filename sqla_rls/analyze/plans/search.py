"""The changes that make a query faster, by measuring one after the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.plans.ask import Query
from sqla_rls.analyze.plans.bench import Bench
from sqla_rls.analyze.plans.changes import Change, Kind, counted_policies, possible_changes
from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from sqla_rls.catalog.query import undone

#: A change that gains less isn't advice: the ratio of the times, and their difference in milliseconds.
_RATIO: Final = 2.0
_LEAST: Final = 0.5
_MOST_STEPS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A change, with the plans on generated rows before and after it.

    Attributes:
        change: the change.
        role: the role of the caller.
        command: the command.
        before: the plan without the change.  It has the advice before this one, if there is any.
        after: the plan with the change.
        evidence: how sqla_rls knows that the same rows are admitted.
    """

    change: Change
    role: str
    command: str
    before: Plan
    after: Plan
    evidence: str

    @property
    def gain(self) -> float:
        """How many times faster the statement is; at least that, if it was cancelled before."""
        return ratio(self.before, self.after)

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "kind": self.change.kind,
            "object": self.change.relation,
            "policy": self.change.policy,
            "column": self.change.column,
            "function": self.change.function,
            "role": self.role,
            "command": self.command,
            "statement": self.change.statement,
            "operation": self.change.operation,
            "hint": self.change.hint,
            "gain": round(self.gain, 1),
            "milliseconds": [self.before.milliseconds, self.after.milliseconds],
            "before": [scan.line for scan in self.before.scans],
            "after": [scan.line for scan in self.after.scans],
            "evidence": self.evidence,
        }


def ratio(slow: Plan, fast: Plan) -> float:
    """Return how many times longer *slow* takes than *fast*."""
    return (slow.milliseconds or 0.0) / max(fast.milliseconds or 0.0, 0.001)


@dataclass(kw_only=False)
class _Search:
    """The search for the changes that make one statement faster."""

    bench: Bench
    query: Query
    actor: Actor
    name: str
    command: str
    parameters: Any
    rejected: set[str] = field(default_factory=set[str])

    def run(self) -> list[Advice]:
        steps: list[Advice] = []
        connection = self.bench.connection
        with undone(connection):
            current = self._measured()
            schema = self.bench.schema
            while len(steps) < _MOST_STEPS and (current.milliseconds or 0.0) > _LEAST:
                best = self._best(self._possible(schema), current)
                if best is None:
                    break
                changes, after = best
                # Another program may have slowed down the first measurement.
                current = min(current, self._measured(), key=_milliseconds)
                if not gains(current, after):
                    self.rejected |= {change.statement for change in changes}
                    continue
                evidence = self._evidence(schema, changes)
                if evidence is None:
                    continue
                for change in changes:
                    self.bench.run(change.statement)
                steps += [self._advice(change, current, after, evidence) for change in changes]
                current = after
                schema = Schema.read(connection, of_new_rows=True)
        return steps

    def alone(self, known: Collection[Kind]) -> list[Advice]:
        """Return the best change of each kind that isn't *known*."""
        found: list[Advice] = []
        current = self._measured()
        kinds = set(known)
        gaining = sorted(self._gaining(self._possible(self.bench.schema), current), key=_time)
        for changes, after in gaining:
            if changes[0].kind in kinds:
                continue
            evidence = self._evidence(self.bench.schema, changes)
            if evidence is not None:
                kinds.add(changes[0].kind)
                found.append(self._advice(changes[0], current, after, evidence))
        return found

    def _advice(self, change: Change, before: Plan, after: Plan, evidence: str) -> Advice:
        return Advice(
            change=change,
            role=self.actor.role,
            command=self.command,
            before=before,
            after=after,
            evidence=evidence,
        )

    def _evidence(self, schema: Schema, changes: Sequence[Change]) -> str | None:
        evidence = self.bench.evidence(schema, changes)
        if evidence is not None and any(change.kind == "column_in_expression" for change in changes):
            evidence = evidence if self._accepts_others(changes) else None
        if evidence is None:
            self.rejected |= {change.statement for change in changes if not change.keeps_access}
        return evidence

    def _accepts_others(self, changes: Sequence[Change]) -> bool:
        """Return whether a caller whose subject and claims don't fit the column still gets no error."""
        claims = dict.fromkeys(self.actor.claims or {}, "sqla_rls")
        other = Actor(role=self.actor.role, claims=claims, settings=self.actor.settings)
        is_error = self._with((), other) is None
        return is_error or self._with(changes, other) is not None

    def _possible(self, schema: Schema) -> list[Change]:
        names = sorted(schema.reads(self.name))
        role, connection = self.actor.role, self.bench.connection
        held = read_profiles(connection, [schema.relations[one] for one in names], [role])
        found: list[Change] = []
        for one in names:
            relation = schema.relations[one]
            profile = held.get((one, role))
            command = self.command if one == self.name else "SELECT"
            policies = counted_policies(relation, role, command, profile.policies if profile else ())
            if relation.row_security and policies:
                found += possible_changes(connection, schema, relation, policies, names)
        distinct = {change.statement: change for change in found if change.statement not in self.rejected}
        return list(distinct.values())

    def _best(self, possible: Sequence[Change], current: Plan) -> tuple[list[Change], Plan] | None:
        """Return the change that gains most; if none gains alone, a form with an index."""
        found = self._gaining(possible, current)
        if not found:
            forms = [change for change in possible if change.policy is not None]
            indexes = [change for change in possible if change.keeps_access]
            pairs = [[form, index] for form in forms for index in indexes]
            found = [
                (pair, after)
                for pair in pairs
                if (after := self._with(pair)) is not None and gains(current, after)
            ]
        return min(found, key=_time, default=None)

    def _gaining(self, possible: Sequence[Change], current: Plan) -> list[tuple[list[Change], Plan]]:
        return [
            ([change], after)
            for change in possible
            if (after := self._with([change])) is not None and gains(current, after)
        ]

    def _measured(self) -> Plan:
        return self.bench.measure(self.query, self.actor, self.parameters)

    def _with(self, changes: Sequence[Change], actor: Actor | None = None) -> Plan | None:
        """Return the plan after *changes*; None if there is an error."""
        bench = self.bench
        try:
            with undone(bench.connection):
                for change in changes:
                    bench.run(change.statement)
                return bench.measure(self.query, actor or self.actor, self.parameters)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return None


def find_advice(
    bench: Bench,
    query: Query,
    actor: Actor,
    name: str,
    command: str = "SELECT",
    parameters: Any = None,
) -> list[Advice]:
    """Return the changes that make *query* faster: each in addition to those before it.

    Args:
        bench: the database with generated rows.
        query: a statement of a caller.
        actor: the caller.
        name: the relation whose policies are looked at, with those that it reads.
        command: the command of *query*.
        parameters: the values of its parameters.
    """
    return _Search(bench, query, actor, name, command, parameters).run()


def causes(bench: Bench, query: Query, actor: Actor, name: str, command: str) -> tuple[list[Advice], Plan]:
    """Return the advice with the best change of each other kind that gains alone, and the last plan."""
    search = _Search(bench, query, actor, name, command, None)
    steps = search.run()
    alone = search.alone({step.change.kind for step in steps}) if steps else []
    return [*steps, *alone], steps[-1].after if steps else bench.measure(query, actor)


def _time(found: tuple[list[Change], Plan]) -> float:
    return _milliseconds(found[1])


def _milliseconds(plan: Plan) -> float:
    return plan.milliseconds or 0.0


def gains(before: Plan, after: Plan) -> bool:
    """Return whether *after* is so much faster that the difference can't be chance."""
    if after.timed_out or before.milliseconds is None or after.milliseconds is None:
        return False
    is_faster = ratio(before, after) >= _RATIO and before.milliseconds - after.milliseconds >= _LEAST
    return is_faster and _shape(before) != _shape(after)


def _shape(plan: Plan) -> Any:
    """Return what a plan does, without its figures."""
    return (
        [(scan.node, scan.index, scan.index_condition, scan.filter) for scan in plan.scans],
        plan.once,
        tuple(plan.per_row),
        plan.calls,
    )
