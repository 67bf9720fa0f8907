"""The answer to a question about access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

Command: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
COMMANDS: Final[tuple[Command, ...]] = ("SELECT", "INSERT", "UPDATE", "DELETE")
WRITES: Final[tuple[Command, ...]] = ("INSERT", "UPDATE", "DELETE")
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
    "conflict_denied",
    "policy_error",
    "constraint",
    "unique",
    "foreign_key",
]
Result: TypeAlias = Literal["true", "false", "null", "error"]
Part: TypeAlias = Literal["using", "check"]
Row: TypeAlias = Literal["old", "new", "updated"]
#: What the sentences call them.
ROWS: Final[dict[Row, str]] = {"old": "the row", "new": "the new row", "updated": "the updated row"}


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
    part: Part
    #: The row: the one in the table, the new one, or the one that ON CONFLICT DO UPDATE makes of both.
    row: Row
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
    #: A sentence for each trigger or constraint that the answer doesn't cover.
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON objects."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.command} on {self.table} as {self.role}: {'allowed' if self.allowed else 'denied'}"]
        lines.append(f"  {self.detail}")
        for policy in self.policies:
            kind = "permissive" if policy.permissive else "restrictive"
            seen = f"{policy.part.upper()} on {ROWS[policy.row]}"
            lines.append(f"  {kind} policy {policy.name!r}, {seen}: {policy.result}")
            for failed in policy.failed:
                lines.append(f"    {failed.result}: {failed.expression}")
                lines += [f"      {name} is {_shown(value)}" for name, value in failed.values.items()]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def _shown(value: str | None) -> str:
    return "NULL" if value is None else repr(value)
