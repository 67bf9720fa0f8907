"""Callers hold a privilege that row security doesn't limit.

TRUNCATE empties a table whatever its policies say. TRIGGER runs a function of the caller's choice in the
statements of others. REFERENCES reveals by a foreign key which keys exist. MAINTAIN locks and rewrites the
table. CREATE in a schema makes objects that shadow yours, and TEMPORARY makes temporary tables that do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
