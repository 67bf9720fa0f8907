"""Callers may change or delete rows, and can't read any.

`UPDATE … WHERE id = 1` reads the column `id`: it needs the privilege SELECT, and Postgres also applies the
policies for SELECT. Without the privilege the statement ends with 42501. Without a policy it finds no row.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.accesses import accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import Command

_COMMANDS: tuple[Command, ...] = ("UPDATE", "DELETE")


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY away ON docs FOR DELETE TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY read ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY away ON docs FOR DELETE TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for access in accesses(database):
        name, role = access.table.name, access.role
        grantee = database.quoted_role(role)
        if access.works("SELECT"):
            continue
        for command in _COMMANDS:
            if not access.works(command):
                continue
            lacks_privilege = not access.has_privilege("SELECT")
            yield Finding(
                object=name,
                kind="table",
                role=role,
                command=command,
                text=(
                    f"Role {role} may {command} rows of {name}, and reads none"
                    f"{': it lacks SELECT' if lacks_privilege else ''}."
                ),
                evidence=[
                    Evidence(
                        kind="catalog",
                        text=(
                            f"{role} holds no SELECT privilege on {name}: WHERE ends with 42501"
                            if lacks_privilege
                            else f"no policy of {name} is for SELECT and {role}: WHERE finds no row"
                        ),
                        data={"role": role},
                    )
                ],
                remedy=Remedy(
                    sql=(
                        f"GRANT SELECT ON {name} TO {grantee};"
                        if lacks_privilege
                        else f"CREATE POLICY … ON {name} FOR SELECT TO {grantee} USING (…);"
                    ),
                    python='crud_policy(…, read=auth_uid("…"))',
                ),
            )
