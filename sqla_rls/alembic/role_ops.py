"""What a migration can say about roles: ``op.create_role(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls import ddl_roles
from sqla_rls.alembic.ops import RowSecurityOp
from sqla_rls.objects import Membership, Role


class RoleOp(RowSecurityOp):
    @classmethod
    def create_role(
        cls,
        operations: Operations,
        name: str,
        *,
        login: bool | None = None,
        inherit: bool | None = None,
        bypassrls: bool | None = None,
        member_of: Sequence[str] | None = None,
    ) -> None:
        """``CREATE ROLE``, where it is missing in the cluster.

        Raises RoleNotPermitted where the migrating role may not, with the statement for a superuser.
        """
        role = Role(name, login=login, inherit=inherit, bypassrls=bypassrls, member_of=member_of)
        operations.invoke(cls(ddl_roles.CreateRole(role), roles=member_of or ()))

    @classmethod
    def alter_role(
        cls,
        operations: Operations,
        name: str,
        *,
        login: bool | None = None,
        inherit: bool | None = None,
        bypassrls: bool | None = None,
    ) -> None:
        """``ALTER ROLE``: changes what is given, in the whole cluster.

        Raises UnknownRole, and RoleNotPermitted as ``create_role`` does.
        """
        role = Role(name, login=login, inherit=inherit, bypassrls=bypassrls)
        operations.invoke(cls(ddl_roles.AlterRole(role), roles=[name]))

    @classmethod
    def drop_role(cls, operations: Operations, name: str) -> None:
        """``DROP ROLE``, if ``op.create_role()`` made it and nothing in the cluster uses it."""
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
    ) -> None:
        """``GRANT role TO member``; before PostgreSQL 16 without *inherit* and *set*.

        Raises UnknownRole, and RoleNotPermitted as ``create_role`` does.
        """
        membership = Membership(role, member, admin=admin, inherit=inherit, set=set)
        operations.invoke(cls(ddl_roles.GrantRole(membership), roles=[role, member]))

    @classmethod
    def revoke_role(cls, operations: Operations, role: str, member: str) -> None:
        """``REVOKE role FROM member``, whoever granted it.

        Raises RoleNotPermitted where the migrating role may not, with the statement for a superuser: since
        PostgreSQL 16 that is so where a role granted it whose privileges the migrating role lacks.
        """
        operations.invoke(cls(ddl_roles.RevokeRole(Membership(role, member))))


for _name in ("create_role", "alter_role", "drop_role", "grant_role", "revoke_role"):
    Operations.register_operation(_name)(RoleOp)
