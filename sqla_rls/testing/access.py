"""Assertions about the rows that a caller reaches, for the tests of an app.

They run on a connection of the owner, in a transaction that the test rolls back.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from datetime import datetime
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Executable, MetaData, Table, TextClause, text
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls.exc import (
    AccessDenied,
    DeclarationError,
)
from sqla_rls.session.enforce import enforce_row_security, identify
from sqla_rls.session.options import BindingOptions
from sqla_rls.testing import assertions
from sqla_rls.testing.assertions import DenialReason
from sqla_rls.testing.clock import FrozenTime, frozen_time, seconds_of
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


class Access:
    """Sessions of callers on one connection, and assertions about the rows that they reach.

    ::

        @pytest.fixture
        def access(owner_engine):
            with owner_engine.connect() as connection, connection.begin() as transaction:
                yield Access(connection)
                transaction.rollback()

        def test_alice_sees_her_own_todos(access, todo_of_alice, todo_of_bob):
            with access.as_caller("alice"):
                access.assert_visible(select(Todo), [todo_of_alice])
                access.assert_hidden(todo_of_bob)

    Args:
        connection: a connection of the owner, in a transaction.  The owner must be a superuser, or a role
            that may SET ROLE to the callers' roles.
        signing_key: the key, where the database verifies callers.
    """

    def __init__(self, connection: Connection, *, signing_key: SigningKey | None = None) -> None:
        self._connection, self._signing_key = connection, signing_key
        self._sessions = sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
        enforce_row_security(
            self._sessions, check_login_role=False, signing_key=signing_key, options=_options(signing_key)
        )
        self._current: list[tuple[Caller, Session]] = []

    @contextmanager
    def as_caller(
        self,
        subject: str | None,
        *,
        role: str = "authenticated",
        expires_at: datetime | float | None = None,
        **claims: Any,
    ) -> Iterator[Session]:
        """Return a session that runs as a caller; the assertions inside are about this caller.

        Args:
            subject: the subject; None for a caller without one.
            role: the role.
            expires_at: the end of the caller, as an aware datetime, or in seconds since the epoch.
            claims: more claims.
        """
        caller = _caller(role, subject, claims, expires_at)
        with self._sessions() as session:
            identify(session, caller)
            self._current.append((caller, session))
            try:
                yield session
            finally:
                self._current.pop()

    def as_anonymous(self, role: str = "anonymous") -> Any:
        """Return a session of a caller without a token, as ``as_caller()`` does."""
        return self.as_caller(None, role=role)

    def as_role(self, name: str) -> Any:
        """Return a session of role *name* without a subject, as ``as_caller()`` does."""
        return self.as_caller(None, role=name)

    def frozen(self, at: datetime | float | None = None) -> AbstractContextManager[FrozenTime]:
        """Freeze the time by which callers and tokens expire, as ``frozen_time()`` does.

        ::

            with access.frozen() as time:
                with access.as_caller("alice", expires_at=time.now + timedelta(hours=1)):
                    access.assert_visible(select(Todo), [todo])
                    time.advance(3600)
                    access.assert_expired()

        Args:
            at: an aware datetime, or seconds since the epoch; None is the present, in whole seconds.
        """
        return frozen_time(at)

    def assert_expired(self) -> None:
        """Fail unless the next transaction of the caller is refused, since the caller has expired.

        It rolls the session's transaction back first.
        """
        _, session = self._now()
        assertions.assert_expired(session)

    def assert_visible(self, query: Executable, rows: Collection[Any]) -> None:
        """Fail unless *query* returns exactly *rows*, in any order.

        Rows are instances, values, or tuples.  The message explains why the caller can't see an instance.
        """
        caller, session = self._now()
        assertions.assert_visible(session, caller, query, rows, self._signing_key)

    def assert_hidden(self, instance: Any) -> None:
        """Fail if the caller can see the row of *instance*; the message has the policies that show it.

        Filters of the ORM don't count.  An inherited row must be hidden in each of its tables.

        Args:
            instance: a loaded object, or a new one with the primary key: ``Todo(id=2)``.

        Raises:
            DeclarationError: *instance* has no primary key, or there is no such row.
        """
        caller, session = self._now()
        assertions.assert_hidden(session, caller, instance, self._signing_key)

    def assert_denied(self, work: Callable[[Session], Any], reason: DenialReason | None = None) -> None:
        """Fail unless Postgres denies the statements of *work*, or of the flush after it.

        Args:
            work: a function of the caller's session.
            reason: "policy" or "privilege"; None takes either.
        """
        _, session = self._now()
        assertions.assert_denied(session, work, reason)

    def assert_isolated(self, metadata: MetaData, *, public: Collection[Table] = ()) -> None:
        """Fail if a stranger, or an anonymous caller, can see a row of a table with policies.

        A table without rows is isolated.  The strangers' subjects are a uuid and an integer, as text.

        Args:
            metadata: the tables.
            public: tables with rows that everyone may read.

        Raises:
            DeclarationError: none of the tables with policies has a row, or the policies of a table read
                neither subject.
        """
        assertions.require_rows(self._connection, metadata, public)
        seen: list[assertions.Seen] = []
        for subject in assertions.strangers():
            with self.as_caller(subject) as session:
                caller, known = self._now()[0], [*public, *(table for one in seen for table in one.tables)]
                seen.append(assertions.rows_seen(session, caller, metadata, known, self._signing_key))
        with self.as_anonymous() as session:
            others = assertions.rows_seen(session, self._now()[0], metadata, public, self._signing_key)
        assertions.require_isolated(seen, others)

    def assert_rows(self, statement: str, count: int) -> None:
        """Fail unless *statement*, SQL text, shows or changes exactly *count* rows; a denial is 0 rows.

        What the statement changes is undone.  ``sqla-rls prove`` prints such tests.
        """
        assertions.assert_rows(self._now()[1], statement, count)

    def add_rows(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Insert *rows* as the owner, outside of ``as_caller()``.

        Args:
            table: the name of the table as SQL.
            *rows: JSON values by the names of the columns; an identity column takes the given value.
        """
        if self._current:
            raise DeclarationError(_NOT_THE_OWNER)
        for row in rows:
            self._connection.execute(*_insertion(self._connection, table, row))

    def _now(self) -> tuple[Caller, Session]:
        if not self._current:
            raise DeclarationError("the assertion has no caller: write it inside `with access.as_caller(…):`")
        return self._current[-1]


class AsyncAccess:
    """The same for asyncio: ``async with access.as_caller("alice") as session:``."""

    def __init__(self, connection: AsyncConnection, *, signing_key: SigningKey | None = None) -> None:
        from sqlalchemy.ext.asyncio import async_sessionmaker

        self._connection, self._signing_key = connection, signing_key
        self._sessions = async_sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
        enforce_row_security(
            self._sessions, check_login_role=False, signing_key=signing_key, options=_options(signing_key)
        )
        self._current: list[tuple[Caller, AsyncSession]] = []

    @asynccontextmanager
    async def as_caller(
        self,
        subject: str | None,
        *,
        role: str = "authenticated",
        expires_at: datetime | float | None = None,
        **claims: Any,
    ) -> AsyncIterator[AsyncSession]:
        """Return a session that runs as a caller, as ``Access.as_caller()`` does."""
        caller = _caller(role, subject, claims, expires_at)
        async with self._sessions() as session:
            identify(session, caller)
            self._current.append((caller, session))
            try:
                yield session
            finally:
                self._current.pop()

    def as_anonymous(self, role: str = "anonymous") -> Any:
        """Return a session of a caller without a token, as ``as_caller()`` does."""
        return self.as_caller(None, role=role)

    def as_role(self, name: str) -> Any:
        """Return a session of role *name* without a subject, as ``as_caller()`` does."""
        return self.as_caller(None, role=name)

    def frozen(self, at: datetime | float | None = None) -> AbstractContextManager[FrozenTime]:
        """Freeze the time by which callers and tokens expire, as ``Access.frozen()`` does."""
        return frozen_time(at)

    async def assert_expired(self) -> None:
        """Fail unless the next transaction of the caller is refused, since the caller has expired."""
        _, session = self._now()
        await session.run_sync(assertions.assert_expired)

    async def assert_visible(self, query: Executable, rows: Collection[Any]) -> None:
        """Fail unless *query* returns exactly *rows*, as ``Access.assert_visible()`` does."""
        caller, session = self._now()
        await session.run_sync(assertions.assert_visible, caller, query, rows, self._signing_key)

    async def assert_hidden(self, instance: Any) -> None:
        """Fail if the caller can see the row of *instance*."""
        caller, session = self._now()
        await session.run_sync(assertions.assert_hidden, caller, instance, self._signing_key)

    async def assert_denied(
        self, work: Callable[[AsyncSession], Any], reason: DenialReason | None = None
    ) -> None:
        """Fail unless Postgres denies what *work* does, a function or coroutine function, or the flush."""
        _, session = self._now()
        savepoint = await session.begin_nested()
        try:
            if isawaitable(done := work(session)):
                await done
            await session.flush()
        except AccessDenied as denial:
            assertions.require_reason(denial, reason)
        else:
            raise AssertionError(assertions.NOT_DENIED)
        finally:
            await savepoint.rollback()

    async def assert_isolated(self, metadata: MetaData, *, public: Collection[Table] = ()) -> None:
        """Fail if a stranger, or an anonymous caller, can see a row of a table with policies."""
        await self._connection.run_sync(assertions.require_rows, metadata, public)
        seen: list[assertions.Seen] = []
        for subject in assertions.strangers():
            async with self.as_caller(subject) as session:
                caller, known = self._now()[0], [*public, *(table for one in seen for table in one.tables)]
                seen.append(
                    await session.run_sync(assertions.rows_seen, caller, metadata, known, self._signing_key)
                )
        async with self.as_anonymous() as session:
            others = await session.run_sync(
                assertions.rows_seen, self._now()[0], metadata, public, self._signing_key
            )
        assertions.require_isolated(seen, others)

    async def assert_rows(self, statement: str, count: int) -> None:
        """Fail unless *statement* shows or changes exactly *count* rows; a denial is 0 rows."""
        await self._now()[1].run_sync(assertions.assert_rows, statement, count)

    async def add_rows(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Insert *rows* as the owner, as ``Access.add_rows()`` does."""
        if self._current:
            raise DeclarationError(_NOT_THE_OWNER)
        for row in rows:
            await self._connection.execute(*_insertion(self._connection, table, row))

    def _now(self) -> tuple[Caller, AsyncSession]:
        if not self._current:
            raise DeclarationError(
                "the assertion has no caller: write it inside `async with access.as_caller(…):`"
            )
        return self._current[-1]


def _caller(
    role: str, subject: str | None, claims: Mapping[str, Any], expires_at: datetime | float | None
) -> Caller:
    end = None if expires_at is None else seconds_of(expires_at)
    return Caller(role=role, subject=subject, claims=claims, expires_at=end)


_NOT_THE_OWNER = (
    "rows can't be added: inside as_caller() the connection isn't the owner's. Call add_rows() before it"
)


def _insertion(
    connection: Connection | AsyncConnection, table: str, row: Mapping[str, Any]
) -> tuple[TextClause, dict[str, str]]:
    if not isinstance(table, str):
        raise DeclarationError(f"rows can't be added to {table!r}: give the name of the table, as in SQL")
    quote = connection.dialect.identifier_preparer.quote_identifier
    names = ", ".join(map(quote, row)).replace(":", "\\:")
    target = table.replace(":", "\\:")
    source = f"pg_catalog.jsonb_populate_record(CAST(NULL AS {target}), CAST(:row AS pg_catalog.jsonb))"
    statement = f"INSERT INTO {target} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM {source}"  # noqa: S608
    return text(statement), {"row": json.dumps(row, default=str)}


def _options(signing_key: SigningKey | None) -> BindingOptions:
    return BindingOptions(
        signing="off" if signing_key is None else "required", transport="statement", reset="none"
    )
