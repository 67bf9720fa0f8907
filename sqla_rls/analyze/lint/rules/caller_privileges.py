"""Callers hold a privilege that row security doesn't limit.

TRUNCATE empties a table whatever its policies say. TRIGGER runs a function of the caller's choice in the
statements of others. REFERENCES reveals by a foreign key which keys exist. MAINTAIN locks and rewrites the
table. CREATE in a schema makes objects that shadow yours, and TEMPORARY makes temporary tables that do.

UPDATE on a sequence permits `setval()`: a caller who sets it back makes each later INSERT fail with 23505.
USAGE permits `nextval()`, which skips numbers. A serial column needs it for the roles that insert rows. An
identity column doesn't. So USAGE is an info where no caller needs it, unless the sequence has no column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import LEVELS, Evidence, Finding, Kind, Level, Remedy
from sqla_rls.analyze.lint.rule import rule

_LEVELS: Final[Mapping[str, Level]] = {
    "TRUNCATE": "error",
    "TRIGGER": "warning",
    "REFERENCES": "warning",
    "MAINTAIN": "warning",
    "CREATE": "warning",
    # PUBLIC holds it in each new database.
    "TEMPORARY": "info",
}
_KINDS: Final[Mapping[str, Kind]] = {"relation": "table", "schema": "schema", "database": "database"}


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        GRANT TRUNCATE, TRIGGER ON docs TO authenticated;
        GRANT CREATE ON SCHEMA public TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    through = {one: role.name for role in reversed(database.callers) for one in database.rights_of(role.name)}
    yield from _on_objects(database, through)
    yield from _on_sequences(database, through)


def _on_objects(database: Database, through: Mapping[str, str]) -> Iterator[Finding]:
    held: dict[tuple[str, str, str], list[str]] = {}
    for grant in database.grants:
        if (
            grant.privilege in _LEVELS
            and grant.kind in _KINDS
            and grant.grantee in through
            and database.is_looked_at(grant.kind, grant.object, owner=grant.grantee)
        ):
            held.setdefault((grant.kind, grant.object, grant.grantee), []).append(grant.privilege)
    for (kind, name, grantee), privileges in held.items():
        names = ", ".join(dict.fromkeys(privileges))
        on = "" if kind == "relation" else f"{kind.upper()} "
        quoted = name if kind == "relation" else database.quoted(name)
        role = database.quoted_role(grantee)
        yield Finding(
            object=name,
            kind=_KINDS[kind],
            role=grantee,
            level=LEVELS[min(LEVELS.index(_LEVELS[one]) for one in privileges)],
            text=f"{grantee} holds {names} on {on.lower()}{name}, which row security doesn't limit.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"{on.lower()}{name} grants it to {grantee}; callers have role {through[grantee]}",
                    data={"privileges": list(dict.fromkeys(privileges)), "role": through[grantee]},
                )
            ],
            remedy=Remedy(sql=f"REVOKE {names} ON {on}{quoted} FROM {role};"),
        )


def _on_sequences(database: Database, through: Mapping[str, str]) -> Iterator[Finding]:
    sequences = {
        row["sequence"]: row
        for row in database.fetch("sequences")
        if not database.schemas or row["schema"] in database.schemas
    }
    held: dict[tuple[str, str], set[str]] = {}
    for grant in database.grants:
        if (
            grant.kind == "sequence"
            and grant.object in sequences
            and grant.grantee in through
            and grant.grantee != sequences[grant.object]["owner"]
        ):
            held.setdefault((grant.object, grant.grantee), set()).add(grant.privilege)
    for (name, grantee), privileges in held.items():
        columns = sequences[name]["columns"]
        is_needed = _is_needed(database, grantee, columns)
        role = database.quoted_role(grantee)
        level: Level
        if "UPDATE" in privileges:
            privilege, call, level = "UPDATE", "setval() sets it back", "warning"
        elif "USAGE" in privileges and columns and not is_needed:
            privilege, call, level = (
                "USAGE",
                "nextval() skips numbers, which no INSERT of its callers needs",
                "info",
            )
        else:
            continue
        numbered = ", ".join(f"{table}.{column}" for table, column, _ in columns)
        # nextval() needs one of both privileges.
        keeps = is_needed and privilege == "UPDATE" and "USAGE" not in privileges
        yield Finding(
            object=name,
            kind="sequence",
            role=grantee,
            level=level,
            text=f"{grantee} holds {privilege} on sequence {name}: {call}.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"sequence {name} grants it to {grantee}; callers have role {through[grantee]}; "
                        f"it numbers {numbered or 'no column'}"
                    ),
                    data={
                        "privileges": sorted(privileges),
                        "role": through[grantee],
                        "columns": [f"{table}.{column}" for table, column, _ in columns],
                    },
                )
            ],
            remedy=Remedy(
                sql=(f"GRANT USAGE ON SEQUENCE {name} TO {role}; " if keeps else "")
                + f"REVOKE {privilege} ON SEQUENCE {name} FROM {role};"
            ),
        )


def _is_needed(database: Database, grantee: str, columns: Sequence[tuple[str, str, bool]]) -> bool:
    """Return whether a caller with the rights of *grantee* inserts rows with a default of the sequence."""
    inserting = {
        role
        for table, _, is_identity in columns
        if not is_identity and table in database.schema.relations
        for role in database.roles_with_privileges(table, "INSERT")
    }
    return any(grantee in database.rights_of(role) for role in inserting)
