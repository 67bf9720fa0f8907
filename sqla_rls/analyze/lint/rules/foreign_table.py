"""Callers reach a foreign table, which can't have policies.

Postgres has no row security for foreign tables. The rights on the other server are those of the user
mapping, not those of the caller.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE FOREIGN DATA WRAPPER nothing;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
        CREATE FOREIGN TABLE docs (id int) SERVER elsewhere;
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE FOREIGN DATA WRAPPER nothing;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
        CREATE FOREIGN TABLE docs (id int) SERVER elsewhere;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for table in database.relations:
        roles = database.roles_with_privileges(table.name) if table.kind == "f" else []
        if not roles:
            continue
        yield Finding(
            object=table.name,
            kind="foreign table",
            text=f"Callers reach the foreign table {table.name}, which can't have policies.",
            evidence=[
                Evidence(kind="catalog", text=f"{listed(roles)} hold privileges on it", data={"roles": roles})
            ],
            remedy=Remedy(
                sql=f"REVOKE ALL ON {table.name} FROM {', '.join(map(database.quoted_role, roles))};",
                text="Read it through a function that filters by the caller, if callers need it.",
            ),
        )
