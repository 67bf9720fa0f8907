"""Claims without signatures: the functions of schema ``auth`` read the setting ``request.jwt.claims``.

Nothing in a scratch database has a signing key.  Functions of another program stay as they are.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from sqla_rls.analyze.sides.dump import script
from sqla_rls.catalog.auth_functions import auth_functions
from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropSigning

EXTENSION: Final = "pg_session_jwt"

#: What is said of a scratch database in which functions were replaced.
UNSIGNED: Final = (
    "The functions of schema auth verify no signature in the scratch database: claims are in the setting "
    "request.jwt.claims."
)


def use_unsigned_claims(connection: Connection) -> list[str]:
    """Replace functions of schema ``auth`` that verify callers; return what to say about it."""
    found = auth_functions(connection)
    is_verifying = found.extension or found.signed
    if found.extension:
        connection.execute(text(script("leave_extension")))
    elif found.signed:
        connection.execute(DropSigning())
    if is_verifying:
        connection.execute(CreateAuthFunctions())
    connection.execute(text(script("own_auth_functions")))
    return [UNSIGNED] if is_verifying else []
