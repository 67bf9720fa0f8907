"""A finding: a rule, an object, one sentence, the evidence and the remedy, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

Level: TypeAlias = Literal["error", "warning", "info"]
#: The most severe first.
LEVELS: Final[tuple[Level, ...]] = get_args(Level)

Kind: TypeAlias = Literal[
    "table",
    "view",
    "function",
    "role",
    "schema",
    "sequence",
    "database",
    "foreign table",
    "rule",
    "program",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The fact behind a finding.

    Attributes:
        kind: "counterexample": a caller and rows of a small world; "plan": a line of EXPLAIN with rows and
            time; "catalog": a fact that the catalog states.
        text: the fact in one sentence.
        data: the fact as JSON values: the claims and the rows of a counterexample, for example.
    """

    kind: Literal["counterexample", "plan", "catalog"]
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A change that removes a finding.

    Attributes:
        sql: statements for Postgres, or for a migration.
        python: the change of the model; None if models don't have the object.
        text: what to decide first; None if the statements are enough.
    """

    sql: str | None = None
    python: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLine:
    """The place of an object in the models."""

    path: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A finding of one rule about one object.

    Attributes:
        object: ``schema.name`` of a table, view, sequence or foreign table, as Postgres quotes it.  Of a
            function it is the signature; of a role, schema, database, rule or program, the name.
        kind: the kind of the object.
        text: one sentence.
        evidence: the facts, the strongest first.
        remedy: the change that removes the finding.
        rule: the name of the rule; ``lint()`` fills it in.
        level: the level; None is that of the rule.
        policy: the policy that the finding is about.
        column: the column that the finding is about.
        role: the role of the callers.
        command: the command: SELECT, INSERT, UPDATE or DELETE, or another privilege.
        source: the line of the model; ``lint()`` fills it in.
    """

    object: str
    kind: Kind
    text: str
    evidence: Sequence[Evidence]
    remedy: Remedy
    rule: str = ""
    level: Level | None = None
    policy: str | None = None
    column: str | None = None
    role: str | None = None
    command: str | None = None
    source: SourceLine | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The parts that tell findings of one database apart; without the evidence."""
        parts = (self.policy, self.column, self.role, self.command)
        return (self.rule, self.object, *(part or "" for part in parts))

    @property
    def rank(self) -> int:
        """0 is the most severe."""
        return LEVELS.index(self.level or "info")

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values; ``rule``, ``level`` and ``object`` come first."""
        found = asdict(self)
        first = {name: found.pop(name) for name in ("rule", "level", "object", "kind")}
        return {**first, **found}
