"""A fault that a schema has, with the statements that show it; and a schema without faults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

Group: TypeAlias = Literal["openings", "dead-ends", "speed", "notes"]
Work: TypeAlias = Literal["rows", "pages", "calls"]
Claims: TypeAlias = Mapping[str, Any] | None
#: The first values of the rows; the number of rows that a statement writes; "done"; or an SQLSTATE.
Outcome: TypeAlias = list[Any] | int | str

ALICE: Final[Mapping[str, Any]] = {"sub": "alice"}
BOB: Final[Claims] = {"sub": "bob"}
#: SQLSTATEs.
DENIED: Final = "42501"
NOTHING: Final[list[Any]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who runs the statements of a look."""

    role: str | None = "authenticated"
    claims: Claims = field(default_factory=lambda: {"sub": "alice"})
    #: The role that logs in; without *role*, it stays itself.
    login: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


AS_ALICE: Final = Caller()
AS_BOB: Final = Caller(claims=BOB)
UNCLAIMED: Final = Caller(claims=None)
ANONYMOUS: Final = Caller(role="anonymous", claims=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A statement of a caller, and its outcomes with the fault and without."""

    statement: str
    faulty: Outcome
    mended: Outcome
    caller: Caller = AS_ALICE
    #: The statements before it, by the same caller.
    first: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """A statement of a caller that does more work with the fault than without.

    The work is the rows or the pages that its plan reads, or the functions that it calls.
    """

    statement: str
    #: The number with the fault, divided by the one without it, is at least this.
    factor: float
    by: Work = "rows"
    caller: Caller = AS_ALICE


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A schema with one fault.

    The roles ``anonymous``, ``authenticated``, ``app_owner`` and ``app_login`` exist, and schema ``auth``.
    ``app_owner`` runs the statements; ``RESET ROLE`` makes them a superuser's.
    """

    #: A sentence: what is wrong.
    name: str
    group: Group
    #: The rule that finds it, and the objects of which one is in the finding.
    rule: str
    objects: tuple[str, ...]
    schema: str
    #: The rows that the statements see; a superuser inserts them.
    rows: str
    #: The statements that remove the fault, and nothing else.
    mend: str
    shows: tuple[Look | Slow, ...]
    #: The oldest major version of Postgres that has it.
    since: int = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Works:
    """A statement of a caller, and its outcome."""

    statement: str
    outcome: Outcome
    caller: Caller = AS_ALICE
    first: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean:
    """A schema as careful people write it.  No rule has a finding above info."""

    name: str
    schema: str
    rows: str
    works: tuple[Works, ...]
    #: Whether schema ``auth`` exists.
    has_auth: bool = True


#: A table of documents with owners, indexed, protected, and granted.
DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, owner text NOT NULL, body text);
CREATE INDEX docs_owner ON docs (owner);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
"""
DOCS_ROWS: Final = "INSERT INTO docs VALUES (1, 'alice', 'a'), (2, 'bob', 'b');"
OWN: Final = "owner = (SELECT auth.user_id())"
#: Each caller has their own documents.
OWN_DOCS: Final = f"CREATE POLICY own ON docs TO authenticated USING ({OWN}) WITH CHECK ({OWN});\n"
READ_OWN_DOCS: Final = f"CREATE POLICY own ON docs FOR SELECT TO authenticated USING ({OWN});\n"

READ_DOCS: Final = DOCS.replace("SELECT, INSERT, UPDATE, DELETE", "SELECT")

#: Members of organizations, who see their own memberships.
MEMBERS: Final = """
CREATE TABLE members (user_id text, org_id int, PRIMARY KEY (user_id, org_id));
ALTER TABLE members ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON members TO authenticated;
CREATE POLICY mine ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.user_id()));
"""
#: Documents of organizations.
ORG_DOCS: Final = """
CREATE TABLE docs (id int PRIMARY KEY, org_id int NOT NULL, body text);
CREATE INDEX docs_org_id ON docs (org_id);
ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON docs TO authenticated;
"""
ORG_ROWS: Final = """
INSERT INTO members VALUES ('alice', 10), ('bob', 20);
INSERT INTO docs VALUES (1, 10, 'a'), (2, 20, 'b');
"""
MY_ORGS: Final = (
    "org_id = ANY (ARRAY(SELECT m.org_id FROM members AS m WHERE m.user_id = (SELECT auth.user_id())))"
)
MEND_ORGS: Final = f"ALTER POLICY team ON docs USING ({MY_ORGS});"

IDS: Final = "SELECT id FROM docs ORDER BY id"


def beside_docs(
    name: str,
    *,
    rule: str,
    objects: tuple[str, ...],
    schema: str,
    mend: str,
    shows: tuple[Look, ...],
    rows: str = DOCS_ROWS,
    since: int = 15,
) -> Fault:
    """A fault beside documents of which each caller reads their own."""
    return Fault(
        name=name,
        group="openings",
        rule=rule,
        objects=objects,
        schema=READ_DOCS + READ_OWN_DOCS + schema,
        rows=rows,
        mend=mend,
        shows=shows,
        since=since,
    )
