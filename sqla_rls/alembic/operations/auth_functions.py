"""Operations on the functions of schema ``auth``."""

from __future__ import annotations

from alembic.operations import Operations

from sqla_rls.alembic.operations.base import RowSecurityOp
from sqla_rls.alembic.operations.registered import register
from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropAuthFunctions, DropSigning
from sqla_rls.ddl.roles import DropRole
from sqla_rls.snapshot import KEYHOLDER


class AuthFunctionsOp(RowSecurityOp):
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


register(
    "create_auth_functions",
    "drop_auth_functions",
)(AuthFunctionsOp)
