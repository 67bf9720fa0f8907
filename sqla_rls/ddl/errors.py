"""What our scripts raise, as errors of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import (
    AuthSchemaUnusable,
    DeclarationError,
    PrivilegeNotPermitted,
    RoleNotPermitted,
    RowSecurityError,
    SigningUnavailable,
)

#: The SQLSTATEs that scripts of sql/ raise with a message for users.
BY_SQLSTATE: Final[Mapping[str, type[RowSecurityError]]] = {
    "RLS03": DeclarationError,
    "RLS04": RoleNotPermitted,
    "RLS05": SigningUnavailable,
    "RLS06": PrivilegeNotPermitted,
}


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the server refuses into errors of this package, where it can say what to do."""
    try:
        yield
    except DBAPIError as error:
        sqlstate = str(getattr(error.orig, "sqlstate", ""))
        message = str(error.orig).splitlines()[0]
        if sqlstate == "RLS01":
            raise AuthSchemaUnusable(message, message.partition("in this database: ")[2]) from error
        if sqlstate in BY_SQLSTATE:
            raise BY_SQLSTATE[sqlstate](message) from error
        raise
