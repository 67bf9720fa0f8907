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
        """Create the missing functions of schema ``auth``.

        They come from the extension pg_session_jwt if the server offers it.  Otherwise they are portable SQL
        functions of the same names.  A function of another origin stays, with a warning.

        Args:
            signed: True creates portable functions that verify the caller, after ``rotate_signing_key()`` has
                made a key; an existing key stays.  False removes them with the key.  None changes nothing.

        Raises: AuthSchemaUnusable if the role may not use the extension's schema, with the statement for a
        superuser.  SigningUnavailable with *signed* if these functions have another origin.

        Emits: ``CREATE EXTENSION pg_session_jwt`` or ``CREATE SCHEMA auth`` and ``CREATE FUNCTION auth.…``.

        Reverse: ``op.drop_auth_functions(signed=False)``, which keeps functions with a signing key.
        """
        if signed is False:
            operations.invoke(cls(DropSigning(), CreateAuthFunctions(), DropRole(KEYHOLDER)))
        else:
            operations.invoke(cls(CreateAuthFunctions(signed=bool(signed))))

    @classmethod
    def drop_auth_functions(cls, operations: Operations, *, signed: bool = True) -> None:
        """Drop the functions that ``op.create_auth_functions()`` made.

        They stay, with a notice, if a policy or a default of another project or tenant uses one of them.

        Args:
            signed: False keeps functions that verify callers, together with the key.

        Emits: ``DROP FUNCTION auth.…``, ``DROP SCHEMA auth``, or ``DROP EXTENSION pg_session_jwt``.

        Reverse: ``op.create_auth_functions()``.
        """
        operations.invoke(cls(DropAuthFunctions(keep_signed=not signed), DropRole(KEYHOLDER)))


register(
    "create_auth_functions",
    "drop_auth_functions",
)(AuthFunctionsOp)
