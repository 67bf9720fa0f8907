"""Default privileges, and the privileges of PUBLIC in the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import MetaData
from sqlalchemy.sql.schema import SchemaConst

from sqla_rls.declare.base import Roles, as_roles, keep_on
from sqla_rls.declare.grantable import GRANTABLE, checked_privileges
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import DEFAULT_SCHEMA, DefaultPrivilege, Role


def default_privileges(
    metadata: MetaData,
    *privileges: str,
    on: str = "TABLES",
    to: Roles,
    schema: str | SchemaConst | None = None,
    bypasses_row_security: bool = False,
) -> None:
    """Declare default privileges for objects that the migrating role creates later.

    All default privileges of the roles in *to* on this kind of object are managed: autogenerate revokes the
    undeclared ones.

    Args:
        metadata: the MetaData of the models.
        *privileges: the privileges; without any, the roles have none.
        on: TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS.
        to: the roles.
        schema: the schema of the objects; None for every schema.  SQLAlchemy's ``BLANK_SCHEMA`` stands for
            the default schema, which may differ for each tenant.
        bypasses_row_security: as in ``grant``.

    Raises:
        DeclarationError: *on* is unknown, or a privilege can't be declared.

    Emits:
        ``ALTER DEFAULT PRIVILEGES [IN SCHEMA …] GRANT … ON … TO …``, and ``REVOKE``
    """
    on = on.upper()
    if on not in GRANTABLE or on == "COLUMNS":
        raise DeclarationError(
            f"default_privileges(on={on!r}) failed: there is no such kind of object. "
            "Give TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS"
        )
    checked = checked_privileges(privileges, on, bypasses_row_security)
    name = DEFAULT_SCHEMA if isinstance(schema, SchemaConst) else schema
    keep_on(metadata, DefaultPrivileges(on, name, as_roles(to), checked))


def revoke_public_privileges(metadata: MetaData) -> None:
    """Revoke the privileges of PUBLIC with which one caller can trick another.

    With TEMPORARY on the database, a caller can create a temporary table or type.  It hides the real one from
    the next caller on the connection.  With CREATE on schema public, a caller can create a function that
    hides one of Postgres; databases of PostgreSQL 15 and later don't grant it.  All roles of the database
    lose both, unless they hold them by name.  If you remove this call later, the privileges stay revoked.

    The owners of the database and of the schema must run the statements.  Autogenerate needs TEMPORARY: the
    owner of the database keeps it, and you must grant it to another migrating role by name.

    Args:
        metadata: the MetaData of the models.

    Emits:
        ``REVOKE TEMPORARY ON DATABASE … FROM PUBLIC`` and ``REVOKE CREATE ON SCHEMA public FROM PUBLIC``
    """
    keep_on(metadata, RevokesPublicPrivileges())


class RevokesPublicPrivileges(NamedTuple):
    """The declaration of ``revoke_public_privileges()``."""


class DefaultPrivileges(NamedTuple):
    """The arguments of one call of ``default_privileges()``."""

    object_type: str
    schema: str | None
    roles: Sequence[Role | str]
    privileges: list[str]

    def values(self, default_schema: str | None) -> Iterator[DefaultPrivilege]:
        """Return the default privileges, with the name of the default schema if *default_schema* is known."""
        schema = default_schema or self.schema if self.schema == DEFAULT_SCHEMA else self.schema
        for role in self.roles:
            for privilege in self.privileges:
                yield DefaultPrivilege(self.object_type, schema, str(role), privilege)
