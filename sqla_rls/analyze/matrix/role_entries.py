"""The entries of one role on one relation: by the catalog, by the policies, or by small worlds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqla_rls.analyze.matrix.decide import Answer, Worlds, all_of, constant
from sqla_rls.analyze.matrix.entry import Entry
from sqla_rls.analyze.matrix.words import ConditionWords
from sqla_rls.analyze.why.explanation import COMMANDS, Command
from sqla_rls.analyze.worlds.objects import PolicyText, Profile, Relation
from sqla_rls.analyze.worlds.scratch import ScratchDatabase

_KINDS: Final = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
}


@dataclass(slots=True)
class RoleEntries:
    """The entries of a role on a relation."""

    database: ScratchDatabase
    incomplete: frozenset[str]
    relation: Relation
    role: str
    profile: Profile
    worlds: Worlds
    words: ConditionWords
    constants: dict[str, bool | None]
    #: The functions that say IMMUTABLE.
    immutable: Collection[str]

    def entries(self) -> Iterator[Entry]:
        decided: dict[Command, Entry | None] = {command: self._by_catalog(command) for command in COMMANDS}
        left: list[Command] = [command for command, entry in decided.items() if entry is None]
        answers = self._answers(left) if left else {}
        for command, entry in decided.items():
            yield entry if entry is not None else self._by_worlds(command, answers[command])

    def _answers(self, commands: Sequence[Command]) -> Mapping[Command, Answer]:
        return self.worlds.answers(self.role, self.profile, commands)

    def _entry(self, command: Command, **values: object) -> Entry:
        partition = "partition" if self.relation.is_partition else None
        columns = self._columns(command)
        return Entry(
            object=self.relation.name,
            kind=partition or _KINDS[self.relation.kind],
            role=self.role,
            command=command,
            columns=() if set(columns) >= set(self.relation.columns) else columns,
            **values,  # type: ignore[arg-type] # the values are those of Entry
        )

    def _columns(self, command: Command) -> tuple[str, ...]:
        match command:
            case "SELECT":
                return self.profile.selects
            case "INSERT":
                return self.profile.inserts
            case "UPDATE":
                return self.profile.updates
            case _:
                return tuple(self.relation.columns)

    def _by_catalog(self, command: Command) -> Entry | None:
        """Return the entry, if privileges, flags or constants decide."""
        relation, profile = self.relation, self.profile
        is_held = profile.delete if command == "DELETE" else bool(self._columns(command))
        if not is_held:
            return self._entry(command, verdict="never", reason="no privilege", basis="privilege")
        if not profile.usage:
            reason = f"no USAGE on schema {relation.schema}"
            return self._entry(command, verdict="never", reason=reason, basis="privilege")
        if self._is_incomplete():
            reason = "the scratch database has the object, or one that it reads, only in part"
            return self._entry(command, verdict="unknown", reason=reason)
        if relation.kind == "v":
            return None
        if relation.kind in ("m", "f"):
            if command != "SELECT" and relation.kind == "m":
                return self._entry(command, verdict="never", reason="a materialized view", basis="privilege")
            reason = "a foreign table has no row security" if relation.kind == "f" else "a copy of rows"
            return self._entry(command, verdict="always", reason=reason, basis="privilege")
        if (unlimited := self._unlimited()) is not None:
            return self._entry(
                command, verdict="always", reason=unlimited, basis="privilege", sql=self._sql(command)
            )
        return self._by_policies(command)

    def _unlimited(self) -> str | None:
        """Return why the policies don't limit the role."""
        if not self.relation.row_security:
            return "row security is off"
        if self.profile.bypasses:
            return "the role bypasses row security"
        if self.profile.owns and not self.relation.forced:
            return "the role owns the table, and row security isn't forced"
        return None

    def _is_incomplete(self) -> bool:
        return bool(self.database.schema.reads(self.relation.name) & self.incomplete)

    def _policies(self, command: Command) -> list[PolicyText]:
        return [
            policy
            for policy in self.relation.policies
            if policy.name in self.profile.policies and policy.command in (command, "ALL")
        ]

    def _expressions(self, command: Command, *, is_check: bool) -> tuple[list[str], list[str]]:
        """Return the permissive and the restrictive conditions of rows, or of new rows."""
        found: tuple[list[str], list[str]] = [], []
        for policy in self._policies(command):
            expression = (policy.check or policy.using) if is_check else policy.using
            if expression is not None:
                found[not policy.permissive].append(expression)
        return found

    def _parts(self, command: Command) -> list[tuple[list[str], list[str]]]:
        """Return the conditions of the row before the command, and of the row after it."""
        parts = []
        if command != "INSERT":
            parts.append(self._expressions(command, is_check=False))
        if command in ("INSERT", "UPDATE"):
            parts.append(self._expressions(command, is_check=True))
        return parts

    def _by_policies(self, command: Command) -> Entry | None:
        parts = self._parts(command)
        if any(not permissive for permissive, _ in parts):
            has_some = any(policy.permissive for policy in self._policies(command))
            reason = "no policy admits a row" if has_some else "no policy"
            return self._entry(
                command, verdict="never", reason=reason, basis="policy", sql=self._sql(command)
            )
        values = [self._constant(all_of(*part)) for part in parts]
        if all(values):
            reason = "the policies are true for every row"
            return self._entry(
                command, verdict="always", reason=reason, basis="constant", sql=self._sql(command)
            )
        if any(value is False for value in values):
            reason = "the policies are false for every row"
            return self._entry(
                command, verdict="never", reason=reason, basis="constant", sql=self._sql(command)
            )
        return None

    def _constant(self, expression: str) -> bool | None:
        if expression not in self.constants:
            called = sorted(self.database.schema.calls(self.relation.name) & {*self.immutable})
            self.constants[expression] = constant(self.database.connection, self.relation, expression, called)
        return self.constants[expression]

    def _by_worlds(self, command: Command, answer: Answer) -> Entry:
        sql, found = self._sql(command), f"{answer.worlds} of them"
        if answer.is_settled:
            return self._entry(
                command, verdict="condition", condition=self._condition(command), basis="worlds", sql=sql
            )
        if not answer.reached and not answer.missed:
            reason = "no row satisfies the constraints"
            return self._entry(command, verdict="unknown", reason=reason, sql=sql)
        if self.database.schema.is_opaque(self.relation.name):
            reason = "a function runs SQL text that it computes, so it may read any table"
            return self._entry(command, verdict="unknown", reason=reason, sql=sql)
        if answer.reached:
            return self._entry(command, verdict="always", reason=found, basis="worlds", sql=sql)
        reason = answer.error or found
        return self._entry(command, verdict="never", reason=reason, basis="worlds", sql=sql)

    def _condition(self, command: Command) -> str:
        if self.relation.kind == "v":
            return self._condition_of_view()
        rows = [self.words.of(*part) for part in self._parts(command)]
        if len(set(rows)) == 1:
            return rows[0]
        return f"{rows[0]}; new rows: {rows[1]}"

    def _condition_of_view(self) -> str:
        schema = self.database.schema
        edges = schema.edges.get(self.relation.name, ())
        read = sorted({edge.reads for edge in edges if edge.part == "query" and edge.reads is not None})
        columns = {column for name in read for column in schema.relations[name].columns}
        words = ConditionWords(columns, schema.functions)
        found = words.of_query(self.relation.query or "") if len(read) == 1 else None
        names = ", ".join(read)
        if self.relation.is_invoker:
            own = f"{found}, of those" if found is not None else "rows"
            return f"{own} that the role can read in {names}"
        return found or f"rows of {names}, by the query of the view"

    def _sql(self, command: Command) -> str:
        if self.relation.query is not None:
            return self.relation.query.strip()
        if not self.relation.row_security:
            return ""
        return "\n".join(map(_policy_sql, self._policies(command)))


def _policy_sql(policy: PolicyText) -> str:
    kind = "" if policy.permissive else " AS RESTRICTIVE"
    parts = [f"policy {policy.name}{kind} FOR {policy.command}"]
    parts += [f"USING ({policy.using})"] if policy.using is not None else []
    parts += [f"WITH CHECK ({policy.check})"] if policy.check is not None else []
    return " ".join(" ".join(parts).split())
