"""What a migration can say: ``op.create_policy(…)`` and the rest; about roles, see roles.py.

To add an operation, add a class method here and its name to ``_NAMES``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

from alembic.operations import MigrateOperation, Operations
from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls.alembic.operations.registered import register
from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.catalog.missing_grants import missing_on_schema
from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropAuthFunctions, DropSigning
from sqla_rls.ddl.comments import policy_comment
from sqla_rls.ddl.conditional import IfExists, IfRolesExist
from sqla_rls.ddl.errors import explained
from sqla_rls.ddl.policies import (
    AlterPolicy,
    AlterRowSecurity,
    CreatePolicy,
    DropPolicy,
    LiftForce,
    RenamePolicy,
)
from sqla_rls.ddl.privileges import AlterDefaultPrivileges, GrantOrRevoke
from sqla_rls.ddl.roles import DropRole
from sqla_rls.exc import ExposureNotConfirmed, UnknownRole
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import DEFAULT_SCHEMA, KEYHOLDER, PUBLIC, ROLE_KEYWORDS, Policy, PolicyKey, TableKey

log = autogenerate_log(__name__)

_IN_FAILED_TRANSACTION = "25P02"
_NAMES = (
    "confirm_exposure",
    "create_auth_functions",
    "drop_auth_functions",
    "enable_row_level_security",
    "disable_row_level_security",
    "force_row_level_security",
    "no_force_row_level_security",
    "without_forced_row_level_security",
    "create_policy",
    "alter_policy",
    "drop_policy",
    "grant",
    "revoke",
    "grant_default_privileges",
    "revoke_default_privileges",
)


class RowSecurityOp(MigrateOperation):
    """Executes one or more statements; *roles* must be there."""

    def __init__(self, *statements: ExecutableDDLElement, roles: Sequence[str] = ()) -> None:
        self.statements, self.roles = statements, roles

    @classmethod
    def confirm_exposure(
        cls,
        operations: Operations,
        table_name: str,
        exposure: str,
        *,
        confirmed: bool,
        schema: str | None = None,
    ) -> None:
        """Stop the migration unless the *exposure* of *table_name* is *confirmed*; emit nothing.

        Autogenerate writes False.  Set it to True after you have reviewed the exposure.

        Raises: ExposureNotConfirmed.
        """
        if not confirmed:
            raise ExposureNotConfirmed(
                f"this migration exposes table {table_name}: {exposure}. If you mean that, set "
                "confirmed=True in its op.confirm_exposure(); otherwise declare what must stay, and "
                "generate the revision again"
            )

    @classmethod
    def create_auth_functions(cls, operations: Operations, *, signed: bool | None = None) -> None:
        """Make the functions of schema ``auth``, where they are missing.

        That is the extension pg_session_jwt where the server offers it, else portable SQL functions of
        the same names.  What something else made there is never replaced, and logged as a warning.
        Raises AuthSchemaUnusable where the extension's schema may not be used, with the statement that
        a superuser must run.

        *signed* makes portable functions that verify who is calling, once ``rotate_signing_key()`` has
        made a key; one that is there is kept.  False takes that away, with the key; by default it stays
        as it is.  Raises SigningUnavailable where the extension or something else made these functions.
        """
        if signed is False:
            operations.invoke(cls(DropSigning(), CreateAuthFunctions(), DropRole(KEYHOLDER)))
        else:
            operations.invoke(cls(CreateAuthFunctions(signed=bool(signed))))

    @classmethod
    def drop_auth_functions(cls, operations: Operations, *, signed: bool = True) -> None:
        """Drop the functions that ``op.create_auth_functions()`` made.

        They stay, with a notice, where a policy or a default of another project or tenant uses any of them.
        With ``signed=False`` they also stay where they verify callers, together with the key.
        """
        operations.invoke(cls(DropAuthFunctions(keep_signed=not signed), DropRole(KEYHOLDER)))

    @classmethod
    def enable_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """``ALTER TABLE … ENABLE ROW LEVEL SECURITY``."""
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "ENABLE")))

    @classmethod
    def disable_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """``ALTER TABLE … DISABLE ROW LEVEL SECURITY``."""
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "DISABLE")))

    @classmethod
    def force_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """``ALTER TABLE … FORCE ROW LEVEL SECURITY``."""
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "FORCE")))

    @classmethod
    def no_force_row_level_security(
        cls, operations: Operations, table_name: str, *, schema: str | None = None
    ) -> None:
        """``ALTER TABLE … NO FORCE ROW LEVEL SECURITY``."""
        operations.invoke(cls(AlterRowSecurity(TableKey(schema, table_name), "NO FORCE")))

    @classmethod
    def without_forced_row_level_security(
        cls, operations: Operations, *table_names: str, schema: str | None = None
    ) -> AbstractContextManager[None]:
        """A block in which row security isn't forced on the owner of the tables, for data migrations.

        ``with op.without_forced_row_level_security("notes"): op.execute(…)``.  The end of the block puts
        FORCE back, also after an error, on those tables that had it.  ``ALTER TABLE`` locks each table until
        the transaction ends.  Within ``autocommit_block()`` other sessions of the owner see the tables
        without FORCE, too, and a lost connection leaves them so.

        Emits: ``ALTER TABLE … NO FORCE ROW LEVEL SECURITY``, and at the end ``ALTER TABLE … FORCE ROW LEVEL
        SECURITY``; ``SET CONSTRAINTS ALL IMMEDIATE`` before that, if checks of new rows are deferred.
        """
        return _lifted(cls, operations, [TableKey(schema, name) for name in table_names])

    @classmethod
    def create_policy(
        cls,
        operations: Operations,
        policy_name: str,
        table_name: str,
        *,
        command: str = "ALL",
        roles: Sequence[str] = (PUBLIC,),
        using: str | None = None,
        with_check: str | None = None,
        permissive: bool = True,
        comment: str | None = None,
        schema: str | None = None,
        if_roles_exist: bool = False,
    ) -> None:
        """``CREATE POLICY``, and ``COMMENT ON POLICY`` if there is a *comment*.

        Raises UnknownRole for a role that the cluster doesn't have.

        Nothing happens, with a notice, where an equal policy of that name exists; with *if_roles_exist* also
        where a role doesn't.
        """
        policy = Policy(
            table=TableKey(schema, table_name),
            name=policy_name,
            permissive=permissive,
            command=command,
            roles=frozenset(roles),
            using=using,
            with_check=with_check,
        )
        statements = CreatePolicy(policy), *policy_comment(policy.key, comment)
        operations.invoke(cls._restoring(statements, roles, if_roles_exist))

    @classmethod
    def alter_policy(
        cls,
        operations: Operations,
        policy_name: str,
        table_name: str,
        *,
        roles: Sequence[str] | None = None,
        using: str | None = None,
        with_check: str | None = None,
        new_policy_name: str | None = None,
        schema: str | None = None,
    ) -> None:
        """``ALTER POLICY``: changes what is given.  Raises UnknownRole."""
        key = PolicyKey(TableKey(schema, table_name), policy_name)
        statements: list[ExecutableDDLElement] = []
        if roles is not None or using is not None or with_check is not None:
            statements.append(AlterPolicy(key, roles=roles, using=using, with_check=with_check))
        if new_policy_name is not None:
            statements.append(RenamePolicy(key, new_policy_name))
        operations.invoke(cls(*statements, roles=roles or ()))

    @classmethod
    def drop_policy(
        cls, operations: Operations, policy_name: str, table_name: str, *, schema: str | None = None
    ) -> None:
        """``DROP POLICY IF EXISTS``."""
        key = PolicyKey(TableKey(schema, table_name), policy_name)
        operations.invoke(cls(DropPolicy(key, if_exists=True)))

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
            operations.invoke(cls._restoring([statement], grantees, if_roles_exist))

    @classmethod
    def _restoring(
        cls, statements: Sequence[ExecutableDDLElement], roles: Sequence[str], if_roles_exist: bool
    ) -> Self:
        if if_roles_exist:
            return cls(*(IfRolesExist(statement, roles) for statement in statements))
        return cls(*statements, roles=roles)

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


@contextmanager
def _lifted(op: type[RowSecurityOp], operations: Operations, tables: Sequence[TableKey]) -> Iterator[None]:
    operations.invoke(op(*(LiftForce(table) for table in tables)))
    restore = op(*(LiftForce(table, restore=True) for table in reversed(tables)))
    try:
        yield
    except BaseException:
        try:
            operations.invoke(restore)
        except DBAPIError as error:
            # A transaction that failed is rolled back, and has lifted nothing.
            if getattr(error.orig, "sqlstate", None) != _IN_FAILED_TRANSACTION:
                log.error(
                    "FORCE ROW LEVEL SECURITY of %s was not put back: %s. Unless the transaction was rolled "
                    "back, run ALTER TABLE … FORCE ROW LEVEL SECURITY for each",
                    ", ".join(table.name for table in tables),
                    error.orig,
                )
        raise
    operations.invoke(restore)


register(*_NAMES)(RowSecurityOp)


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
            f"there is no role {', '.join(missing)} in this cluster: declare it as Role({missing[0]!r}) "
            "instead of by name, so that the migration makes it, or have it created first"
        )
