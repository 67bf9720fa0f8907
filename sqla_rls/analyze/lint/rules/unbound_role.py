"""A policy is for a role that no caller is bound to.

A caller has the role of a policy by SET ROLE from the login role, by membership, or by logging in as that
role. A membership WITH SET FALSE counts only if it is inherited. A policy for another role never holds. A
policy for the login role itself holds before SET ROLE only, when no caller is known.

The rule is silent if no login role can become any role of a policy: then the roles that log in are made
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.finding import Evidence, Finding, Remedy
from sqla_rls.analyze.lint.rule import rule
from sqla_rls.analyze.worlds.objects import PUBLIC, RoleAttributes


@rule(
    group="dead-ends",
    level="warning",
    failing="""
        CREATE ROLE app_login LOGIN NOINHERIT;
        GRANT anonymous, authenticated TO app_login;
        CREATE ROLE editors;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY edit ON docs FOR SELECT TO editors USING (owner_id IS NULL);
        GRANT SELECT ON docs TO authenticated, editors;
    """,
    clean="""
        CREATE ROLE app_login LOGIN NOINHERIT;
        CREATE ROLE editors;
        GRANT anonymous, authenticated, editors TO app_login;
        CREATE TABLE docs (id int PRIMARY KEY, owner_id text NOT NULL);
        ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON docs FOR SELECT TO authenticated USING (owner_id = (SELECT auth.user_id()));
        CREATE POLICY edit ON docs FOR SELECT TO editors USING (owner_id IS NULL);
        GRANT SELECT ON docs TO authenticated, editors;
    """,
)
def check(database: Database) -> Iterator[Finding]:
    quote = database.connection.dialect.identifier_preparer.quote
    roles = database.schema.roles
    named = {role for table in database.tables for policy in table.policies for role in policy.roles} - {
        PUBLIC
    }
    logins = {name: role for name, role in roles.items() if role.may_login and not role.is_superuser}
    reachable = {name: database.reachable(name) for name in logins}
    callers = {role.name for role in database.callers} - {PUBLIC}
    # These run the statements of callers as other roles.
    switching = {name for name in logins if (reachable[name] - database.rights_of(name)) & callers}
    acting = {role for name in logins for role in reachable[name]}
    bound = {role for one in acting for role in database.rights_of(one)} & (named | callers)
    if not (bound - switching):
        return
    for table in database.tables:
        for policy in table.policies:
            for role in policy.roles:
                if role == PUBLIC or role not in roles or roles[role].is_superuser:
                    continue
                if role in switching:
                    others = ", ".join(sorted((reachable[role] & callers) - {role}))
                    text = (
                        f"Policy {policy.name} is for {role}, which logs in and runs the statements of "
                        f"callers as {others}."
                    )
                    fact = f"{role} is a member of {others}, without inheriting"
                elif role not in bound:
                    text = f"Policy {policy.name} is for {role}, and no login role can become {role}."
                    fact = f"no role with LOGIN is a member of {role} with SET or INHERIT"
                else:
                    continue
                yield Finding(
                    object=table.name,
                    kind="table",
                    policy=policy.name,
                    role=role,
                    text=text,
                    evidence=[Evidence(kind="catalog", text=fact, data={"login_roles": sorted(logins)})],
                    remedy=Remedy(
                        sql=(
                            f"ALTER POLICY {quote(policy.name)} ON {table.name} TO …;"
                            if role in switching
                            else _grant(quote, role, [roles[one] for one in sorted(switching)])
                        ),
                        text="Or drop the policy, if the role isn't used any more.",
                    ),
                )


def _grant(quote: Callable[[str], str], role: str, logins: Sequence[RoleAttributes]) -> str:
    """Return the statement by which *logins* may become *role*."""
    # Without options, GRANT leaves a membership as it is.
    option = " WITH SET TRUE" if any(role in one.member_of for one in logins) else ""
    return f"GRANT {quote(role)} TO {', '.join(quote(one.name) for one in logins) or '…'}{option};"
