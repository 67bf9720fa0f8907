"""The base of all operations: it checks roles, runs statements, and logs the skipped ones.

To add an operation, add a class method to the class in the file of its kind, and its name to ``register()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.ddl.conditional import IfRolesExist
from sqla_rls.ddl.errors import explained
from sqla_rls.ddl.privileges import GrantOrRevoke
from sqla_rls.exc import UnknownRole
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import PUBLIC, ROLE_KEYWORDS

log = autogenerate_log(__name__)


class RowSecurityOp(MigrateOperation):
    """Execute one or more statements, for which *roles* must exist."""

    def __init__(self, *statements: ExecutableDDLElement, roles: Sequence[str] = ()) -> None:
        self.statements, self.roles = statements, roles

    @classmethod
    def restoring(
        cls, statements: Sequence[ExecutableDDLElement], roles: Sequence[str], if_roles_exist: bool
    ) -> Self:
        """With *if_roles_exist*, one of the *roles* that doesn't exist is a notice instead of an error."""
        if if_roles_exist:
            return cls(*(IfRolesExist(statement, roles) for statement in statements))
        return cls(*statements, roles=roles)


@Operations.implementation_for(RowSecurityOp)
def _execute(operations: Operations, operation: RowSecurityOp) -> None:
    if not operations.migration_context.as_sql:
        _require_roles(operations, operation.roles)
    with explained():
        for statement in operation.statements:
            operations.execute(statement)
            if isinstance(statement, CreateAuthFunctions) and not operations.migration_context.as_sql:
                for remark in auth_functions(operations.get_bind()).remarks():
                    log.warning("%s", remark)
            elif (
                isinstance(statement, GrantOrRevoke)
                and statement.object_type == "SCHEMA"
                and not operations.migration_context.as_sql
            ):
                from sqla_rls.catalog.missing_grants import missing_on_schema

                for missing in missing_on_schema(
                    operations.get_bind(), statement.object_name, statement.privileges, statement.grantees
                ):
                    log.warning("%s", missing)


def _require_roles(operations: Operations, roles: Sequence[str]) -> None:
    wanted = sorted(set(roles) - {PUBLIC} - ROLE_KEYWORDS)
    if not wanted:
        return
    query: Any = text("SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY (:roles)")
    found = operations.get_bind().execute(
        query.bindparams(bindparam("roles", type_=ARRAY(Text()))), {"roles": wanted}
    )
    missing = sorted(set(wanted) - set(found.scalars()))
    if missing:
        raise UnknownRole(
            f"the migration failed: there is no role {', '.join(missing)} in this cluster. Declare "
            f"Role({missing[0]!r}) instead of the name, so that the migration creates it, or create it first"
        )
