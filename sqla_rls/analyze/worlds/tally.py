"""Groups of roles that worlds decide about alike, and what the worlds showed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sqla_rls.analyze.verdict import Direction
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.worlds.differences import Difference
from sqla_rls.analyze.worlds.objects import Profile
from sqla_rls.analyze.worlds.pools import Actor
from sqla_rls.analyze.worlds.refused import Met
from sqla_rls.analyze.worlds.scratch import Trial, Tried
from sqla_rls.analyze.worlds.universe import Universe


@dataclass(slots=True)
class Tally:
    """The differences that the worlds of one object showed for one role."""

    found: dict[tuple[Command, Direction], Difference] = field(default_factory=dict)
    worlds: int = 0
    #: A row of the relation satisfies the constraints.
    has_row: bool = False
    #: An INSERT wasn't rejected by a constraint.
    has_insert: bool = False
    rejections: dict[str, int] = field(default_factory=dict)
    #: The budget's time was over before all worlds were tried.
    is_cut: bool = False
    met: Met = field(default_factory=Met)
    #: The commands about which no world is needed.
    unchanged: frozenset[Command] = frozenset()

    def add(self, earlier: Tally) -> None:
        """Add the worlds of another universe; their differences are known."""
        self.worlds += earlier.worlds
        self.has_row |= earlier.has_row
        self.has_insert |= earlier.has_insert
        self.is_cut |= earlier.is_cut
        self.met.add(earlier.met)
        for rejected, number in earlier.rejections.items():
            self.rejections[rejected] = self.rejections.get(rejected, 0) + number

    def is_known(self, command: Command, direction: Direction) -> bool:
        """Return whether no world is needed for a difference of the command in that direction."""
        return command in self.unchanged or (command, direction) in self.found

    def is_settled(self, command: Command) -> bool:
        """Return whether no world is needed for the command."""
        return self.is_known(command, "opens") and self.is_known(command, "closes")

    def is_about(self, universe: Universe, *commands: Command) -> bool:
        """Return whether the constraints left rows for *commands*."""
        if not universe.relation.has_rows:
            return self.worlds > 0
        return self.has_row or (self.has_insert and commands == ("INSERT",))


@dataclass(slots=True)
class Group:
    """Roles for which each statement on an object does the same."""

    #: What they may do on each side.
    profiles: tuple[Profile, ...]
    #: The commands that worlds decide.
    commands: Sequence[Command]
    #: The other commands.
    unchanged: frozenset[Command]
    roles: list[str] = field(default_factory=list[str])

    @property
    def policies(self) -> Collection[str]:
        return {policy for profile in self.profiles for policy in profile.policies}


def has_insert(trial: Trial, actors: Sequence[Actor], before: Tried, after: Tried) -> bool:
    """Return whether some INSERT got as far as a row, or was denied, on both sides."""
    asked = [statement for _ in actors for statement in trial.statements]
    return any(
        statement.command == "INSERT"
        and not any((each.outcome(place).error or "").startswith(("22", "23")) for each in (before, after))
        for place, statement in enumerate(asked)
    )
