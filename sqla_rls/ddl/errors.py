"""Turns the SQLSTATEs of the scripts into errors of sqla_rls."""

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

#: The errors by the SQLSTATEs of the scripts in sql/, whose messages are for users.
BY_SQLSTATE: Final[Mapping[str, type[RowSecurityError]]] = {
    "RLS03": DeclarationError,
    "RLS04": RoleNotPermitted,
    "RLS05": SigningUnavailable,
    "RLS06": PrivilegeNotPermitted,
}


@contextmanager
def explained() -> Iterator[None]:
    """Raise errors of the scripts in the block as errors of sqla_rls."""
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
