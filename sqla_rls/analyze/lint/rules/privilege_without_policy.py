"""A role holds a privilege on a table whose policies admit no row of that command.

The statement succeeds and finds no row, or ends with "new row violates row-level security policy". Either
the policy is missing, or the privilege isn't needed. A table without any permissive policy is a finding of
another rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqla_rls.analyze.lint.accesses import accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import COMMANDS


@rule(
    group="dead-ends",
    level="info",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, DELETE ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    for access in accesses(database):
        name, role = access.table.name, access.role
        if not any(policy.permissive for policy in access.table.policies):
            continue
        lacking = [one for one in COMMANDS if access.has_privilege(one) and not access.policies(one)]
        # USING (false) states that a command is for no one.
        stated = {one.command for one in access.table.policies if "false" in (one.using, one.check)}
        lacking = [one for one in lacking if one not in stated and "ALL" not in stated]
        if not lacking:
            continue
        yield _finding(database, name, role, lacking)
    yield from _of_no_policy(database)


def _of_no_policy(database: Database) -> Iterator[Finding]:
    """Yield the roles that hold a privilege on a table whose policies are for other roles."""
    callers = {role.name for role in database.callers}
    tables = {
        table.name: table
        for table in database.tables
        if table.row_security and any(policy.permissive for policy in table.policies)
    }
    held: dict[tuple[str, str], set[str]] = {}
    for grant in database.grants:
        table, role = tables.get(grant.object), database.schema.roles.get(grant.grantee)
        if grant.kind != "relation" or table is None or role is None or grant.privilege not in COMMANDS:
            continue
        rights = database.rights_of(role.name)
        is_subject = not role.is_superuser and not role.bypasses_row_security and table.owner not in rights
        if is_subject and role.name not in callers:
            policies = {one for policy in table.policies if policy.permissive for one in policy.roles}
            if not policies & rights:
                held.setdefault((table.name, role.name), set()).add(grant.privilege)
    for (name, role_name), commands in held.items():
        yield _finding(database, name, role_name, [one for one in COMMANDS if one in commands])


def _finding(database: Database, name: str, role: str, lacking: Sequence[str]) -> Finding:
    commands = ", ".join(lacking)
    return Finding(
        object=name,
        kind="table",
        role=role,
        command=commands,
        text=f"Role {role} may {commands} on {name}, and no permissive policy of it admits a row.",
        evidence=[
            Evidence(
                kind="catalog",
                text=f"pg_policy has no permissive policy for {commands} and {role} on {name}",
                data={"role": role, "privileges": lacking},
            )
        ],
        remedy=Remedy(
            sql=f"REVOKE {commands} ON {name} FROM {database.quoted_role(role)};",
            text="Or create the policy, if callers are meant to do it.",
        ),
    )
