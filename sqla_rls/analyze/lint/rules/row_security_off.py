"""A table has policies, and its row security is off.

Postgres ignores the policies of a table until `ALTER TABLE … ENABLE ROW LEVEL SECURITY`. Each role with a
privilege on the table reaches all of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for table in database.tables:
        if not table.policies or table.row_security:
            continue
        readers = database.roles_with_privileges(table.name)
        policies = ", ".join(policy.name for policy in table.policies)
        yield Finding(
            object=table.name,
            kind="table",
            # Without a privilege, no rows are open yet.
            level="error" if readers else "warning",
            text=f"Row security of {table.name} is off, so that its policies have no effect: {policies}.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"{', '.join(readers)} may reach all rows: pg_class.relrowsecurity is false"
                        if readers
                        else "pg_class.relrowsecurity is false"
                    ),
                    data={"relrowsecurity": False, "policies": policies, "roles": readers},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY;",
                python="enable_row_level_security() in __table_args__",
            ),
        )
