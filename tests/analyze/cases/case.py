"""A change of access, and the verdicts that real commands on real rows give of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Command: TypeAlias = Literal["SELECT", "INSERT", "UPDATE", "DELETE"]
Verdict: TypeAlias = Literal["opens", "closes", "both", "unknown"]
#: An object, ``schema.table`` as Postgres quotes it; a role; a command.
Key: TypeAlias = tuple[str, str, str]
Claims: TypeAlias = Mapping[str, Any] | None
Rows: TypeAlias = Sequence[Mapping[str, Any]]

SAME_AS_EXPECTED: Final = "same as expected"
COMMANDS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
ALICE: Final[Claims] = {"sub": "alice"}
BOB: Final[Claims] = {"sub": "bob"}


class Sql(str):
    """A value of a row that is an SQL expression, such as a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The claims and the settings of a transaction."""

    claims: Claims = None
    settings: Mapping[str, str] = field(default_factory=dict)


#: Without claims, without a subject, and two people.
CALLERS: Final = (Caller(), Caller(claims={}), Caller(claims=ALICE), Caller(claims=BOB))


def with_claims(*claims: Claims) -> tuple[Caller, ...]:
    return tuple(Caller(claims=one) for one in claims)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """SQL statements that a migration might have, and their effect on each object, role and command.

    ``python -m tests.analyze.cases`` shows the verdicts that the evidence gives.
    """

    #: A sentence: what the change is.
    name: str
    #: The statements before the change, run by a superuser.  The roles exist, and schema ``auth``.
    before: str
    #: The change itself, run after them.
    after: str
    #: The rows of which worlds are made, by table, in an order in which they can be inserted.
    rows: Mapping[str, Rows]
    #: The verdicts; all other objects, roles and commands are the same.  "unknown": no command can tell.
    expected: Mapping[Key, Verdict] = field(default_factory=dict)
    #: The roles besides ``anonymous`` and ``authenticated``.
    others: tuple[str, ...] = ()
    callers: tuple[Caller, ...] = CALLERS
    #: The values that UPDATE sets, by object; without them, each value of *rows* in each column.
    updates: Mapping[str, Rows] = field(default_factory=dict)
    #: Rows that callers insert, but that no world has.
    inserts: Mapping[str, Rows] = field(default_factory=dict)
    #: The verdicts in place: as expected, or the reason for which some are unknown there.
    in_place: str = SAME_AS_EXPECTED
    #: ``make test`` tries it.
    is_quick: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        return ("anonymous", "authenticated", *self.others)

    @property
    def id(self) -> str:
        return "".join(letter if letter.isalnum() else "_" for letter in self.name)


def verdicts(verdict: Verdict, name: str, commands: str, *roles: str) -> dict[Key, Verdict]:
    """The *verdict* of the table or view *name* for each of the *commands* and *roles*."""
    name = name if "." in name else f"public.{name}"
    every = COMMANDS if commands == "ALL" else tuple(commands.split())
    return {(name, role, command): verdict for command in every for role in roles or ("authenticated",)}


def opens(name: str, commands: str, *roles: str) -> dict[Key, Verdict]:
    return verdicts("opens", name, commands, *roles)


def closes(name: str, commands: str, *roles: str) -> dict[Key, Verdict]:
    return verdicts("closes", name, commands, *roles)


def both(name: str, commands: str, *roles: str) -> dict[Key, Verdict]:
    return verdicts("both", name, commands, *roles)


def rows(columns: str, *values: tuple[Any, ...]) -> list[dict[str, Any]]:
    """Rows of the *columns*, names with spaces between them."""
    return [dict(zip(columns.split(), row, strict=True)) for row in values]


#: A table of documents with owners.
DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, owner text, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO anonymous, authenticated;
"""
DOCS_ROWS: Final = {"docs": rows("id owner body", (1, "alice", "x"), (2, "bob", "x"), (3, None, "x"))}

#: A table of documents of organizations, and their members.
TEAMS: Final = """
CREATE TABLE members (org_id int, user_id text, PRIMARY KEY (org_id, user_id));
CREATE TABLE docs (id int PRIMARY KEY, org_id int, body text);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO anonymous, authenticated;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO anonymous, authenticated;
"""
TEAMS_ROWS: Final = {
    "members": rows("org_id user_id", (1, "alice"), (2, "bob")),
    "docs": rows("id org_id body", (1, 1, "x"), (2, 2, "x"), (3, None, "x")),
}
MINE: Final = "org_id IN (SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id()))"
