"""Operations on privileges: ``op.grant(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.conditional import IfExists
from sqla_rls.ddl.privileges import AlterDefaultPrivileges, GrantOrRevoke, RevokeOfGrantors
from sqla_rls.snapshot import DEFAULT_SCHEMA


class PrivilegeOp(RowSecurityOp):
    @classmethod
    def grant(
        cls,
        operations: Operations,
        privileges: Sequence[str],
        object_name: str | None,
        grantees: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        object_type: str = "TABLE",
        schema: str | None = None,
        grant_option: bool = False,
        if_roles_exist: bool = False,
        if_exists: bool = False,
    ) -> None:
        """Grant privileges on a table or another object.

        If the migrating role may not grant on a schema, a warning has the statement for the owner.

        Args:
            object_name: its name; None with object_type SCHEMA is the first schema in the search path.
            columns: grant on these columns only.  With object_type SEQUENCE they are columns of the table
                *object_name*, and stand for the sequences that they own or that their defaults call.
            if_roles_exist: only a notice if a grantee is missing.
            if_exists: only a notice if the object or a grantee is missing.

        Raises: UnknownRole if a grantee is missing.

        Emits: ``GRANT privileges [(columns)] ON object_type object_name TO grantees [WITH GRANT OPTION]``.

        Reverse: ``op.revoke()``, with *cascade* for *grant_option*.
        """
        statement = GrantOrRevoke(
            privileges,
            object_name,
            grantees,
            columns=columns,
            object_type=object_type,
            schema=schema,
            option=grant_option,
        )
        if if_exists:
            operations.invoke(cls(IfExists(statement)))
        else:
            operations.invoke(cls.restoring([statement], grantees, if_roles_exist))

    @classmethod
    def revoke(
        cls,
        operations: Operations,
        privileges: Sequence[str],
        object_name: str | None,
        grantees: Sequence[str],
        *,
        columns: Sequence[str] | None = None,
        object_type: str = "TABLE",
        schema: str | None = None,
        cascade: bool = False,
        granted_by: Sequence[str] = (),
    ) -> None:
        """Revoke privileges; the arguments are those of ``op.grant()``.

        If the object or a grantee is missing, a notice says so and nothing changes.

        Args:
            cascade: also revoke what the grantees have granted to others.
            granted_by: also revoke the privileges that these roles have granted, which the owner's REVOKE
                leaves.  It needs the privileges of the owner; else a warning says so.

        Emits: ``REVOKE privileges [(columns)] ON object_type object_name FROM grantees [CASCADE]``.  For
        *granted_by*, first ``REVOKE … FROM granted_by CASCADE``, and ``GRANT`` of what others lose by it.

        Reverse: ``op.grant()``.
        """
        statement = GrantOrRevoke(
            privileges,
            object_name,
            grantees,
            columns=columns,
            object_type=object_type,
            schema=schema,
            option=cascade,
            revoke=True,
        )
        of_grantors = [RevokeOfGrantors(statement, granted_by)] if granted_by else []
        operations.invoke(cls(*map(IfExists, [*of_grantors, statement])))

    @classmethod
    def grant_default_privileges(
        cls,
        operations: Operations,
        privileges: Sequence[str],
        object_type: str,
        grantees: Sequence[str],
        *,
        schema: str | None = None,
        current_schema: bool = False,
    ) -> None:
        """Grant privileges on the objects that the migrating role will create.

        Args:
            current_schema: in the first schema of the search path.

        Emits: ``ALTER DEFAULT PRIVILEGES [IN SCHEMA schema] GRANT …``.

        Reverse: ``op.revoke_default_privileges()``.
        """
        statement = AlterDefaultPrivileges(
            privileges, object_type, grantees, schema=DEFAULT_SCHEMA if current_schema else schema
        )
        operations.invoke(cls(statement, roles=grantees))

    @classmethod
    def revoke_default_privileges(
        cls,
        operations: Operations,
        privileges: Sequence[str],
        object_type: str,
        grantees: Sequence[str],
        *,
        schema: str | None = None,
        current_schema: bool = False,
    ) -> None:
        """Revoke default privileges; the arguments are those of ``op.grant_default_privileges()``.

        Emits: ``ALTER DEFAULT PRIVILEGES [IN SCHEMA schema] REVOKE …``.

        Reverse: ``op.grant_default_privileges()``.
        """
        statement = AlterDefaultPrivileges(
            privileges,
            object_type,
            grantees,
            schema=DEFAULT_SCHEMA if current_schema else schema,
            revoke=True,
        )
        operations.invoke(cls(statement))


register(
    "grant",
    "revoke",
    "grant_default_privileges",
    "revoke_default_privileges",
)(PrivilegeOp)
