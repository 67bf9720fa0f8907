"""The checks of a command: which policies see which row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqla_rls.analyze.why.explanation import Command, Part, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy of the table, and whether it applies to the caller's role."""

    name: str
    permissive: bool
    command: str
    using: str | None
    check: str | None
    applies: bool

    def is_for(self, command: Command) -> bool:
        """Return whether it decides about *command*."""
        return self.applies and self.command in (command, "ALL")

    def predicate(self, part: Part) -> str | None:
        """Return its condition on a row that exists, or on a new one."""
        return self.using if part == "using" or self.check is None else self.check


@dataclass(frozen=True, slots=True)
class Step:
    """One check of a command: a part of the policies of a command sees a row."""

    command: Command
    part: Part
    row: Row
    #: Why the command is checked by policies of another one, in a sentence.
    needs: str = ""


STEPS: Final[dict[Command, tuple[Step, ...]]] = {
    "SELECT": (Step("SELECT", "using", "old"),),
    "DELETE": (
        Step("SELECT", "using", "old", " DELETE finds its row by the SELECT policies."),
        Step("DELETE", "using", "old"),
    ),
    "UPDATE": (
        Step("SELECT", "using", "old", " UPDATE finds its row by the SELECT policies."),
        Step("UPDATE", "using", "old"),
        Step("UPDATE", "check", "new"),
        Step("SELECT", "using", "new", " UPDATE reads the new row by the SELECT policies."),
    ),
    "INSERT": (Step("INSERT", "check", "new"),),
}


RETURNING: Final = Step(
    "SELECT", "using", "new", " INSERT … RETURNING reads the new row by the SELECT policies."
)


TARGET: Final = Step(
    "SELECT", "using", "new", " ON CONFLICT with a target reads the new row by the SELECT policies."
)


#: Each of them raises an error.  UPDATE itself skips a row that USING hides.
DO_UPDATE: Final = (
    Step("UPDATE", "using", "old", " ON CONFLICT DO UPDATE needs it for the row that is there."),
    Step("SELECT", "using", "old", " ON CONFLICT DO UPDATE needs it for the row that is there."),
    Step("UPDATE", "check", "updated", " ON CONFLICT DO UPDATE needs it."),
    Step("SELECT", "using", "updated", " ON CONFLICT DO UPDATE reads it by the SELECT policies."),
)
