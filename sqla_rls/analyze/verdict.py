"""The results of a comparison of two databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.why.explanation import Command

Direction: TypeAlias = Literal["opens", "closes"]
Verdict: TypeAlias = Literal["opens", "closes", "both"]

#: The rows of each table by its name, ``schema.table`` as Postgres quotes it.  An owner can insert them in
#: this order.
WorldRows: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """A few rows, a caller, and a statement whose results differ.

    To replay it: insert the rows as owner, set the role, the claims and the settings, and run the statement
    on both sides.
    """

    #: The claims of the caller; None is a transaction without claims.
    claims: Mapping[str, Any] | None
    rows: WorldRows
    statement: str
    #: What the statement did on each side: "2 rows", "0 rows", or "42501: permission denied for table docs".
    before: str
    after: str
    #: The counterexample in one sentence.
    text: str
    #: Settings of the transaction besides the claims.
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The callers of a role can do more with an object than before, or less."""

    #: The table or view.
    object: str
    role: str
    command: Command
    verdict: Verdict
    #: Of the verdict "both", it shows what opens.
    counterexample: Counterexample
    #: Of the verdict "both", it shows what closes.
    closing: Counterexample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """No verdict was found."""

    object: str
    role: str
    command: Command
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """No world shows a difference."""

    object: str
    role: str
    command: Command
    #: The number of worlds that were tried.  0: what the command depends on has the same definition.
    worlds: int
    #: The worlds are all that the policies can tell apart.
    proved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The extent of a comparison."""

    #: "scratch": real commands on real rows.  "in place": the policies' expressions on rows of no table.
    evaluation: Literal["scratch", "in place"]
    #: The tables and views whose definition, or what it depends on, differs.
    objects: int = 0
    worlds: int = 0
    statements: int = 0
    #: The most rows that a world has in one table.
    rows_per_table: int = 0
    #: What the budget left out, and what the comparison doesn't cover; a sentence each.
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The changes of access, the unknown and the equal results; each list is sorted."""

    changes: tuple[Change, ...]
    unknown: tuple[Unknown, ...]
    same: tuple[Same, ...]
    scope: Scope

    @property
    def opens(self) -> tuple[Change, ...]:
        """The changes that permit something."""
        return tuple(change for change in self.changes if change.verdict != "closes")

    def as_dict(self) -> dict[str, Any]:
        """Return JSON objects, without the equal results."""
        found = asdict(self)
        del found["same"]
        return found


@dataclass(slots=True)
class Verdicts:
    """The verdicts of a comparison while it runs."""

    changes: list[Change] = field(default_factory=list[Change])
    unknown: list[Unknown] = field(default_factory=list[Unknown])
    same: list[Same] = field(default_factory=list[Same])
    left_out: list[str] = field(default_factory=list[str])

    def add_change(
        self, name: str, role: str, command: Command, examples: Mapping[Direction, Counterexample]
    ) -> None:
        """Add a change with the counterexamples of its directions: that of one that opens comes first."""
        verdict: Verdict = "both" if len(examples) == 2 else next(iter(examples))
        self.changes.append(
            Change(
                object=name,
                role=role,
                command=command,
                verdict=verdict,
                counterexample=next(iter(examples.values())),
                closing=examples["closes"] if verdict == "both" else None,
            )
        )

    def add_unknown(self, name: str, roles: Sequence[str], command: Command, reason: str) -> None:
        """Add that no verdict was found for *roles*."""
        self.unknown += [Unknown(object=name, role=role, command=command, reason=reason) for role in roles]

    def add_same(
        self, name: str, roles: Sequence[str], command: Command, worlds: int, *, proved: bool = False
    ) -> None:
        """Add that no world shows a difference to *roles*."""
        self.same += [
            Same(object=name, role=role, command=command, worlds=worlds, proved=proved) for role in roles
        ]

    def comparison(self, scope: Scope) -> Comparison:
        """Return the verdicts, sorted; *scope* gets the sentences about what is left out."""

        def order(one: Change | Unknown | Same) -> tuple[str, str, str]:
            return one.object, one.role, one.command

        return Comparison(
            changes=tuple(sorted(self.changes, key=order)),
            unknown=tuple(sorted(self.unknown, key=order)),
            same=tuple(sorted(self.same, key=order)),
            scope=replace(scope, left_out=tuple(dict.fromkeys(self.left_out))),
        )


#: It is called with the number of steps done, their number, and the next step.
Progress: TypeAlias = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much a comparison tries."""

    #: The most worlds for each table or view, and for each group of roles with the same privileges.
    worlds: int = 200
    #: The most rows that a world has in one table.
    rows: int = 3
    #: The most seconds for the whole comparison; None is no limit.  With a limit, the same input may give
    #: different output.
    seconds: float | None = None

    @property
    def time_over(self) -> str:
        """The reason of what *seconds* cut."""
        return f"the time limit of {self.seconds or 0:g} s ended"
