"""What a migration can say about PUBLIC: ``op.revoke_from_public()``, ``op.grant_to_public(…)``."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.public import PublicPrivileges, RevokeFromPublic


class PublicOp(RowSecurityOp):
    @classmethod
    def revoke_from_public(cls, operations: Operations) -> None:
        """``REVOKE TEMPORARY ON DATABASE … FROM PUBLIC`` of the database at hand, and ``REVOKE CREATE ON
        SCHEMA public FROM PUBLIC``.

        Raises PrivilegeNotPermitted where the migrating role didn't grant them, with what to run and as whom.
        """
        operations.invoke(cls(RevokeFromPublic()))

    @classmethod
    def grant_to_public(cls, operations: Operations, privileges: Sequence[str]) -> None:
        """Undo that for *privileges*: TEMPORARY on the database at hand, CREATE on schema public.

        Raises PrivilegeNotPermitted as ``revoke_from_public`` does.
        """
        operations.invoke(cls(PublicPrivileges(privileges)))


register("revoke_from_public", "grant_to_public")(PublicOp)
