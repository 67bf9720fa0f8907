"""Shared by the rules of speed: each protected table is measured once, on generated rows."""

# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.lint.database import Database, query_text
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.plans.bench import Bench
from sqla_rls.analyze.plans.changes import Kind, counted_policies
from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.analyze.plans.rows import TIME_IS_OVER
from sqla_rls.analyze.plans.search import Advice, causes, ratio
from sqla_rls.analyze.worlds.objects import PolicyText, Profile, Relation
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.statements import quoted
from sqla_rls.exc import AnalysisError

#: The rows of each table.
ROWS: Final = 20_000
#: A plan without advice is slow, if it takes so many times longer than another, and so many milliseconds.
_SLOW: Final = 10.0
_LEAST: Final = 1.0
#: Callers can't use an index if they read so many times the rows that it finds, and so many rows.
_UNUSED: Final = 5.0
_LEAST_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsolved:
    """A policy that is slow, without a change that makes it faster.

    Attributes:
        relation: the table.
        policy: the policy that is fast alone; None for functions that are called for each row.
        plan: the plan under the policies.
        fast: the plan without row security, or with that policy alone.
    """

    kind: Kind
    relation: str
    policy: str | None
    role: str
    command: str
    plan: Plan
    fast: Plan

    @property
    def than(self) -> str:
        """The state of the fast plan, in words."""
        return "without row security" if self.policy is None else f"with policy {self.policy} alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedIndex:
    """An index that the statements of callers can't use, since an operator isn't leakproof."""

    relation: str
    column: str
    index: str
    operator: str
    role: str
    statement: str
    plan: Plan
    fast: Plan


@dataclass(slots=True)
class Survey:
    """The slow policies of a database."""

    advice: list[Advice] = field(default_factory=list[Advice])
    unsolved: list[Unsolved] = field(default_factory=list[Unsolved])
    unused: list[UnusedIndex] = field(default_factory=list[UnusedIndex])


def survey(database: Database) -> Survey:
    """Measure the policies of *database*; the first call does it."""
    return database.cached("speed", lambda: _survey(database))


def _survey(database: Database) -> Survey:
    found = Survey()
    tables = [one for one in database.tables if one.row_security and not one.is_partition]
    protected = [one.name for one in tables if one.policies]
    if not protected:
        return found
    seconds = database.seconds
    with (
        database.scratch() as connection,
        Bench.open(connection, protected, ROWS, seconds=seconds) as bench,
    ):
        for relation in tables:
            try:
                database.require_complete(relation.name)
            except AnalysisError as error:
                database.note_unknown(relation.name, str(error))
                continue
            empty = sorted(bench.schema.reads(relation.name) & bench.left_out.keys())
            for name in empty:
                database.note_unknown(relation.name, _unmeasured(name, bench.left_out[name], seconds))
            if empty:
                continue
            for role, command, policies in _groups(database, relation):
                _Measured(database, bench, found, relation, role, command, policies).run()
    return found


def _unmeasured(name: str, reason: str, seconds: float) -> str:
    if reason == TIME_IS_OVER:
        return f"the rules of speed had {seconds:g} seconds. Give more: --seconds"
    return f"{name} has no generated rows: {reason}"


def _groups(database: Database, relation: Relation) -> Iterator[tuple[str, str, Sequence[PolicyText]]]:
    """Yield a role and a command for each set of conditions that callers meet."""
    known: set[Any] = set()
    for role in database.callers:
        profile = database.profiles.get((relation.name, role.name))
        if profile is None or not profile.usage or not database.is_active(relation.name, role.name):
            continue
        for command in _commands(profile):
            policies = counted_policies(relation, role.name, command, profile.policies)
            if not any(policy.permissive for policy in policies):
                continue
            key = tuple(sorted((policy.permissive, policy.using or "") for policy in policies))
            if key not in known:
                known.add(key)
                yield role.name, command, policies


def _commands(profile: Profile) -> list[str]:
    held = {"SELECT": profile.selects, "UPDATE": profile.updates, "DELETE": profile.delete}
    return [command for command, is_held in held.items() if is_held]


@dataclass
class _Measured:
    database: Database
    bench: Bench
    survey: Survey
    relation: Relation
    role: str
    command: str
    policies: Sequence[PolicyText]

    def run(self) -> None:
        query = self._query()
        try:
            actor = self.bench.actor(query, self.role)
            if actor is None:
                return
            advice, last = causes(self.bench, query, actor, self.relation.name, self.command)
            self.survey.advice += advice
            self._unsolved(query, actor, last)
            if self.command == "SELECT":
                self._unused(actor)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            self._note_unknown(str(error.orig).partition("\n")[0])
        except AnalysisError as error:
            self._note_unknown(_unmeasured(self.relation.name, str(error), self.database.seconds))

    def _note_unknown(self, reason: str) -> None:
        self.database.note_unknown(self.relation.name, reason, role=self.role)

    def _query(self) -> str:
        name = self.relation.name
        if self.command == "SELECT":
            return f"SELECT count(*) FROM {name}"
        if self.command == "DELETE":
            return f"DELETE FROM {name}"
        column = next(one.name for one in self.relation.columns.values() if one.generated is None)
        return f"UPDATE {name} SET {quoted(column)} = {quoted(column)}"

    def _unsolved(self, query: str, actor: Actor, plan: Plan) -> None:
        if (plan.milliseconds or 0.0) < _LEAST:
            return
        if plan.calls:
            fast = self.bench.without_row_security(query)
            if ratio(plan, fast) >= _SLOW:
                self._note("function_per_row", None, plan, fast)
                return
        permissive = [policy for policy in self.policies if policy.permissive]
        for policy in permissive if len(permissive) > 1 else ():
            others = [
                f"DROP POLICY {quoted(one.name)} ON {self.relation.name}"
                for one in permissive
                if one is not policy
            ]
            alone = self.bench.with_changes(others, query, actor)
            if alone is None or ratio(plan, alone) < _SLOW:
                continue
            if _rows(plan) <= 2 * _rows(alone) + 10:
                self._note("several_permissive_policies", policy.name, plan, alone)
                return

    def _note(self, kind: Kind, policy: str | None, plan: Plan, fast: Plan) -> None:
        self.survey.unsolved.append(
            Unsolved(
                kind=kind,
                relation=self.relation.name,
                policy=policy,
                role=self.role,
                command=self.command,
                plan=plan,
                fast=fast,
            )
        )

    def _unused(self, actor: Actor) -> None:
        for row in _operators(self.bench.connection, self.relation):
            value = self._value(row)
            if value is None:
                continue
            condition = f"{row['expression']} {row['operator']} {value}"
            query = f"SELECT count(*) FROM {self.relation.name} WHERE {condition}"
            try:
                plan, fast = self.bench.measure(query, actor), self.bench.without_row_security(query)
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                continue
            uses, may_use = (
                any(row["index"] in (scan.index or "") for scan in one.scans) for one in (plan, fast)
            )
            # Rows, since the times are a millisecond and less.
            reads_all = plan.timed_out or plan.rows_read >= max(_UNUSED * fast.rows_read, _LEAST_ROWS)
            if may_use and not uses and reads_all:
                self.survey.unused.append(
                    UnusedIndex(
                        relation=self.relation.name,
                        column=row["column"],
                        index=row["index"],
                        operator=row["operator"],
                        role=self.role,
                        statement=query,
                        plan=plan,
                        fast=fast,
                    )
                )

    def _value(self, row: RowMapping) -> str | None:
        """A rare value of the column, as a literal of the operator's right side; None if there is none."""
        connection = self.bench.connection
        if row["right"] == "tsquery":
            return "CAST('7' AS tsquery)"
        rarest = (
            f"SELECT pg_catalog.quote_literal({row['expression']}) FROM {self.relation.name} "
            f"WHERE {row['expression']} IS NOT NULL GROUP BY 1 ORDER BY count(*), 1 LIMIT 1"
        )
        try:
            with connection.begin_nested():
                found = connection.exec_driver_sql(
                    rarest, execution_options={"no_parameters": True}
                ).scalar_one_or_none()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return None
        return None if found is None else f"CAST({found} AS {row['right']})"


def _operators(connection: Connection, relation: Relation) -> Sequence[RowMapping]:
    return (
        connection.execute(text(query_text("unused_operators")), {"oid": str(relation.oid)}).mappings().all()
    )


def _rows(plan: Plan) -> float:
    return sum(scan.rows for scan in plan.scans)


def slow(database: Database, kind: Kind, sentence: str) -> Iterator[Finding]:
    """Yield the findings of one kind of change.

    Args:
        database: the database.
        kind: the kind.
        sentence: the finding, with ``{object}`` and ``{policy}``.
    """
    for advice in survey(database).advice:
        change = advice.change
        if change.kind != kind:
            continue
        yield Finding(
            object=change.function or change.relation,
            kind="function" if change.function else "table",
            policy=change.policy,
            column=change.column,
            role=advice.role,
            command=advice.command,
            text=sentence.format(object=change.relation, policy=change.policy, column=change.column),
            evidence=[
                Evidence(
                    kind="plan",
                    text=(
                        f"{compared(advice.before, advice.after)} after the change. Before: "
                        f"{lines(advice.before)}. After: {lines(advice.after)}"
                    ),
                    data=advice.as_dict(),
                ),
                *_same_rows(advice),
            ],
            remedy=Remedy(
                sql=f"{change.statement};", python=f"{change.hint}. In a migration: {change.operation}"
            ),
        )


def _same_rows(advice: Advice) -> Iterator[Evidence]:
    if not advice.change.keeps_access:
        yield Evidence(kind="counterexample", text=f"none was found: {advice.evidence}")


def unsolved(database: Database, kind: Kind, sentence: str, remedy: Remedy) -> Iterator[Finding]:
    """Yield the findings of one kind that no change removes."""
    for one in survey(database).unsolved:
        if one.kind != kind:
            continue
        calls = ", ".join(one.plan.calls)
        yield Finding(
            object=one.relation,
            kind="table",
            role=one.role,
            command=one.command,
            text=sentence.format(object=one.relation, policy=one.policy, calls=calls),
            evidence=[
                Evidence(
                    kind="plan",
                    text=f"{compared(one.plan, one.fast)} {one.than}: {lines(one.plan)}",
                    data={"plan": one.plan.as_dict(), "fast": one.fast.as_dict()},
                )
            ],
            remedy=remedy,
        )


def compared(plan: Plan, fast: Plan) -> str:
    """Return the times of two plans on the generated rows, in words."""
    slow = f"{'more than ' if plan.timed_out else ''}{plan.milliseconds or 0:.1f} ms"
    return f"{slow} on {ROWS:,} generated rows, and {fast.milliseconds or 0:.1f} ms"


def lines(plan: Plan) -> str:
    """Return the scans of a plan in one line."""
    calls = f"; for each row: {', '.join((*plan.per_row, *plan.calls))}" if plan.per_row or plan.calls else ""
    return "; ".join(scan.line for scan in plan.scans) + calls
