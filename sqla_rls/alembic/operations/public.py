"""Operations on PUBLIC's privileges: ``op.revoke_public_privileges(["TEMPORARY"])`` and the reverse."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.public_privileges import PublicPrivileges


class PublicOp(RowSecurityOp):
    @classmethod
    def revoke_public_privileges(cls, operations: Operations, privileges: Sequence[str]) -> None:
        """Revoke *privileges* from PUBLIC: TEMPORARY on the current database, CREATE on schema public.

        Raises: PrivilegeNotPermitted if another role must revoke one; the message has the statement and the
        role.  DeclarationError for any other privilege.

        Emits: ``REVOKE TEMPORARY ON DATABASE … FROM PUBLIC``, ``REVOKE CREATE ON SCHEMA public FROM PUBLIC``;
        nothing for a privilege that PUBLIC doesn't hold.

        Reverse: ``op.grant_public_privileges()``, with the privileges that PUBLIC held.
        """
        operations.invoke(cls(PublicPrivileges(privileges, revoke=True)))

    @classmethod
    def grant_public_privileges(cls, operations: Operations, privileges: Sequence[str]) -> None:
        """Grant *privileges* to PUBLIC again: TEMPORARY on the current database, CREATE on schema public.

        Raises: as for ``op.revoke_public_privileges()``.

        Emits: ``GRANT TEMPORARY ON DATABASE … TO PUBLIC``, ``GRANT CREATE ON SCHEMA public TO PUBLIC``.

        Reverse: ``op.revoke_public_privileges()``.
        """
        operations.invoke(cls(PublicPrivileges(privileges)))


register("revoke_public_privileges", "grant_public_privileges")(PublicOp)
