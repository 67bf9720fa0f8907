"""The owner of a table logs in, and row security doesn't hold for it.

Postgres applies the policies of a table to its owner only after ALTER TABLE … FORCE ROW LEVEL SECURITY. A
policy names the owner, or no other login role can act for callers, so that the app connects as the owner.
Then each statement of the app reaches all rows. Better than FORCE is a login role of the app that owns
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import PUBLIC


@rule(
    group="openings",
    level="error",
    failing="""
        CREATE ROLE app LOGIN;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs OWNER TO app;
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs TO app USING (owner_id = (SELECT auth.user_id()));
    """,
    clean="""
        CREATE ROLE owner LOGIN;
        CREATE ROLE app LOGIN NOINHERIT IN ROLE authenticated;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs OWNER TO owner;
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT, UPDATE, DELETE ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    roles = database.schema.roles
    for table in database.tables:
        owner = roles.get(table.owner)
        if not table.row_security or table.forced or not table.policies or owner is None:
            continue
        if not owner.may_login or owner.is_superuser or owner.bypasses_row_security:
            continue
        if table.owner in database.made_up_roles:
            continue
        named = any(table.owner in policy.roles for policy in table.policies)
        public = any(PUBLIC in policy.roles for policy in table.policies)
        if not named and not (public and not _others(database, table.owner)):
            continue
        reason = (
            f"a policy names it: {next(one.name for one in table.policies if table.owner in one.roles)}"
            if named
            else "no other role can log in and act for callers"
        )
        yield Finding(
            object=table.name,
            kind="table",
            role=table.owner,
            text=f"Role {table.owner} owns {table.name} and logs in: row security doesn't hold for it.",
            evidence=[
                Evidence(
                    kind="catalog",
                    text=f"pg_class.relforcerowsecurity is false, the owner has LOGIN, and {reason}",
                    data={"owner": table.owner, "relforcerowsecurity": False},
                )
            ],
            remedy=Remedy(
                sql=f"ALTER TABLE {table.name} FORCE ROW LEVEL SECURITY;",
                python="force_row_level_security() in __table_args__",
                text="Better: connect as a role that owns nothing.",
            ),
        )


def _others(database: Database, owner: str) -> bool:
    """Return whether another role logs in, and is, or becomes, a caller's role."""
    callers = {role.name for role in database.callers} - {owner}
    return any(
        row["role"] in callers and row["login"] != owner and not row["is_superuser"]
        for row in database.fetch("login_roles")
        if not database.schema.roles[row["login"]].is_superuser
    )
