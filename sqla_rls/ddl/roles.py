"""Statements for roles.

Roles belong to the whole cluster, so the migration of a second database may repeat each statement.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql.compiler import DDLCompiler

from sqla_rls.ddl.script import filled_script
from sqla_rls.snapshot import Membership, Role

_ATTRIBUTES = (("login", "rolcanlogin"), ("inherit", "rolinherit"), ("bypassrls", "rolbypassrls"))


class CreateRole(ExecutableDDLElement):
    """Creates a role if it is missing; an attribute that is None has Postgres's default."""

    def __init__(self, role: Role) -> None:
        self.role = role


class AlterRole(ExecutableDDLElement):
    """Sets the attributes of a role that differ, except its memberships."""

    def __init__(self, role: Role) -> None:
        self.role = role


class DropRole(ExecutableDDLElement):
    """Drops a role that CreateRole has created, if no object in the cluster depends on it."""

    def __init__(self, name: str) -> None:
        self.name = name


class SetMemberships(ExecutableDDLElement):
    """Sets the memberships of a role; *keep_others* keeps the memberships that it doesn't name."""

    def __init__(self, role: Role, *, keep_others: bool = False) -> None:
        self.role, self.keep_others = role, keep_others


class GrantRole(ExecutableDDLElement):
    def __init__(self, membership: Membership) -> None:
        self.membership = membership


class RevokeRole(ExecutableDDLElement):
    """Revokes a membership, of every grantor."""

    def __init__(self, membership: Membership) -> None:
        self.membership = membership


@compiles(CreateRole, "postgresql")
def _create_role(create: CreateRole, compiler: DDLCompiler, **kw: Any) -> str:
    role = create.role
    options = f" {_options(role)}".rstrip()
    if role.member_of:
        options += f" IN ROLE {', '.join(compiler.preparer.quote(str(one)) for one in role.member_of)}"
    return _script("create_role.sql", role.name, compiler, "CREATE ROLE {role}{options}", options=options)


@compiles(AlterRole, "postgresql")
def _alter_role(alter: AlterRole, compiler: DDLCompiler, **kw: Any) -> str:
    said = [(column, getattr(alter.role, field)) for field, column in _ATTRIBUTES]
    other = " OR ".join(f"{column} <> {str(value).lower()}" for column, value in said if value is not None)
    options = _options(alter.role)
    return _script(
        "alter_role.sql",
        alter.role.name,
        compiler,
        "ALTER ROLE {role} {options}",
        options=options,
        other=other,
    )


@compiles(DropRole, "postgresql")
def _drop_role(drop: DropRole, compiler: DDLCompiler, **kw: Any) -> str:
    return _script("drop_role.sql", drop.name, compiler, "DROP ROLE {role}")


@compiles(SetMemberships, "postgresql")
def _set_memberships(memberships: SetMemberships, compiler: DDLCompiler, **kw: Any) -> str:
    role = memberships.role
    literal = compiler.sql_compiler.render_literal_value
    groups = ", ".join(literal(str(one), String()) for one in role.member_of or ())
    named = ", ".join(compiler.preparer.quote(str(one)) for one in role.member_of or ())
    plain = ["REVOKE all other roles FROM {role}" if named else "REVOKE all roles FROM {role}"]
    plain = [] if memberships.keep_others else plain
    return _script(
        "role_memberships.sql",
        role.name,
        compiler,
        "; ".join(["GRANT {named} TO {role}"] * bool(named) + plain),
        named=named,
        groups=f"ARRAY[{groups}]::text[]",
        inherit="NULL" if role.inherit is None else str(role.inherit).lower(),
        keep_others=str(memberships.keep_others).lower(),
    )


@compiles(GrantRole, "postgresql")
def _grant_role(grant: GrantRole, compiler: DDLCompiler, **kw: Any) -> str:
    one = grant.membership
    said = (("ADMIN", one.admin), ("INHERIT", one.inherit), ("SET", one.set))
    options = ", ".join(f"{name} {str(value).upper()}" for name, value in said if value is not None)
    member = compiler.preparer.quote(one.member)
    admin = " WITH ADMIN OPTION" if one.admin else ""
    literals = {
        "member_name": one.member,
        "older_statement": f"GRANT {compiler.preparer.quote(one.role)} TO {member}{admin}",
        "wanted": json.dumps({f"{name.lower()}_option": value for name, value in said if value is not None}),
    }
    return _script(
        "grant_role.sql",
        one.role,
        compiler,
        "GRANT {role} TO {member} WITH {options}",
        member=member,
        options=options,
        admin=admin,
        **{
            name: compiler.sql_compiler.render_literal_value(value, String())
            for name, value in literals.items()
        },
    )


@compiles(RevokeRole, "postgresql")
def _revoke_role(revoke: RevokeRole, compiler: DDLCompiler, **kw: Any) -> str:
    member = revoke.membership.member
    literal = compiler.sql_compiler.render_literal_value(member, String())
    quoted = compiler.preparer.quote(member)
    statement = "REVOKE {role} FROM {member}"
    return _script(
        "revoke_role.sql", revoke.membership.role, compiler, statement, member=quoted, member_name=literal
    )


def _options(role: Role) -> str:
    return " ".join(
        f"{'' if value else 'NO'}{field.upper()}"
        for field, _ in _ATTRIBUTES
        if (value := getattr(role, field)) is not None
    )


def _script(script: str, role: str, compiler: DDLCompiler, statement: str, **words: str) -> str:
    words["role"] = compiler.preparer.quote(role)
    plain = statement.format(**words)
    literals = {"name": role, "statement": plain}
    for name, value in literals.items():
        words[name] = compiler.sql_compiler.render_literal_value(value, String())
    return filled_script(script, compiler, plain, **words)
