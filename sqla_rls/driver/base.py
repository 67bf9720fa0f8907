"""Driver connections that send a binding together with BEGIN, and so for no round trip of its own.

A connection is given a ``Binding`` for one transaction, and sends it before whatever comes first in it.
connect.py lets an engine open such connections, server_info.py asks what they are; one module for each driver
says how they work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from sqla_rls.exc import BindingError, ExpiredToken

#: How a binding travels: in one message with BEGIN; in one flush with BEGIN and the first statement; as a
#: statement of its own.
Transport: TypeAlias = Literal["auto", "with_begin", "pipeline", "statement"]

#: How much of the state that the last caller left on a connection goes before the next one: its settings,
#: all that DISCARD ALL discards, or nothing.
Reset: TypeAlias = Literal["settings", "all", "none"]

_CURES: Final = {
    "42501": "the login role may not SET ROLE to it; GRANT it to the login role",
    "22023": "there is no such role; create it, as a migration that declares it does",
}


#: Those that every binding may make; others are the application's.
_OURS: Final = frozenset(
    {"request.jwt.claims", "pg_session_jwt.jwt", "search_path", "seed", "default_transaction_read_only"}
)

#: A binding sets it, by which its transaction is known: Postgres tells the client when it has another value,
#: as it has after COMMIT.  In a transaction that has begun it decides nothing.
MARK: Final = "default_transaction_read_only"
ENDED: Final = (
    "the transaction was ended on its connection, and its binding with it. Call rollback() first; to end a "
    "transaction, use the session's commit() and rollback()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """The modes of a transaction, as BEGIN has them; None leaves one to the session."""

    isolation_level: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None

    def begin(self) -> str:
        """``BEGIN …``."""
        parts = ["BEGIN"]
        if self.isolation_level is not None:
            parts.append(f"ISOLATION LEVEL {self.isolation_level.upper()}")
        if self.read_only is not None:
            parts.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            parts.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The settings of one transaction, for a driver to send."""

    role: str
    #: Settings besides the role, by their names; a token is asked for when it is sent.
    settings: Mapping[str, str | Callable[[], str]]
    expires_at: float | None = None  # in seconds since the epoch
    #: What the session's own settings may not decide: begin in these modes, after RESET ALL.
    modes: Modes | None = None
    #: DISCARD ALL goes first, unless the connection's last binding was of this key; None: it never does.
    discard_key: Hashable = None
    #: It holds a token.  Statements show in pg_stat_activity and in logs, parameters don't.
    confidential: bool = False
    #: One that is good on other connections, too, so that it is never in a statement.
    transferable: bool = False
    #: The value of MARK that is among the settings.
    mark: str | None = None

    def literal(self) -> str:
        """One SELECT that makes the settings, and returns none of them; raises ExpiredToken.

        Not ``SET LOCAL``: before PostgreSQL 18, pg_stat_statements keeps each of its texts.
        """
        return _template(tuple(self.settings)) % tuple(map(_literal, self.parameters()))

    def query(self) -> str:
        """The same, of parameters: $1 and so on."""
        return _query(tuple(self.settings))

    def parameters(self) -> list[str]:
        """Those of ``query()``; raises ExpiredToken."""
        require_unexpired(self.expires_at)
        return [self.role, *(value() if callable(value) else value for value in self.settings.values())]

    def refused(self, sqlstate: str | None) -> BindingError:
        """The error for what the server answered."""
        cure = _CURES.get(sqlstate or "", "the server refused")
        if own := [name for name in self.settings if name not in _OURS]:
            cure += f"; or it refuses one of the settings {', '.join(own)}"
        return BindingError(f"role {self.role!r} can't be bound: {cure}")

    def __repr__(self) -> str:
        return f"Binding(role={self.role!r})"  # claims are personal


def require_unexpired(expires_at: float | None) -> None:
    """Raise ExpiredToken if *expires_at*, in seconds since the epoch, is over."""
    if expires_at is not None and expires_at <= time.time():
        raise ExpiredToken("the caller has expired: verify a fresh token and identify the session again")


@cache
def _query(names: tuple[str, ...]) -> str:
    return _template(names) % tuple(f"${number + 1}" for number in range(len(names) + 1))


@cache
def _template(names: tuple[str, ...]) -> str:
    # With its schema: the last caller may have left another search_path.
    return "SELECT " + ", ".join(
        f"pg_catalog.set_config({_literal(name)}, %s, true) IS NULL" for name in ("role", *names)
    )


def _literal(value: str) -> str:
    # E'…' reads the same whatever standard_conforming_strings is.
    return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


class NotDiscarded(BindingError):
    """The connection is closed, since DISCARD ALL has failed on it."""

    def __init__(self) -> None:
        super().__init__("what the last caller left can't be discarded: the connection was closed")


class DriverConnection:
    """A driver's connection that sends bindings."""

    binding: Binding | None = None
    #: Whether a binding reaches each statement in AUTOCOMMIT.
    autocommit_is_bound: bool = False
    #: The key of the last binding that it sent.
    last_discard_key: Hashable = None
    #: The value of MARK that tells a transaction that is bound; None if the server reports none.
    mark: str | None = None
    #: What a statement has bound the transaction in progress with.
    executed: Binding | None = None

    @property
    def idle(self) -> bool:
        """Whether it is in no transaction, and works."""
        raise NotImplementedError

    @property
    def is_lost(self) -> bool:
        """Whether the transaction in progress isn't the one that was bound, as the server has reported."""
        bound = self.binding or self.executed
        if bound is None or bound.mark is None or (bound is self.binding and self.idle):
            return False
        return self._reported() != bound.mark

    def _reported(self) -> str | None:
        """The value of MARK that the server has reported last."""
        raise NotImplementedError

    def _choose_mark(self) -> None:
        reported = self._reported()
        self.mark = None if reported is None else "on" if reported == "off" else "off"

    def queue(self, binding: Binding, transport: Transport) -> bool:
        """Send *binding* with the transaction that comes next; False if one is in progress already.

        Raises UnsupportedTransaction if the driver has no such *transport*.
        """
        raise NotImplementedError

    @property
    def discards(self) -> bool:
        """Whether DISCARD ALL goes before the binding."""
        return self.binding is not None and self.binding.discard_key not in (None, self.last_discard_key)

    def unqueue(self, binding: Binding) -> None:
        """Forget *binding*, if it still waits to be sent, or its transaction is the last one."""
        if self.binding is binding:
            self.binding = None
        if self.executed is binding:
            self.executed = None
