"""A role has restrictive policies only, and so reaches no row.

A restrictive policy takes rows away from the rows that permissive policies admit. Without a permissive
policy for the command, there is none to take away from: each row is denied.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import COMMANDS


@rule(
    group="openings",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs AS RESTRICTIVE FOR SELECT TO authenticated
          USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL, in_trash boolean NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY trash ON docs AS RESTRICTIVE FOR SELECT TO authenticated USING (NOT in_trash);
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for table in database.tables:
        if not table.row_security:
            continue
        for command in COMMANDS:
            for role in database.roles_with_privileges(table.name, command):
                names = database.profiles[table.name, role].policies
                own = [one for one in table.policies if one.name in names and one.command in ("ALL", command)]
                if not own or any(one.permissive for one in own) or not database.is_active(table.name, role):
                    continue
                yield Finding(
                    object=table.name,
                    kind="table",
                    policy=own[0].name,
                    role=role,
                    command=command,
                    text=f"Role {role} has only restrictive policies for {command} on {table.name}.",
                    evidence=[
                        Evidence(
                            kind="catalog",
                            text=f"pg_policy.polpermissive is false for {', '.join(one.name for one in own)}",
                            data={"policies": [one.name for one in own]},
                        )
                    ],
                    remedy=Remedy(
                        sql=(
                            f"CREATE POLICY … ON {table.name} FOR {command} TO {database.quoted_role(role)} "
                            f"{'WITH CHECK' if command == 'INSERT' else 'USING'} (…);"
                        ),
                        python=f'Policy("…", "{command}", {role}, …)',
                        text="Add a permissive policy, or make the restrictive one permissive.",
                    ),
                )
