"""Operations on privileges: ``op.grant(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.conditional import IfExists
from sqla_rls.ddl.privileges import AlterDefaultPrivileges, GrantOrRevoke
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
        """``GRANT privileges [(columns)] ON object_type object_name TO grantees``.  Raises UnknownRole.

        With object_type SCHEMA, the *object_name* None is the schema that comes first in the search path.
        Where the migrating role may not grant on a schema, it logs the statement for the owner.
        With *if_roles_exist* nothing happens, with a notice, where a grantee doesn't exist; with *if_exists*,
        where the object or a grantee doesn't.

        With object_type SEQUENCE, *columns* of the table *object_name* stand for the sequences that they
        own, or that their defaults call; the migration looks up their names.
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
    ) -> None:
        """``REVOKE privileges [(columns)] ON object_type object_name FROM grantees``; names as in grant.

        Nothing happens, with a notice, where the object or a grantee doesn't exist.
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
        operations.invoke(cls(IfExists(statement)))

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
        """``ALTER DEFAULT PRIVILEGES [IN SCHEMA schema] GRANT …``, for what the current role makes.

        With *current_schema* it is in the schema that comes first in the search path.
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
        """``ALTER DEFAULT PRIVILEGES [IN SCHEMA schema] REVOKE …``.

        With *current_schema* it is in the schema that comes first in the search path.
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
