"""The results of ``prove``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.prove.mutants import Mutant
from sqla_rls.analyze.verdict import Scope, WorldRows
from sqla_rls.analyze.why.explanation import Command

#: Postgres permits more than the intent, or less.
Direction: TypeAlias = Literal["more", "less"]
#: Whether the intent is that of the declarations, or is stated by ``intends()``.
Source: TypeAlias = Literal["declared", "stated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A few rows, a caller and a statement that does more, or less, than the intent.

    To replay it: insert the rows as owner, set the role, the claims and the settings, and run the statement.
    """

    #: The table or view.
    object: str
    role: str
    command: Command
    direction: Direction
    #: The claims of the caller; None is a transaction without claims.
    claims: Mapping[str, Any] | None
    settings: Mapping[str, str] = field(default_factory=dict)
    rows: WorldRows
    statement: str
    #: The number of rows that the statement may return or change.
    intended: int
    #: The number of rows that it returned or changed: 0 for an error.
    found: int
    #: "2 rows", or "42501: permission denied for table docs".
    outcome: str
    #: The violation in one sentence.
    text: str

    @property
    def key(self) -> tuple[str, str, Command, Direction]:
        return self.object, self.role, self.command, self.direction


@dataclass(frozen=True, slots=True, kw_only=True)
class NotStated:
    """There is no intent, or nothing was tried: this isn't proved."""

    object: str
    role: str
    command: Command
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Every statement that was tried did as intended."""

    object: str
    role: str
    command: Command
    source: Source
    #: The number of statements that were compared with the intent.
    statements: int
    #: How the run showed that it would notice a hole: by one that it planted, or by a privilege that it took.
    control: Literal["hole", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Whether a database does as intended; each list is sorted."""

    violations: tuple[Violation, ...]
    not_stated: tuple[NotStated, ...]
    kept: tuple[Kept, ...]
    scope: Scope
    #: The number of holes that were planted; the run noticed each.
    controls: int

    def as_dict(self) -> dict[str, Any]:
        """Return JSON objects."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Which mutants ``prove``, or a test suite, notices."""

    found: tuple[Mutant, ...]
    #: No world shows a difference.
    equivalent: tuple[Mutant, ...]
    survivors: tuple[Mutant, ...]

    @property
    def counted(self) -> int:
        """The number of mutants without the equivalent ones."""
        return len(self.found) + len(self.survivors)

    def __str__(self) -> str:
        found = f"{len(self.found)} of {self.counted} mutants found"
        lines = [f"{found}, {len(self.equivalent)} equivalent within the worlds tried."]
        lines += [f"  survives: {mutant.text}" for mutant in self.survivors]
        lines += [f"  equivalent: {mutant.text}" for mutant in self.equivalent]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON objects; the mutants that were found are a number."""
        return {
            "found": len(self.found),
            "survivors": [asdict(mutant) for mutant in self.survivors],
            "equivalent": [asdict(mutant) for mutant in self.equivalent],
        }
