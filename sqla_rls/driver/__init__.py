"""Driver connections that send a binding together with BEGIN, and so for no round trip of its own.

A connection is given a ``Binding`` for one transaction, and sends it before whatever comes first in it.
``install()`` lets an engine open such connections; one module for each driver says how they work.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from sqlalchemy import Engine

from sqla_rls.exc import BindingError, ExpiredToken

#: How a binding travels: in one message with BEGIN; in one flush with BEGIN and the first statement; as a
#: statement of its own.
Way: TypeAlias = Literal["auto", "message", "pipeline", "statement"]

_CURES: Final = {
    "42501": "the login role may not SET ROLE to it; GRANT it to the login role",
    "22023": "there is no such role; create it, as a migration that declares it does",
}


@dataclass(frozen=True, slots=True)
class Binding:
    """The settings of one transaction, for a driver to send."""

    role: str
    claims: str
    expires_at: float | None = None  # in seconds since the epoch

    def literal(self) -> str:
        """One SELECT that makes the settings, and returns none of them; raises ExpiredToken.

        Not ``SET LOCAL``: before PostgreSQL 18, pg_stat_statements keeps each of its texts.
        """
        return QUERY % tuple(map(_literal, self.parameters()))

    def parameters(self) -> list[str]:
        """Those of ``QUERY``; raises ExpiredToken."""
        self.check()
        return [self.role, self.claims]

    def check(self) -> None:
        """Raise ExpiredToken if it has expired."""
        if self.expires_at is not None and self.expires_at <= time.time():
            raise ExpiredToken(
                "the identity has expired: verify a fresh token and identify the session again"
            )

    def refused(self, sqlstate: str | None) -> BindingError:
        """The error for what the server answered."""
        cure = _CURES.get(sqlstate or "", "the server refused")
        return BindingError(f"role {self.role!r} can't be bound: {cure}")

    def __repr__(self) -> str:
        return f"Binding(role={self.role!r})"  # claims are personal


#: Of two parameters, the role and the claims.
QUERY: Final = (
    "SELECT set_config('role', %s, true) IS NULL, set_config('request.jwt.claims', %s, true) IS NULL"
)


def _literal(value: str) -> str:
    # E'…' reads the same whatever standard_conforming_strings is.
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


class DriverConnection:
    """A driver's connection that sends bindings."""

    binding: Binding | None = None
    #: Whether a binding reaches each statement in AUTOCOMMIT.
    autocommit_is_bound: bool = False

    def carry(self, binding: Binding, way: Way) -> bool:
        """Send *binding* with the transaction that comes next; False if one is in progress already.

        Raises UnsupportedTransaction if the driver has no such *way*.
        """
        raise NotImplementedError

    def drop(self, binding: Binding) -> None:
        """Forget *binding*, if it still waits to be sent."""
        if self.binding is binding:
            self.binding = None


def install(engine: Engine) -> None:
    """Let *engine* open connections that send bindings, if its driver can; open ones stay as they are.

    An engine that has a creator or a connection class of the application's own keeps it.
    """
    if engine.dialect.driver == "psycopg":
        from sqla_rls.driver import psycopg

        psycopg.install(engine)
    elif engine.dialect.driver == "asyncpg":
        from sqla_rls.driver import asyncpg

        asyncpg.install(engine)
