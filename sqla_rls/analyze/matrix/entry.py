"""The matrix as values: an entry for each role, object and command, and the ways around policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.why.explanation import COMMANDS, Command

Verdict: TypeAlias = Literal["never", "always", "condition", "unknown"]
#: "privilege": the catalog decides, before any policy.  "policy": no policy is for the command.  "constant":
#: Postgres folds the policies to a constant.  "worlds": small worlds decide.
Basis: TypeAlias = Literal["privilege", "policy", "constant", "worlds", "none"]

#: The object, the role and the command of an entry.
Key: TypeAlias = tuple[str, str, Command]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a role can do with the rows of an object by one command.

    Attributes:
        object: the table or view, ``schema.name`` as Postgres quotes it.
        kind: "table", "partitioned table", "partition", "view", "materialized view" or "foreign table".
        role: the role; ``PUBLIC`` stands for a role without privileges of its own.
        command: SELECT, INSERT, UPDATE or DELETE.
        verdict: "never", "always", "condition" or "unknown".
        condition: the rows in words; empty if the verdict isn't "condition".
        reason: why the verdict is never, always or unknown.
        basis: the source of the verdict.
        sql: the policies, or the query of the view.
        columns: the columns of the privilege, if it isn't on all of them.
    """

    object: str
    kind: str
    role: str
    command: Command
    verdict: Verdict
    condition: str = ""
    reason: str = ""
    basis: Basis = "none"
    sql: str = ""
    columns: tuple[str, ...] = ()

    @property
    def key(self) -> Key:
        return self.object, self.role, self.command

    @property
    def words(self) -> str:
        """The verdict in a few words: "never", "always", "own rows".

        "never in trials" is the verdict of small worlds, where no constant decides.
        """
        if self.verdict == "condition":
            return self.condition
        return f"{self.verdict} in trials" if self.basis == "worlds" else self.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class WayAround:
    """A way to rows that policies don't limit, or not with the rights of the caller.

    Attributes:
        kind: "view", "materialized view", "function", "trigger", "cascade", "rule", "truncate",
            "child table" or "role".
        object: the view, function, trigger, foreign key, rule, table or role.
        role: the role that can take the way.
        commands: the commands by which the role takes it, such as SELECT or EXECUTE.
        reaches: the protected tables that the way reaches; empty if any table may be reached.
        text: one sentence.
        sql: the definition.
    """

    kind: str
    object: str
    role: str
    commands: tuple[str, ...]
    reaches: tuple[str, ...]
    text: str
    sql: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.object, self.role


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The entries and the ways around, sorted."""

    #: The name of the side, without a password.
    name: str
    roles: tuple[str, ...]
    #: All roles but those of Postgres itself.
    all_roles: tuple[str, ...]
    entries: tuple[Entry, ...]
    ways: tuple[WayAround, ...]
    #: Sentences about the parts of the database that the matrix doesn't have.
    left_out: tuple[str, ...] = ()

    @cached_property
    def by_key(self) -> Mapping[Key, Entry]:
        return {entry.key: entry for entry in self.entries}

    @property
    def objects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.object for entry in self.entries))

    def of(self, name: str, role: str) -> tuple[Entry, ...]:
        """Return the entries of a role on an object, in the order of COMMANDS."""
        return tuple(self.by_key[name, role, command] for command in COMMANDS)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON objects."""
        return {
            "name": self.name,
            "roles": list(self.roles),
            "entries": [asdict(entry) for entry in self.entries],
            "ways_around": [asdict(way) for way in self.ways],
            "left_out": list(self.left_out),
        }
