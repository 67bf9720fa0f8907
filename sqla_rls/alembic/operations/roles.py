"""Operations on roles: ``op.create_rls_role(…)`` and its siblings."""

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
        """Create a role, or give an existing role these attributes and memberships.

        Args:
            login: None leaves an attribute as it is, as for *inherit* and *bypassrls*.
            member_of: the roles of which it is a member, and of no others.
            keep_memberships: it stays a member of other roles, too.

        Raises: RoleNotPermitted if the migrating role may not, with the statement for a superuser.
        UnknownRole if a role of *member_of* is missing.

        Emits: ``CREATE ROLE``, ``ALTER ROLE``, ``GRANT`` and ``REVOKE`` of memberships.

        Reverse: ``op.drop_rls_role()``.
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
        """Alter the given attributes of a role, in the whole cluster.

        Raises: UnknownRole; RoleNotPermitted as for ``op.create_rls_role()``.

        Emits: ``ALTER ROLE``.

        Reverse: ``op.alter_rls_role()`` with the earlier attributes.
        """
        role = Role(name, login=login, inherit=inherit, bypassrls=bypassrls)
        operations.invoke(cls(ddl_roles.AlterRole(role), roles=[name]))

    @classmethod
    def drop_rls_role(cls, operations: Operations, name: str) -> None:
        """Drop a role if ``op.create_rls_role()`` made it, and nothing in the cluster uses it.

        Emits: ``DROP ROLE``.

        Reverse: ``op.create_rls_role()``.
        """
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
        """Make *member* a member of *role*; PostgreSQL 15 ignores *inherit* and *set*.

        Raises: UnknownRole; RoleNotPermitted as for ``op.create_rls_role()``.

        Emits: ``GRANT role TO member [WITH …]``.

        Reverse: ``op.revoke_role()``.
        """
        membership = Membership(role, member, admin=admin, inherit=inherit, set=set)
        statements = [ddl_roles.GrantRole(membership)]
        operations.invoke(cls.restoring(statements, [role, member], if_roles_exist))

    @classmethod
    def revoke_role(cls, operations: Operations, role: str, member: str) -> None:
        """End a membership, of every grantor.

        Raises: RoleNotPermitted if the migrating role may not, with the statement for a superuser.  Since
        PostgreSQL 16 that is the case if it lacks the privileges of the grantor.

        Emits: ``REVOKE role FROM member``.

        Reverse: ``op.grant_role()``.
        """
        operations.invoke(cls(ddl_roles.RevokeRole(Membership(role, member))))


register("create_rls_role", "alter_rls_role", "drop_rls_role", "grant_role", "revoke_role")(RoleOp)
