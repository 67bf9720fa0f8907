"""Why a caller may, or may not, read or write a row.

The owner of the table fetches the row.  Then the caller's own role evaluates each policy on it, as a row of
no table.  In this way, the policies of other tables apply inside, as they do for the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    literal_column,
    select,
    text,
)

from sqla_rls.analyze.explanation import (
    Command,
    Explanation,
    FailedCondition,
    Part,
    PolicyResult,
    Reason,
    Result,
)
from sqla_rls.analyze.predicates import conjuncts
from sqla_rls.analyze.rows import Rows
from sqla_rls.analyze.target import Target, query, resolve
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey


def explain_access(
    connection: Connection,
    caller: Caller,
    target: Any,
    command: Command = "SELECT",
    *,
    key: Any = None,
    row: Mapping[str, Any] | None = None,
    returning: bool = True,
    signing_key: SigningKey | None = None,
) -> Explanation:
    """Explain whether *caller* may run *command* on one row.

    Nothing is written: the policies see rows of no table, in a transaction that is read only and rolled
    back.  Under asyncio, ``await connection.run_sync(explain_access, caller, …)``.

    Args:
        connection: a connection of the table's owner, or of a role that row security doesn't hold for.  It
            must be a member of the caller's role.
        caller: the caller.  Only the role counts for a caller without claims.
        target: an instance, a mapped class, a ``Table``, or the name of a table.
        command: "SELECT", "INSERT", "UPDATE" or "DELETE".
        key: the primary key of the row, if the target isn't an instance: a value, a sequence of values, or
            a mapping of columns.
        row: the new values by their columns: the row of INSERT, the changed columns of UPDATE.
        returning: INSERT reads its row back, as the ORM does.
        signing_key: the key, where the database verifies callers.

    Raises:
        AnalysisError: the table doesn't exist, it is a view, or the connection doesn't see all of its rows.
        BindingError: the connection's role isn't a member of the caller's role.

    Emits:
        SELECT statements over the catalog and the table, ``set_config(…, true)`` for the caller, and one
        SELECT for each policy, in a savepoint.
    """
    if command not in get_args(Command):
        raise AnalysisError(f"command={command!r} can't be explained: give one of {get_args(Command)}")
    name, found_key, found_row = resolve(connection, target, inserts=command == "INSERT")
    key, row = found_key if key is None else key, {**found_row, **(row or {})}
    with _read_only(connection):
        table = Target.read(connection, name)
        for column in row:
            table.column(column)
        source = Rows(connection, table, caller, signing_key)
        source.require_known_caller()
        return _Question(source, command, row, returning).answer(key)


@contextmanager
def _read_only(connection: Connection) -> Iterator[None]:
    with connection.begin_nested() if connection.in_transaction() else connection.begin() as transaction:
        connection.exec_driver_sql("SET LOCAL transaction_read_only = on")
        yield
        transaction.rollback()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    name: str
    permissive: bool
    command: str
    using: str | None
    check: str | None
    applies: bool

    def predicate(self, part: Part) -> str | None:
        return self.using if part == "using" or self.check is None else self.check


@dataclass(frozen=True, slots=True)
class _Step:
    """One check of a command: a part of the policies of a command sees a row."""

    command: Command
    part: Part
    row: Literal["old", "new"]


_STEPS: Final[dict[Command, tuple[_Step, ...]]] = {
    "SELECT": (_Step("SELECT", "using", "old"),),
    "DELETE": (_Step("SELECT", "using", "old"), _Step("DELETE", "using", "old")),
    "UPDATE": (
        _Step("SELECT", "using", "old"),
        _Step("UPDATE", "using", "old"),
        _Step("UPDATE", "check", "new"),
        _Step("SELECT", "using", "new"),
    ),
    "INSERT": (_Step("INSERT", "check", "new"), _Step("SELECT", "using", "new")),
}


@dataclass(frozen=True, slots=True)
class _Question:
    source: Rows
    command: Command
    row: Mapping[str, Any]
    returning: bool

    @property
    def connection(self) -> Connection:
        return self.source.connection

    @property
    def caller(self) -> Caller:
        return self.source.caller

    @property
    def table(self) -> Target:
        return self.source.table

    def answer(self, key: Any) -> Explanation:
        rows: dict[str, str] = {}
        if self.command != "INSERT":
            found = self.source.fetch(key)
            if found is None:
                return self._explained(False, "no_such_row", "The table has no such row, for any caller.")
            rows["old"] = found
        if (missing := self._missing_privilege()) is not None:
            return missing
        with self.source.as_caller():
            active = self.connection.scalar(
                text("SELECT pg_catalog.row_security_active(CAST(:oid AS pg_catalog.oid))"),
                {"oid": self.table.oid},
            )
        if self.command in ("INSERT", "UPDATE"):
            rows["new"] = self.source.new(rows.get("old"), self.row)
        if not active:
            detail = (
                f"Row security doesn't hold for role {self.caller.role!r}."
                if self.table.has_row_security
                else "Row security is off on the table: every row is open to a role with the privilege."
            )
            return self._broken_foreign_key(rows) or self._explained(True, "row_security_off", detail)
        return self._asked_policies(rows)

    def _asked_policies(self, rows: Mapping[str, str]) -> Explanation:
        policies = [
            _Policy(**policy)
            for policy in self.connection.execute(
                query("policies"), {"oid": self.table.oid, "role": self.caller.role}
            ).mappings()
        ]
        results: list[PolicyResult] = []
        denial: Explanation | None = None
        for step in _STEPS[self.command]:
            if self.command == "INSERT" and step.command == "SELECT" and not self.returning:
                continue
            asked = [each for each in policies if each.applies and each.command in (step.command, "ALL")]
            answers = [self._evaluate(each, step, rows[step.row]) for each in asked]
            results += [answer for answer in answers if answer not in results]
            denial = denial or self._denied(step, asked, answers)
        explained = denial or self._broken_foreign_key(rows)
        if explained is None:
            explained = self._explained(
                True, "allowed", "A permissive policy is true, and no policy denies it."
            )
        return replace(explained, policies=tuple(results))

    def _denied(
        self, step: _Step, asked: Sequence[_Policy], answers: Sequence[PolicyResult]
    ) -> Explanation | None:
        false = [answer for answer in answers if answer.result != "true"]
        restrictive = [answer for answer in false if not answer.permissive]
        needs = "" if step.command == self.command else f" {self._needs(step)}"
        if not any(policy.permissive for policy in asked):
            detail = f"No permissive policy is for {step.command} and role {self.caller.role!r}.{needs}"
            return self._explained(False, "no_policy", detail)
        if errors := [answer for answer in answers if answer.result == "error"]:
            detail = f"Policy {errors[0].name!r} raises an error, and the command with it.{needs}"
            return self._explained(False, "policy_error", detail)
        if restrictive:
            names = ", ".join(repr(answer.name) for answer in restrictive)
            detail = f"A restrictive policy isn't true: {names}.{needs}"
            return self._explained(False, "restrictive_false", detail)
        if not any(answer.permissive and answer.result == "true" for answer in answers):
            if step.command != self.command and step.row == "new":
                detail = f"No SELECT policy shows the new row.{needs}"
                return self._explained(False, "new_row_hidden", detail)
            if step.part == "check":
                return self._explained(False, "check_false", "No permissive policy admits the new row.")
            detail = f"No permissive policy for {step.command} is true for the row.{needs}"
            return self._explained(False, "permissive_false", detail)
        return None

    def _needs(self, step: _Step) -> str:
        if step.row == "old":
            return f"{self.command} finds its row by the SELECT policies."
        if self.command == "INSERT":
            return "INSERT … RETURNING reads the new row by the SELECT policies."
        return "UPDATE reads the new row by the SELECT policies."

    def _explained(self, allowed: bool, reason: Reason, detail: str) -> Explanation:
        return Explanation(
            table=self.table.name,
            role=self.caller.role,
            command=self.command,
            allowed=allowed,
            reason=reason,
            detail=detail,
        )

    def _evaluate(self, policy: _Policy, step: _Step, row: str) -> PolicyResult:
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
        role = self.caller.role
        held = (
            self.connection.execute(query("privileges"), {"oid": self.table.oid, "role": role})
            .mappings()
            .one()
        )
        if not held["schema_usage"]:
            grant = f"GRANT USAGE ON SCHEMA {self.table.schema} TO …"
            detail = f"Role {role!r} may not use schema {self.table.schema}. Run: {grant}"
            return self._explained(False, "missing_privilege", detail)
        if self.command == "DELETE" and not held["delete"]:
            return self._without("DELETE", [], held)
        everything, given = list(self.table.columns), list(self.row)
        key = self.table.key or everything
        writable = [n for n, column in self.table.columns.items() if not column["generated"]]
        needed: dict[Command, list[tuple[str, list[str]]]] = {
            "SELECT": [("SELECT", everything)],
            "DELETE": [("SELECT", key)],
            "UPDATE": [("UPDATE", given or writable), ("SELECT", key)],
            "INSERT": [("INSERT", given or writable)] + ([("SELECT", everything)] if self.returning else []),
        }
        for privilege, columns in needed[self.command]:
            if missing := [name for name in columns if not held["columns"][name][privilege]]:
                return self._without(privilege, missing, held)
        for name, column in self.table.columns.items():
            sequence = column["sequence"]
            drawn = self.command == "INSERT" and name not in self.row and sequence is not None
            if drawn and not held["sequences"][sequence]:
                detail = (
                    f"Role {role!r} lacks USAGE on sequence {sequence}, which the default of column "
                    f"{name!r} needs."
                )
                return self._explained(False, "missing_privilege", detail)
        return None

    def _without(self, privilege: str, columns: Sequence[str], held: RowMapping) -> Explanation:
        role = self.caller.role
        if columns and any(held["columns"][name][privilege] for name in self.table.columns):
            names = ", ".join(repr(name) for name in columns)
            detail = f"Role {role!r} lacks {privilege} on columns {names}."
            return self._explained(False, "column_privilege", detail)
        detail = f"Role {role!r} lacks {privilege} on the table."
        return self._explained(False, "missing_privilege", detail)

    def _broken_foreign_key(self, rows: Mapping[str, str]) -> Explanation | None:
        if "new" not in rows:
            return None
        for key in self.connection.execute(query("foreign_keys"), {"oid": self.table.oid}).mappings():
            mine = [f"{self.table.alias}.{name}" for name in key["columns"]]
            pairs = " AND ".join(
                f"t.{theirs} = {ours}" for theirs, ours in zip(key["target_columns"], mine, strict=True)
            )
            nulls = " OR ".join(f"{name} IS NULL" for name in mine)
            all_null = " AND ".join(f"{name} IS NULL" for name in mine)
            holds = (
                f"({all_null if key['is_full'] else nulls}) "
                f"OR EXISTS (SELECT FROM {key['target']} AS t WHERE {pairs})"
            )
            statement: Select[Any] = select(literal_column(f"({holds})")).select_from(self.source.as_table())
            if not self.connection.execute(statement, {"row": rows["new"]}).scalar_one():
                detail = f"The new row breaks foreign key {key['name']!r}: {key['target']} has no such row."
                return self._explained(False, "foreign_key", detail)
        return None
