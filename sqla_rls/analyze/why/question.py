"""A question about one row: the answer is the first check that fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, text

from sqla_rls.analyze.why.constraints import Broken, Constraints, OnConflict
from sqla_rls.analyze.why.explanation import (
    ROWS,
    Command,
    Explanation,
    FailedCondition,
    PolicyResult,
    Reason,
    Result,
    Row,
)
from sqla_rls.analyze.why.predicates import conjuncts
from sqla_rls.analyze.why.privileges import Use, missing_privilege
from sqla_rls.analyze.why.rows import Refused, Rows
from sqla_rls.analyze.why.steps import DO_UPDATE, RETURNING, STEPS, TARGET, Policy, Step
from sqla_rls.analyze.why.target import Target, query
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller


def require_writable(table: Target, names: Iterable[str]) -> None:
    """Raise AnalysisError if Postgres generates one of the columns *names*."""
    for name in names:
        if table.column(name)["is_always_generated"]:
            raise AnalysisError(
                f"column {name!r} of table {table.name} can't be given: Postgres generates it. Leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class Question:
    """A command of a caller on one row."""

    source: Rows
    command: Command
    row: Mapping[str, Any]
    returning: bool
    on_conflict: OnConflict | None
    results: list[PolicyResult] = field(default_factory=list[PolicyResult])

    @property
    def connection(self) -> Connection:
        return self.source.connection

    @property
    def caller(self) -> Caller:
        return self.source.caller

    @property
    def table(self) -> Target:
        return self.source.table

    @cached_property
    def constraints(self) -> Constraints:
        return Constraints(self.source)

    @cached_property
    def policies(self) -> list[Policy]:
        values = {"oid": self.table.oid, "role": self.caller.role}
        found = self.connection.execute(query("policies"), values).mappings()
        return [Policy(**policy) for policy in found]

    @cached_property
    def is_active(self) -> bool:
        """Whether row security holds for the caller."""
        with self.source.as_caller():
            return bool(
                self.connection.scalar(
                    text("SELECT pg_catalog.row_security_active(CAST(:oid AS pg_catalog.oid))"),
                    {"oid": self.table.oid},
                )
            )

    def answer(self, key: Any) -> Explanation:
        """Return the answer for the row with that key, or for a new one."""
        if self.on_conflict is not None:
            self.constraints.arbiters(self.on_conflict)
            require_writable(self.table, self.on_conflict.values or ())
        try:
            explained = self._answer(key)
        except Refused as refused:
            explained = self._explained(False, *refused.args)
        notes = self.constraints.left_out(self.command)
        return replace(explained, policies=tuple(self.results), notes=tuple(notes))

    def without_row(self) -> str:
        """Return the answer where the row is unknown: what the role lacks, and the policies."""
        lines = [f"{self.command} on {self.table.name} as {self.caller.role}: the row is unknown"]
        if (missing := self._missing_privilege()) is not None:
            lines.append(f"  {missing.detail}")
        if not self.is_active:
            return "\n".join([*lines, "  No policy applies to the role."])
        for step in self._steps():
            if not any(each.permissive for each in self.policies if each.is_for(step.command)):
                lines.append(f"  No permissive policy is for {step.command}.{step.needs}")
        commands: list[Command] = [step.command for step in self._steps()]
        for policy in self.policies:
            if any(policy.is_for(command) for command in commands):
                kind = "permissive" if policy.permissive else "restrictive"
                lines.append(f"  {kind} policy {policy.name!r} for {policy.command}")
                lines += [f"    USING ({policy.using})"] if policy.using else []
                lines += [f"    WITH CHECK ({policy.check})"] if policy.check else []
        return "\n".join(lines)

    def _answer(self, key: Any) -> Explanation:
        old = None
        if self.command != "INSERT":
            old = self.source.fetch(key)
            if old is None:
                return self._explained(False, "no_such_row", "The table has no such row, for any caller.")
        if (missing := self._missing_privilege()) is not None:
            return missing
        rows: dict[Row, str] = {} if old is None else {"old": old}
        if self.command in ("INSERT", "UPDATE"):
            rows["new"] = self.source.new(old, self.row)
        denial = self._denied_by_policies(self._steps(), rows) or self._denied_by_constraints(rows)
        if denial is not None:
            return denial
        if self.is_active:
            detail = "A permissive policy is true, and no policy denies it."
            return self._explained(True, "allowed", detail)
        detail = (
            f"Row security doesn't hold for role {self.caller.role!r}."
            if self.table.has_row_security
            else "Row security is off on the table: every row is open to a role with the privilege."
        )
        return self._explained(True, "row_security_off", detail)

    def _steps(self) -> tuple[Step, ...]:
        steps = STEPS[self.command]
        if self.command == "INSERT" and self.returning:
            return (*steps, RETURNING)
        if self.on_conflict is not None and self.constraints.target(self.on_conflict):
            return (*steps, TARGET)
        return steps

    def _denied_by_constraints(self, rows: Mapping[Row, str]) -> Explanation | None:
        if self.command == "DELETE":
            return self._broken(self.constraints.still_referenced(rows["old"], None))
        if "new" not in rows:
            return None
        clause, constraints = self.on_conflict, self.constraints
        if (broken := self._broken(constraints.broken(rows["new"]))) is not None:
            return broken
        if clause is not None:
            found = constraints.conflict(rows["new"], constraints.arbiters(clause))
            if found is not None and clause.action == "nothing":
                return self._not_unique(*found, " ON CONFLICT DO NOTHING inserts no row.")
            if found is not None:
                return self._updated({**rows, "old": found[1]}, clause)
        return self._broken_keys(rows["new"], rows.get("old"))

    def _updated(self, rows: dict[Row, str], clause: OnConflict) -> Explanation | None:
        rows["updated"] = self.source.new(rows["old"], self._set_by(clause))
        return (
            self._denied_by_policies(DO_UPDATE, rows)
            or self._broken(self.constraints.broken(rows["updated"]))
            or self._broken_keys(rows["updated"], rows["old"])
        )

    def _set_by(self, clause: OnConflict) -> Mapping[str, Any]:
        if clause.values is not None:
            return clause.values
        target = self.constraints.target(clause)
        return {name: value for name, value in self.row.items() if name not in target} or self.row

    def _broken_keys(self, row: str, replaced: str | None) -> Explanation | None:
        found = self.constraints.conflict(row, replaced=replaced)
        if found is not None:
            return self._not_unique(*found)
        return self._broken(
            self.constraints.broken_foreign_key(row)
            or (self.constraints.still_referenced(replaced, row) if replaced is not None else None)
        )

    def _not_unique(self, index: str, row: str, effect: str = "") -> Explanation:
        detail = f"The table has a row with this key already, by unique index {index!r}.{effect}"
        if self.is_active:
            asked = [each for each in self.policies if each.is_for("SELECT")]
            answers = [self._evaluate(each, STEPS["SELECT"][0], row) for each in asked]
            if self._denied(STEPS["SELECT"][0], asked, answers):
                detail += " The SELECT policies hide that row from the caller."
        return self._explained(False, "unique", detail)

    def _broken(self, found: Broken | None) -> Explanation | None:
        return None if found is None else self._explained(False, *found)

    def _denied_by_policies(self, steps: Sequence[Step], rows: Mapping[Row, str]) -> Explanation | None:
        if not self.is_active:
            return None
        denial: Explanation | None = None
        for step in steps:
            asked = [each for each in self.policies if each.is_for(step.command)]
            answers = [self._evaluate(each, step, rows[step.row]) for each in asked]
            self.results.extend(answer for answer in answers if answer not in self.results)
            if self._is_error_skipped(step, asked, answers, rows[step.row]):
                answers = [answer for answer in answers if answer.result != "error" or not answer.permissive]
            denial = denial or self._denied(step, asked, answers)
        return denial

    def _is_error_skipped(
        self, step: Step, asked: Sequence[Policy], answers: Sequence[PolicyResult], row: str
    ) -> bool:
        """Whether another policy is true before Postgres evaluates the permissive one with an error."""
        if {"true", "error"} - {answer.result for answer in answers if answer.permissive}:
            return False
        # In the order in which Postgres joins them with OR: its list of policies begins with the last name.
        predicates = [each.predicate(step.part) for each in reversed(asked) if each.permissive]
        joined = " OR ".join(f"({predicate})" for predicate in predicates if predicate is not None)
        return self.source.value(f"({joined})", row)[0] == "true"

    def _denied(
        self, step: Step, asked: Sequence[Policy], answers: Sequence[PolicyResult]
    ) -> Explanation | None:
        false = [answer for answer in answers if answer.result != "true"]
        restrictive = [answer for answer in false if not answer.permissive]
        needs = step.needs
        reason: Reason
        if not any(policy.permissive for policy in asked):
            reason = "no_policy"
            detail = f"No permissive policy is for {step.command} and role {self.caller.role!r}.{needs}"
        elif errors := [answer for answer in answers if answer.result == "error"]:
            reason = "policy_error"
            detail = f"Policy {errors[0].name!r} raises an error, and the command with it.{needs}"
        elif restrictive:
            reason = "restrictive_false"
            names = ", ".join(repr(answer.name) for answer in restrictive)
            detail = f"A restrictive policy isn't true: {names}.{needs}"
        elif any(answer.permissive and answer.result == "true" for answer in answers):
            return None
        elif step.command == "SELECT" and step.row != "old":
            reason = "new_row_hidden"
            detail = f"No SELECT policy shows {ROWS[step.row]}.{needs}"
        elif step.part == "check":
            reason = "check_false"
            detail = f"No permissive policy admits {ROWS[step.row]}.{needs}"
        else:
            reason = "permissive_false"
            detail = f"No permissive policy for {step.command} is true for the row.{needs}"
        if step in DO_UPDATE and step.row == "old" and reason != "policy_error":
            reason = "conflict_denied"
        return self._explained(False, reason, detail)

    def _explained(self, allowed: bool, reason: Reason, detail: str) -> Explanation:
        return Explanation(
            table=self.table.name,
            role=self.caller.role,
            command=self.command,
            allowed=allowed,
            reason=reason,
            detail=detail,
        )

    def _evaluate(self, policy: Policy, step: Step, row: str) -> PolicyResult:
        predicate = policy.predicate(step.part)
        # Without an expression, a permissive policy admits no row, and a restrictive one denies none.
        result: Result = "false" if policy.permissive else "true"
        failed: tuple[FailedCondition, ...] = ()
        if predicate is not None:
            result, problem = self.source.value(f"({predicate})", row)
            if result != "true":
                failed = tuple(self._failed(predicate, row))
            if result == "error" and not failed:
                failed = (FailedCondition(expression=predicate, result="error", values={"error": problem}),)
        return PolicyResult(
            name=policy.name,
            permissive=policy.permissive,
            part=step.part,
            row=step.row,
            result=result,
            failed=failed,
        )

    def _failed(self, predicate: str, row: str) -> Iterator[FailedCondition]:
        for conjunct in conjuncts(predicate):
            result, problem = self.source.value(f"({conjunct.text})", row)
            if result == "true":
                continue
            values: dict[str, str | None] = {"error": problem} if result == "error" else {}
            for operand in conjunct.operands:
                values[operand] = self.source.value(
                    f"CAST(({operand}) AS pg_catalog.text)", row, any_value=True
                )[1]
            yield FailedCondition(expression=conjunct.text, result=result, values=values)

    def _missing_privilege(self) -> Explanation | None:
        clause = self.on_conflict
        target = self.constraints.target(clause) if clause else ()
        use = Use(
            command=self.command,
            writes=list(self.row),
            updates=list(self._set_by(clause)) if clause and clause.action == "update" else (),
            target=target,
            returning=self.returning,
        )
        return self._broken(missing_privilege(self.connection, self.table, self.caller.role, use))
