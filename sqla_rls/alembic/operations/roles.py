"""What a migration can say about roles: ``op.create_rls_role(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl import roles as ddl_roles
from sqla_rls.snapshot import Membership, Role


class RoleOp(RowSecurityOp):
    @classmethod
    def create_rls_role(
        cls,
        operations: Operations,
        name: str,
        *,
        login: bool | None = None,
        inherit: bool | None = None,
        bypassrls: bool | None = None,
        member_of: Sequence[str] | None = None,
        keep_memberships: bool = False,
    ) -> None:
        """``CREATE ROLE``, where it is missing in the cluster; else ``ALTER ROLE``, ``GRANT`` and ``REVOKE``.

        A role that exists gets the attributes that are given.  With *member_of* it is a member of these
        roles, and of no others unless *keep_memberships* is given.

        Raises RoleNotPermitted where the migrating role may not, with the statement for a superuser.
        """
        role = Role(name, login=login, inherit=inherit, bypassrls=bypassrls, member_of=member_of)
        statements: list[ExecutableDDLElement] = [ddl_roles.CreateRole(role)]
        if {login, inherit, bypassrls} != {None}:
            statements.append(ddl_roles.AlterRole(role))
        if member_of is not None:
            statements.append(ddl_roles.SetMemberships(role, keep_others=keep_memberships))
        operations.invoke(cls(*statements, roles=member_of or ()))

    @classmethod
    def alter_rls_role(
        cls,
        operations: Operations,
        name: str,
        *,
        login: bool | None = None,
        inherit: bool | None = None,
        bypassrls: bool | None = None,
    ) -> None:
        """``ALTER ROLE``: changes what is given, in the whole cluster.

        Raises UnknownRole, and RoleNotPermitted as ``create_rls_role`` does.
        """
        role = Role(name, login=login, inherit=inherit, bypassrls=bypassrls)
        operations.invoke(cls(ddl_roles.AlterRole(role), roles=[name]))

    @classmethod
    def drop_rls_role(cls, operations: Operations, name: str) -> None:
        """``DROP ROLE``, if ``op.create_rls_role()`` made it and nothing in the cluster uses it."""
        operations.invoke(cls(ddl_roles.DropRole(name)))

    @classmethod
    def grant_role(
        cls,
        operations: Operations,
        role: str,
        member: str,
        *,
        admin: bool = False,
        inherit: bool | None = None,
        set: bool | None = None,
        if_roles_exist: bool = False,
    ) -> None:
        """``GRANT role TO member``; before PostgreSQL 16 without *inherit* and *set*.

        Raises UnknownRole, and RoleNotPermitted as ``create_rls_role`` does.
        """
        membership = Membership(role, member, admin=admin, inherit=inherit, set=set)
        statements = [ddl_roles.GrantRole(membership)]
        operations.invoke(cls.restoring(statements, [role, member], if_roles_exist))

    @classmethod
    def revoke_role(cls, operations: Operations, role: str, member: str) -> None:
        """``REVOKE role FROM member``, whoever granted it.

        Raises RoleNotPermitted where the migrating role may not, with the statement for a superuser: since
        PostgreSQL 16 that is so where a role granted it whose privileges the migrating role lacks.
        """
        operations.invoke(cls(ddl_roles.RevokeRole(Membership(role, member))))


register("create_rls_role", "alter_rls_role", "drop_rls_role", "grant_role", "revoke_role")(RoleOp)
