"""Operations on policies: ``op.create_policy(…)`` and its siblings."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations
from sqlalchemy.schema import ExecutableDDLElement

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.comments import policy_comment
from sqla_rls.ddl.policies import (
    AlterPolicy,
    CreatePolicy,
    DropPolicy,
    RenamePolicy,
)
from sqla_rls.snapshot import PUBLIC, Policy, PolicyKey, TableKey


class PolicyOp(RowSecurityOp):
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
        """Create a policy.  If an equal policy of that name exists, a notice says so and nothing changes.

        Args:
            using: SQL text, as is *with_check*.
            if_roles_exist: only a notice if a role is missing.

        Raises: UnknownRole if a role is missing.

        Emits: ``CREATE POLICY``, and ``COMMENT ON POLICY`` for a *comment*.

        Reverse: ``op.drop_policy()``.
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
        operations.invoke(cls.restoring(statements, roles, if_roles_exist))

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
        """Alter the given parts of a policy.

        Raises: UnknownRole if a role is missing.

        Emits: ``ALTER POLICY``.

        Reverse: ``op.alter_policy()`` with the earlier parts.
        """
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
        """Drop a policy; nothing happens without one.

        Emits: ``DROP POLICY IF EXISTS``.

        Reverse: ``op.create_policy()``.
        """
        key = PolicyKey(TableKey(schema, table_name), policy_name)
        operations.invoke(cls(DropPolicy(key, if_exists=True)))


register(
    "create_policy",
    "alter_policy",
    "drop_policy",
)(PolicyOp)
