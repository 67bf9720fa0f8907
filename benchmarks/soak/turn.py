"""What a session is put through in its turn, and what must come of it."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from benchmarks.soak.world import NOTICES, auditor, facts_of, person
from sqla_rls import Caller, identify
from sqla_rls.driver.base import DriverConnection
from sqla_rls.exc import KeysUnavailable
from sqla_rls.session.row_security_session import RowSecuritySession

#: By kind and name, as in ("refusal", "no caller").
Tally = Counter[tuple[str, str]]

#: What the factory's callback says when a session asks for the token.
token: ContextVar[str | Caller | None] = ContextVar("token", default=None)
#: The listener or hook that is to fail in this turn.
failing: ContextVar[str | None] = ContextVar("failing", default=None)

_SEEN: Final = text(
    "SELECT current_user::text, auth.user_id(), count(*), "
    "count(*) FILTER (WHERE user_id IS DISTINCT FROM :me), "
    "coalesce(current_setting('soak.setting', true), '') FROM facts"
)
#: Makes a setting that the next transaction must not find.
SET: Final = text("SELECT set_config('soak.setting', :me, false)")
_NOTICES: Final = text("SELECT current_user::text, auth.user_id(), count(*) FROM notices")
_LEFT: Final = text(
    "SELECT current_user = session_user, current_setting('role'), "
    "coalesce(current_setting('request.jwt.claims', true), '')"
)
_FACTS: Final = text("SELECT count(*) FROM facts")

_LOST: Final = ("57P01", "57P02", "57P03", "08000", "08003", "08006")
_DEADLOCK: Final = "40P01"
#: SQLAlchemy's, of a connection that was lost in a transaction.
_CANNOT_RECONNECT: Final = "8s2b"


class Violation(Exception):
    """What must never happen: somebody saw what is another's, or something was left behind."""


class ListenerFailed(Exception):
    """A listener or hook of the application's own has failed, as it was told to."""


def fail(name: str) -> None:
    """Fail, if this is the listener's turn."""
    if failing.get() == name:
        failing.set(None)
        raise ListenerFailed(name)


def sqlstate(error: BaseException) -> str | None:
    """That of the driver's error, which SQLAlchemy wraps, but for asyncpg's when it connects."""
    return getattr(getattr(error, "orig", error), "sqlstate", None)


def fault_of(error: Exception) -> str | None:
    """The fault that *error* is the outcome of, if it is one that may meet anybody at any moment."""
    if isinstance(error, PoolTimeout):
        return "no connection to be had"
    if isinstance(error, KeysUnavailable):
        return "keys not to be had in time"
    if sqlstate(error) == _DEADLOCK:
        return "deadlock"
    if isinstance(error, OperationalError | InterfaceError | InternalError) and sqlstate(error) is None:
        # A driver has no SQLSTATE to tell when it finds it closed, or what it was told while it was idle.
        return "connection lost"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "connection lost"
    if isinstance(error, PendingRollbackError) and error.code == _CANNOT_RECONNECT:
        # It was lost when a savepoint was rolled back after an expected error, which alone was raised.
        return "connection lost"
    return "connection lost" if isinstance(error, OSError) or sqlstate(error) in _LOST else None


@dataclass(frozen=True)
class Turn:
    """*me* has *session* for one transaction or a few."""

    session: Session
    me: Caller
    token: str  # that proves it
    people: int
    chance: Random
    tally: Tally
    #: No pooler is in between.
    direct: bool

    @property
    def engine(self) -> Engine:
        bind = self.session.get_bind()
        assert isinstance(bind, Engine)
        return bind

    @property
    def resets_settings(self) -> bool:
        """Whether each transaction finds every setting reset."""
        assert isinstance(self.session, RowSecuritySession)
        return self.session._options.goes_with_begin and isinstance(self.session.bind, Engine)

    def become(self, caller: Caller) -> None:
        identify(self.session, caller)

    @contextmanager
    def beside(self, who: Caller, connection: Connection) -> Iterator[Turn]:
        """A turn of *who* in another session, on *connection*."""
        session = type(self.session)(
            bind=connection,
            join_transaction_mode=self.chance.choice(["create_savepoint", "rollback_only"]),
            info={"tally": self.tally},
        )
        with session:
            identify(session, who)
            yield replace(self, session=session, me=who)

    def another(self) -> Caller:
        """Somebody else than me."""
        while (other := person(self.chance.randrange(self.people))) == self.me:
            pass
        return other

    def check(self, who: Caller | None = None) -> None:
        """See exactly the facts of *who*, by default mine, in the transaction in progress or a new one."""
        who = who or self.me
        role, subject, seen, foreign, setting = self._one(_SEEN, me=who.subject)
        self.tally["seen", "rows of another caller"] += foreign
        if not self.resets_settings:
            setting = ""
        self.expect((who.role, who.subject, facts_of(who), 0, ""), (role, subject, seen, foreign, setting))

    def check_auditor(self) -> None:
        everything = sum(facts_of(person(number)) for number in range(self.people))
        role, subject, seen, *_ = self._one(_SEEN, me=None)
        self.expect((auditor.name, None, everything), (role, subject, seen))

    def check_anonymous(self) -> None:
        role, subject, seen = self._one(_NOTICES)
        self.expect((Caller.anonymous().role, None, NOTICES), (role, subject, seen))
        with self.refused("anonymous", DBAPIError, "42501"), self.session.begin_nested():
            self.session.execute(_FACTS)

    def expect(self, expected: tuple[Any, ...], found: tuple[Any, ...]) -> None:
        if found != expected:
            raise Violation(f"{expected} expected, {found} found")
        if self.session.info.pop("unchecked", False):
            self.tally["transactions", "checked"] += 1

    @contextmanager
    def unbound(self, kind: str, error: type[Exception]) -> Iterator[None]:
        """A transaction that must be refused when it begins, with *error*."""
        with self.refused(kind, error):
            yield
        self.tally["transactions", "refused"] += 1

    @contextmanager
    def refused(self, kind: str, error: type[Exception], state: str | None = None) -> Iterator[None]:
        with self.ends_in("refusal", kind, error, state):
            yield

    @contextmanager
    def ends_in(
        self, what: str, kind: str, error: type[Exception], state: str | None = None
    ) -> Iterator[None]:
        """Must end in *error*, with SQLSTATE *state*."""
        try:
            yield
        except error as outcome:
            if state is not None and sqlstate(outcome) != state:
                raise
            self.tally[what, kind] += 1
        else:
            raise Violation(f"{kind}: {error.__name__} expected, and nothing was raised")

    def _one(self, statement: Any, **parameters: Any) -> tuple[Any, ...]:
        return tuple(self.session.execute(statement, parameters).one())


def check_nothing_left(
    connection: Connection, chance: Random, tally: Tally, *, in_transaction: bool = False
) -> None:
    """Nobody is bound to *connection*, fresh from the pool, and nothing may be read through it."""
    driver_connection = connection.connection.driver_connection
    if isinstance(driver_connection, DriverConnection):
        # The reset ahead of a transaction without a binding would hide what a binding has left.
        driver_connection.leftovers = None
    left = tuple(connection.execute(_LEFT).one())
    if left != (True, "none", ""):
        raise Violation(f"left on a connection: {left}")
    tally["checks", "raw connections found clean"] += 1
    if not in_transaction and chance.random() < 0.2:
        try:
            seen = connection.scalar(_FACTS)
        except DBAPIError as error:
            if sqlstate(error) != "42501":
                raise
            tally["refusal", "unbound connection"] += 1
        else:
            raise Violation(f"{seen} facts counted without a caller")


def sever(connection: Connection) -> None:
    """Close its socket under the driver."""
    driver: Any = connection.connection.driver_connection
    if hasattr(driver, "pgconn"):
        with socket.socket(fileno=os.dup(driver.pgconn.socket)) as copy:
            copy.shutdown(socket.SHUT_RDWR)
    else:
        driver.terminate()
