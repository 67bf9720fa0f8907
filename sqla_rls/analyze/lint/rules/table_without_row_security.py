"""A table without row security can be reached by callers.

Each role with a privilege on the table reaches all of its rows. Enable row security, and state which rows
are whose. For a list that all callers may read, enable it with a policy `USING (true)`, so that the intent
is in the schema.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE TABLE countries (code text PRIMARY KEY);
        ALTER TABLE countries ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON countries FOR SELECT TO authenticated USING (true);
        GRANT SELECT ON countries TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    below = {child for one in database.schema.relations.values() if one.policies for child in one.children}
    for table in database.tables:
        if table.row_security or table.policies or table.name in below:
            continue
        roles = database.roles_with_privileges(table.name)
        if not roles:
            continue
        writers = database.roles_with_privileges(table.name, "INSERT", "UPDATE", "DELETE")
        readers = database.roles_with_privileges(table.name, "SELECT")
        is_open = bool(writers) or any(map(database.is_anonymous, readers))
        verb = "change" if writers else "read"
        yield Finding(
            object=table.name,
            kind="table",
            # Alembic's table has one row, the number of a revision.
            level="info"
            if table.relname == "alembic_version" and not writers
            else "error"
            if is_open
            else "warning",
            text=f"Table {table.name} has no row security, and callers may {verb} all of its rows.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"pg_class.relrowsecurity is false, and {listed(roles)} may {verb} the table",
                    data={"relrowsecurity": False, "readers": readers, "writers": writers},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY;",
                python="a policy in __table_args__: own_rows(…), crud_policy(…) or Policy(…)",
                text="Add the policies, too: without one, callers reach no row.",
            ),
        )
