"""Binding inside an asyncpg connection: BEGIN and the binding are one message, unless it may not be a text.

asyncpg's Transaction begins with ``Connection.execute("BEGIN …;")``.  Outside of a transaction, all else is
refused while there is a binding.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
from sqlalchemy import Connection as SQLAlchemyConnection
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver.base import (
    ENDED,
    MARK,
    Binding,
    DriverConnection,
    NotDiscarded,
    Transport,
    require_unexpired,
)
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused, UnsupportedTransaction


class Connection(asyncpg.Connection, DriverConnection):  # type: ignore[misc] # asyncpg isn't typed
    """Sends its binding with BEGIN."""

    _in_text = True

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._choose_mark()
        self._encoding = self._reported_encoding

    @property
    def idle(self) -> bool:
        # Once terminated it doesn't know whether it is in one; but what comes next says that it is closed.
        return not self.is_closed() and not self.is_in_transaction()

    def queue(self, binding: Binding, transport: Transport) -> bool:
        if transport == "pipeline":
            raise UnsupportedTransaction("asyncpg has no pipeline: use transport='with_begin'")
        if not self.idle:
            return False
        self._in_text = not binding.confidential or (transport == "with_begin" and not binding.transferable)
        self.binding = binding
        return True

    def _reported(self) -> str | None:
        # While one is opened it may be that of a server which reports less, such as a pooler's.
        return getattr(self.get_settings(), MARK, None)

    @property
    def is_readable(self) -> bool:
        """Whether the server answers in the encoding that the connection began with.

        Python has no codec for some that Postgres has, such as EUC_TW; asyncpg fails with each report of one.
        """
        return self._reported_encoding == self._encoding

    @property
    def _reported_encoding(self) -> str | None:
        return getattr(self.get_settings(), "client_encoding", None)

    @property
    def is_lost(self) -> bool:
        # asyncpg itself says of a closed connection that it is closed.
        return not self.is_closed() and super().is_lost

    async def require_in_force(self) -> None:
        """Raise TransactionRefused in a transaction that isn't the one that was bound."""
        if not self.is_lost:
            return
        if not self.idle:
            try:
                await super().execute("SELECT 1")
            except asyncpg.InFailedSQLTransactionError:
                # Its settings are gone, too; Postgres refuses by itself.
                return
        raise TransactionRefused(ENDED)

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:
        binding = self.binding
        if query in _ENDS:
            return await super().execute(query, *args, timeout=timeout)
        if binding is None or not self.idle:
            await self.require_in_force()
            return await super().execute(query, *args, timeout=timeout)
        if args or not query.startswith("BEGIN"):
            raise UnsupportedTransaction(_NO_TRANSACTION)
        if binding.modes is not None:
            # Of modes that are given twice the last counts: what asyncpg has asked for.
            query = f"{query.replace('BEGIN', binding.modes.begin(), 1)} RESET ALL; "
        require_unexpired(binding.expires_at)
        if self.discards:
            self.last_discard_key = None
            try:
                # Postgres refuses it in one message with BEGIN.
                await super().execute("DISCARD ALL", timeout=timeout)
            except asyncpg.PostgresError as error:
                if self.is_closed():
                    raise
                raise NotDiscarded from error
        try:
            if self._in_text:
                answer = await super().execute(query + binding.literal(), timeout=timeout)
            else:
                parameters = binding.parameters()
                answer = await super().execute(query, timeout=timeout)
                await super().fetchrow(binding.query(), *parameters, timeout=timeout)
        except asyncpg.PostgresError as error:
            if self.is_closed():
                raise
            raise binding.refused(getattr(error, "sqlstate", None)) from error
        except BaseException:
            # It isn't the server that has refused, and what has reached it isn't known.
            self.terminate()
            raise
        self.last_discard_key = binding.discard_key
        return answer

    def cursor(self, *args: Any, **kw: Any) -> Any:
        # It prepares its statement by methods that aren't the connection's.
        if self.binding is not None and self.idle:
            raise UnsupportedTransaction(_NO_TRANSACTION)
        if self.is_lost:
            raise TransactionRefused(ENDED)
        return super().cursor(*args, **kw)


_NO_TRANSACTION: Final = "asyncpg binds a caller with BEGIN: start a transaction first"
#: By which asyncpg's Transaction ends.
_ENDS: Final = frozenset({"COMMIT;", "ROLLBACK;"})


def _in_transaction(name: str) -> Any:
    inherited = getattr(asyncpg.Connection, name)

    async def method(self: Connection, *args: Any, **kw: Any) -> Any:
        if self.binding is not None and self.idle:
            raise UnsupportedTransaction(_NO_TRANSACTION)
        await self.require_in_force()
        return await inherited(self, *args, **kw)

    return method


for _name in (
    *("executemany", "fetch", "fetchmany", "fetchrow", "fetchval", "prepare"),
    *("copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table"),
):
    setattr(Connection, _name, _in_transaction(_name))


#: Arguments of connect() by which no prepared statement is kept, by asyncpg or by SQLAlchemy.
UNPREPARED: Final[dict[str, Any]] = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def listen(engine: Engine) -> None:
    """Listen to what ends a binding."""
    event.listen(engine, "handle_error", _discard)
    event.listen(engine, "checkin", _forget)
    event.listen(engine, "before_cursor_execute", _require_in_force)


def with_settings(cparams: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """*cparams* with *settings* among the startup parameters; those that are there win."""
    return {**cparams, "server_settings": {**settings, **(cparams.get("server_settings") or {})}}


def connect(dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
    """Open a connection of ours, unless the application has a class of its own."""
    return dialect.connect(*cargs, **{"connection_class": Connection, **cparams})


def _discard(context: ExceptionContext) -> None:
    # A Transaction of asyncpg whose BEGIN failed can't be rolled back, and its connection has no other.
    error = context.original_exception
    if isinstance(error, BindingError | ExpiredToken) and not isinstance(error, TransactionRefused):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _require_in_force(connection: SQLAlchemyConnection, *_: Any) -> None:
    # For the statements that SQLAlchemy has prepared before: they ask the driver's connection nothing.
    proxied: Any = connection.connection
    driver_connection = proxied.driver_connection
    if not isinstance(driver_connection, DriverConnection):
        return
    if driver_connection.binding is not None and driver_connection.idle:
        # Else the adapter begins next.
        if proxied.dbapi_connection._transaction is not None:
            raise TransactionRefused(ENDED)
    elif driver_connection.is_lost:
        proxied.dbapi_connection.run_async(lambda ours: ours.require_in_force())


def _forget(connection: Any, record: Any) -> None:
    # The adapter sends no COMMIT where nothing was executed, so that nothing else says it is over.
    # Not isinstance(…, Connection): to asyncpg's metaclass all of its own are instances.
    if connection is None or not isinstance(connection.driver_connection, DriverConnection):
        return
    driver_connection: Any = connection.driver_connection
    driver_connection.binding = driver_connection.executed = None
    if not (driver_connection.idle and driver_connection.is_readable):
        # Its ROLLBACK has failed: the next caller could begin no transaction, or end none.
        record.invalidate()
