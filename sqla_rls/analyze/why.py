"""Why a caller may, or may not, read or write a row.

The owner of the table fetches the row.  Then the caller's own role evaluates each policy on it as a row of
no table, so that the policies of other tables apply inside, as they do for the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Text,
    TextClause,
    cast,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from sqla_rls.analyze.predicates import conjuncts
from sqla_rls.analyze.target import Target, query, resolve
from sqla_rls.exc import AnalysisError
from sqla_rls.session.binding import bind
from sqla_rls.session.options import BindingOptions, SessionOptions
from sqla_rls.session.plan import ConnectionPlan
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import HS256Signer, SigningKey

Command: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
Reason: TypeAlias = Literal[
    "allowed",
    "row_security_off",
    "no_such_row",
    "missing_privilege",
    "column_privilege",
    "no_policy",
    "permissive_false",
    "restrictive_false",
    "check_false",
    "new_row_hidden",
    "policy_error",
    "foreign_key",
]
Result: TypeAlias = Literal["true", "false", "null", "error"]
_Part: TypeAlias = Literal["using", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCondition:
    """A condition of a predicate that isn't true."""

    expression: str
    result: Result
    #: The values that it compares, by their expressions; the message of an error.
    values: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """The answer of one policy."""

    name: str
    permissive: bool
    #: Whether USING saw the row, or WITH CHECK the new row.
    part: _Part
    #: The row: the one in the table, or the new one.
    row: Literal["old", "new"]
    result: Result
    failed: tuple[FailedCondition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Whether a caller may run a command on a row, and why.

    It tells of rows that the caller can't see: it is for the owner of the table.
    """

    table: str
    role: str
    command: Command
    allowed: bool
    reason: Reason
    #: One sentence.
    detail: str
    policies: tuple[PolicyResult, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON objects."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.command} on {self.table} as {self.role}: {'allowed' if self.allowed else 'denied'}"]
        lines.append(f"  {self.detail}")
        for policy in self.policies:
            kind = "permissive" if policy.permissive else "restrictive"
            seen = "the new row" if policy.row == "new" else "the row"
            lines.append(f"  {kind} policy {policy.name!r}, {policy.part.upper()} on {seen}: {policy.result}")
            for failed in policy.failed:
                lines.append(f"    {failed.result}: {failed.expression}")
                lines += [f"      {name} is {_shown(value)}" for name, value in failed.values.items()]
        return "\n".join(lines)


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
        question = _Question(connection, caller, table, command, row, returning, signing_key)
        question.require_known_caller()
        return question.answer(key)


def _shown(value: str | None) -> str:
    return "NULL" if value is None else repr(value)


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

    def predicate(self, part: _Part) -> str | None:
        return self.using if part == "using" or self.check is None else self.check


@dataclass(frozen=True, slots=True)
class _Step:
    """What one command asks the policies: a part of the policies of a command sees a row."""

    command: Command
    part: _Part
    row: Literal["old", "new"]


_MAY_ASK: Final = text(
    "SELECT coalesce("
    "pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('auth.session()'), 'EXECUTE') "
    "AND pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace('auth'), 'USAGE'), false)"
)
_IS_KNOWN: Final = text("SELECT auth.session()::pg_catalog.text OPERATOR(pg_catalog.<>) 'null'")

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
    connection: Connection
    caller: Caller
    table: Target
    command: Command
    row: Mapping[str, Any]
    returning: bool
    signing_key: SigningKey | None

    def answer(self, key: Any) -> Explanation:
        rows: dict[str, str] = {}
        if self.command != "INSERT":
            found = self._fetch(key)
            if found is None:
                return self._explained(False, "no_such_row", "The table has no such row, for any caller.")
            rows["old"] = found
        if (missing := self._missing_privilege()) is not None:
            return missing
        with self._as_caller():
            active = self.connection.scalar(
                text("SELECT pg_catalog.row_security_active(CAST(:oid AS pg_catalog.oid))"),
                {"oid": self.table.oid},
            )
        if self.command in ("INSERT", "UPDATE"):
            rows["new"] = self._new_row(rows.get("old"))
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

    @contextmanager
    def _as_caller(self) -> Iterator[None]:
        """Inside, the transaction is the caller's."""
        key = self.signing_key
        plan = ConnectionPlan(
            options=SessionOptions(binding=BindingOptions(transport="statement", reset="none")),
            server=None,
            signer=None if key is None else HS256Signer(key, None),
            settings={},
            modes=None,
        )
        savepoint = self.connection.begin_nested()
        try:
            bind(self.connection, self.caller, plan, joined=True)
            yield
        finally:
            savepoint.rollback()

    def require_known_caller(self) -> None:
        """Raise AnalysisError if the database doesn't believe who the caller is."""
        if not self.caller.claims:
            return
        with self._as_caller():
            if self.connection.scalar(_MAY_ASK) and not self.connection.scalar(_IS_KNOWN):
                raise AnalysisError(
                    "the caller can't be bound: the database verifies callers. Give the application's "
                    "signing key, as signing_key= or in SQLA_RLS_SIGNING_KEY"
                )

    # Rows: as text of the table's own type, which every type of a column survives.

    def _fetch(self, key: Any) -> str | None:
        wanted = self._key(key)
        columns = [self.table.column(name) for name in wanted]
        statement: Select[Any] = (
            select(literal_column("CAST((t.*) AS pg_catalog.text)"))
            .select_from(text(f"{_without_parameters(self.table.name)} AS t"))
            .where(*(_equals(number, column) for number, column in enumerate(columns)))
            .limit(2)
        )
        values = {f"key_{number}": _as_text(value) for number, value in enumerate(wanted.values())}
        found = self.connection.execute(statement, values).scalars().all()
        if len(found) > 1:
            raise AnalysisError(
                f"table {self.table.name} has several rows with this key: give more columns, as a mapping"
            )
        return found[0] if found else None

    def _key(self, key: Any) -> dict[str, Any]:
        if isinstance(key, Mapping) and key:
            return dict(key)
        columns = self.table.key
        values = list(key) if isinstance(key, Sequence) and not isinstance(key, str | bytes) else [key]
        if key is None or not columns or len(columns) != len(values):
            named = ", ".join(columns) or "none"
            raise AnalysisError(
                f"the key doesn't fit the primary key of table {self.table.name} ({named}): give a mapping "
                "of columns to values"
            )
        return dict(zip(columns, values, strict=True))

    def _new_row(self, old: str | None) -> str:
        """The row that the command would write; defaults that draw a number from a sequence are NULL."""
        given = {name: _as_json(value) for name, value in self.row.items()}
        if old is not None:
            return self._generated(self._populated(f"({self.table.alias}.*)", old, given))
        defaults = {
            name: column["default"]
            for name, column in self.table.columns.items()
            if column["default"] and not column["sequence"] and name not in given
        }
        with self._as_caller():
            return self._generated(self._populated(None, None, given, defaults))

    def _generated(self, row: str) -> str:
        columns = self.table.columns.items()
        generated = {name: column["generated"] for name, column in columns if column["generated"]}
        return self._populated(f"({self.table.alias}.*)", row, {}, generated) if generated else row

    def _populated(
        self,
        base: str | None,
        row: str | None,
        given: Mapping[str, Any],
        computed: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """The row *base* with the values that are *given*, and those of SQL expressions, as text."""
        record: ColumnElement[Any] = literal_column(base or f"CAST(NULL AS {self.table.name})")
        for name, expression in computed.items():
            pair = f"pg_catalog.jsonb_build_object({_literal(name)}, {expression})"
            record = func.pg_catalog.jsonb_populate_record(record, literal_column(pair))
        values = cast(literal(json.dumps(given), Text), JSONB)
        record = func.pg_catalog.jsonb_populate_record(record, values)
        statement = select(cast(record, Text))
        if row is None:
            return str(self.connection.execute(statement).scalar_one())
        statement = statement.select_from(self._as_table())
        return str(self.connection.execute(statement, {"row": row}).scalar_one())

    def _as_table(self) -> TextClause:
        name, alias = _without_parameters(self.table.name), _without_parameters(self.table.alias)
        return text(f"unnest(ARRAY[CAST(CAST(:row AS pg_catalog.text) AS {name})]) AS {alias}")

    # Policies

    def _evaluate(self, policy: _Policy, step: _Step, row: str) -> PolicyResult:
        predicate = policy.predicate(step.part)
        result: Result = "true"
        failed: tuple[FailedCondition, ...] = ()
        if predicate is not None:
            result, problem = self._value(f"({predicate})", row)
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
            result, problem = self._value(f"({conjunct.text})", row)
            if result == "true":
                continue
            values: dict[str, str | None] = {"error": problem} if result == "error" else {}
            for operand in conjunct.operands:
                values[operand] = self._value(f"CAST(({operand}) AS pg_catalog.text)", row, any_value=True)[1]
            yield FailedCondition(expression=conjunct.text, result=result, values=values)

    def _value(self, expression: str, row: str, *, any_value: bool = False) -> tuple[Result, str | None]:
        """The value of *expression* for the row, as the caller; the text of an error."""
        shown = expression if any_value else f"CAST({expression} AS pg_catalog.text)"
        statement: Select[Any] = select(literal_column(shown)).select_from(self._as_table())
        try:
            with self._as_caller():
                value = self.connection.execute(statement, {"row": row}).scalar_one()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return "error", str(error.orig).partition("\n")[0]
        result: Result = "null" if value is None else "true" if value == "true" else "false"
        return result, value

    # What is no policy's

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
        others = [name for name in self.table.columns if name not in columns]
        partly = columns and any(held["columns"][name][privilege] for name in others)
        if partly or (columns and self.row and privilege in ("INSERT", "UPDATE")):
            names = ", ".join(repr(name) for name in columns)
            if any(held["columns"][name][privilege] for name in self.table.columns):
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
            statement: Select[Any] = select(literal_column(f"({holds})")).select_from(self._as_table())
            if not self.connection.execute(statement, {"row": rows["new"]}).scalar_one():
                detail = f"The new row breaks foreign key {key['name']!r}: {key['target']} has no such row."
                return self._explained(False, "foreign_key", detail)
        return None


def _literal(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"


def _without_parameters(name: str) -> str:
    """The quoted *name* for text(), to which a colon begins a parameter."""
    return name.replace(":", "\\:")


def _equals(number: int, column: Mapping[str, Any]) -> TextClause:
    name, type_ = (_without_parameters(column[of]) for of in ("quoted", "type"))
    return text(f"t.{name} = CAST(CAST(:key_{number} AS pg_catalog.text) AS {type_})")


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _as_json(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | list | dict):
        return value
    return f"\\x{value.hex()}" if isinstance(value, bytes) else str(value)
