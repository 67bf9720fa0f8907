"""A policy is for a role that lacks a privilege that it needs.

Postgres checks privileges before policies. A caller whose role lacks SELECT on the table gets "permission
denied" (42501), whatever the policy admits. Policies run with the privileges of the caller: their role also
needs SELECT on each table that a subquery reads, EXECUTE on each function that is called, and USAGE on the
table's schema.

A policy for all commands is no finding for the commands that no role holds a privilege for.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqla_rls.analyze.lint.accesses import Access, accesses
from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.why.explanation import COMMANDS, Command
from sqla_rls.analyze.worlds.objects import PUBLIC


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT ON docs TO authenticated;
    """,
    clean="""
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY add ON docs FOR INSERT TO authenticated WITH CHECK (owner_id = (SELECT auth.user_id()));
        GRANT SELECT, INSERT ON docs TO authenticated;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    found = list(accesses(database))
    held = {
        (access.table.name, command)
        for access in found
        for command in COMMANDS
        if access.has_privilege(command)
    }
    schemas = set()
    for access in found:
        named = [policy for policy in access.table.policies if access.role in policy.roles]
        if not named:
            continue
        if not access.profile.usage:
            if (access.table.schema, access.role) not in schemas:
                schemas.add((access.table.schema, access.role))
                yield _of_schema(database, access)
            continue
        for command in COMMANDS:
            if access.has_privilege(command):
                continue
            for policy in access.policies(command):
                if policy not in named:
                    continue
                is_one_of_all = policy.command == "ALL" and any(map(access.has_privilege, COMMANDS))
                # Another role of the same policy may run the command.
                is_meant = (access.table.name, command) in held and len(policy.roles) > 1
                if not is_one_of_all or is_meant:
                    yield _of_table(database, access, command, policy.name)
    yield from _inside(database)


def _of_table(database: Database, access: Access, command: Command, policy: str) -> Finding:
    name, role = access.table.name, access.role
    quote = database.connection.dialect.identifier_preparer.quote
    return Finding(
        object=name,
        kind="table",
        policy=policy,
        role=role,
        command=command,
        text=f"Policy {policy} permits {command} to role {role}, which lacks the privilege on {name}.",
        evidence=[
            Evidence(
                kind="catalog",
                text=f"{role} holds no {command} privilege on {name}: each {command} ends with 42501",
                data={"role": role, "privilege": command},
            )
        ],
        remedy=Remedy(
            sql=f"GRANT {command} ON {name} TO {quote(role)};",
            python=f'grant("{command}", to="{role}") in __table_args__',
        ),
    )


def _of_schema(database: Database, access: Access) -> Finding:
    quote = database.connection.dialect.identifier_preparer.quote
    schema, role = access.table.schema, access.role
    return Finding(
        object=quote(schema),
        kind="schema",
        role=role,
        text=f"Policies of {access.table.name} are for role {role}, which may not use schema {schema}.",
        evidence=[
            Evidence(
                kind="catalog",
                text=f"{role} holds no USAGE privilege on schema {schema}: each statement ends with 42501",
                data={"role": role, "privilege": "USAGE"},
            )
        ],
        remedy=Remedy(sql=f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(role)};"),
    )


def _inside(database: Database) -> Iterator[Finding]:
    """Yield the tables and functions inside of policies that a role may not use."""
    quote = database.connection.dialect.identifier_preparer.quote
    tables = {table.name: table for table in database.tables}
    callers = {role.name for role in database.callers}
    for row in database.fetch("policy_needs"):
        name, role = row["relation"], row["role"]
        if name not in tables or role not in callers or not database.is_active(name, role):
            continue
        policy = next(one for one in tables[name].policies if one.name == row["policy"])
        if "false" in (policy.using, policy.check):
            continue
        privilege = "SELECT" if row["kind"] == "relation" else "EXECUTE"
        on = "FUNCTION " if privilege == "EXECUTE" else ""
        columns = ", ".join(map(quote, row["columns"] or ()))
        yield Finding(
            object=name,
            kind="table",
            policy=row["policy"],
            role=role,
            command=f"{privilege} on {row['object']}",
            # For PUBLIC, the policy isn't meant for each role that holds a privilege.
            level="info" if PUBLIC in policy.roles else None,
            text=(
                f"Policy {row['policy']} of {name} {'reads' if privilege == 'SELECT' else 'calls'} "
                f"{row['object']}, for which role {role} lacks {privilege}."
            ),
            evidence=[
                Evidence(
                    kind="catalog",
                    text=(
                        f"{role} holds no {privilege} privilege on {row['object']}"
                        f"{f' ({columns})' if columns else ''}: statements on {name} end with 42501"
                    ),
                    data={"role": role, "privilege": privilege, "object": row["object"]},
                )
            ],
            remedy=Remedy(
                sql=(
                    f"GRANT {privilege}{f' ({columns})' if columns else ''} ON {on}{row['object']} "
                    f"TO {quote(role)};"
                ),
                text="Or call a function that runs as its owner, such as memberships() declares.",
            ),
        )
