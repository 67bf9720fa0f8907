"""Callers read a materialized view of protected tables.

A materialized view is a copy of rows, made with the rights of its owner. It can't have policies: each role
with SELECT reads the whole copy.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.callers import tables_read
from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE MATERIALIZED VIEW all_docs AS SELECT * FROM docs;
        GRANT SELECT ON docs, all_docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE MATERIALIZED VIEW all_docs AS SELECT * FROM docs;
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for view in database.relations:
        if view.kind != "m":
            continue
        roles = database.roles_with_privileges(view.name, "SELECT")
        read = [one.name for one in tables_read(database.schema, view.name) if one.row_security]
        if not roles or not read:
            continue
        yield Finding(
            object=view.name,
            kind="view",
            text=f"Callers read all rows of the materialized view {view.name}, a copy of {listed(read)}.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"{listed(roles)} may SELECT; the policies of {listed(read)} don't hold for a copy",
                    data={"roles": roles, "tables": read},
                )
            ],
            remedy=Remedy(
                sql=f"REVOKE ALL ON {view.name} FROM {', '.join(map(database.quoted_role, roles))};",
                text="Read it through a function or a view that filters by the caller, if callers need it.",
            ),
        )
