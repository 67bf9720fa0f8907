"""Row security is on, and the table has no policy.

Callers hold a privilege on the table and reach no row of it. The table is closed, which may be meant. Then
the privilege is of no use, and a policy that someone adds later opens more than it says.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database, listed
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule


@rule(
    group="openings",
    level="info",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for table in database.tables:
        if not table.row_security or table.policies or table.is_partition:
            continue
        roles = database.roles_with_privileges(table.name)
        if not roles:
            continue
        yield Finding(
            object=table.name,
            kind="table",
            text=f"Row security of {table.name} is on without a policy: callers reach no row.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"{listed(roles)} hold privileges, and pg_policy has no row for the table",
                    data={"roles": roles},
                )
            ],
            remedy=Remedy(
                sql=f"REVOKE ALL ON {table.name} FROM {', '.join(map(database.quoted_role, roles))};",
                python="own_rows(…), crud_policy(…) or Policy(…) in __table_args__",
                text="Add a policy, or revoke the privileges.",
            ),
        )
