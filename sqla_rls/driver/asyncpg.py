"""Binding inside an asyncpg connection.

BEGIN and the binding are one message, unless the binding must not be part of a text.  asyncpg's Transaction
begins with ``Connection.execute("BEGIN …;")``.  While a binding is queued, the connection refuses every
other statement outside a transaction.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any, Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement as _PreparedStatement
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver.base import (
    BEGIN_RESET,
    ENDED,
    MARK,
    Binding,
    BindingTemplate,
    DriverConnection,
    Modes,
    NotDiscarded,
    Transport,
    require_unexpired,
)
from sqla_rls.exc import BindingError, ExpiredToken, TransactionRefused, UnsupportedTransaction


class Connection(asyncpg.Connection, DriverConnection):  # type: ignore[misc] # asyncpg isn't typed
    """An asyncpg connection that sends its binding with BEGIN."""

    _in_text = True
    #: Whether a transaction has begun with the binding.
    _has_begun = False
    #: The modes of a binding, a BEGIN statement, and the latter with these modes.
    _begun: tuple[Modes | None, str, str] = (None, "", "")
    #: The query of the last binding with parameters, and its unnamed statement.
    _unnamed: tuple[str, Any] | None = None

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        #: The settings that the server has reported last.
        self._reports: Any = self.get_settings()
        self._choose_mark()
        self._encoding = getattr(self._reports, "client_encoding", None)

    @property
    def idle(self) -> bool:
        # A terminated connection can't tell whether it is in a transaction, and a closed one has no protocol.
        # Its next statement says that it is closed.
        protocol: Any = self._protocol
        return (
            protocol is not None
            and protocol.is_connected()
            and not self._aborted
            and not protocol.is_in_transaction()
        )

    def queue(self, binding: Binding, transport: Transport) -> bool:
        if transport == "pipeline":
            raise UnsupportedTransaction(
                "the caller can't be bound with transport='pipeline': asyncpg has no pipeline. "
                "Use transport='with_begin'"
            )
        if not self.idle:
            return False
        self._has_begun = self.is_ended = False
        template = binding.template
        if template.modes is not None:
            self.leftovers = template
        self._in_text = not template.confidential or (transport == "with_begin" and not template.transferable)
        self.binding = binding
        return True

    def _reported(self) -> str | None:
        # A pooler may report fewer settings than Postgres does.
        return getattr(self._reports, MARK, None)

    @property
    def is_readable(self) -> bool:
        """Whether the server answers in the encoding that the connection began with.

        Python has no codec for some encodings of Postgres, such as EUC_TW.  asyncpg fails when the server
        reports such an encoding.
        """
        return bool(getattr(self._reports, "client_encoding", None) == self._encoding)

    @property
    def is_lost(self) -> bool:
        # asyncpg itself raises an error for a closed connection.
        return not self.is_closed() and super().is_lost

    @property
    def _is_in_force(self) -> bool:
        """Whether no check is necessary; False if that is unknown."""
        bound = self.binding or self.executed
        if bound is None:
            return self.leftovers is None or not self.idle
        protocol: Any = self._protocol
        return (
            protocol is not None
            and not self.is_ended
            and protocol.is_in_transaction()
            and bound.template.mark is not None
            and getattr(self._reports, MARK, None) == bound.template.mark
        )

    def _require_transaction(self) -> None:
        """Raise an error if the binding waits for a transaction."""
        if self.binding is not None and self.idle:
            if self._has_begun or self.is_ended:
                raise TransactionRefused(ENDED)
            raise UnsupportedTransaction(_NO_TRANSACTION)

    async def require_in_force(self) -> None:
        """Raise TransactionRefused if the transaction in progress isn't the bound one.

        Emits:
            The reset of what the last caller has left, outside a transaction and without a binding.
        """
        if self.binding is None and self.executed is None:
            if (left := self.leftovers) is not None and self.idle:
                await super().execute("; ".join(left.resets(local=False)))
                self._has_reset(left)
            return
        if not self.is_lost:
            return
        if not self.idle and not self.is_ended:
            try:
                await super().execute("SELECT 1")
            except asyncpg.InFailedSQLTransactionError:
                # Postgres refuses the statement itself.
                return
        raise TransactionRefused(ENDED)

    def execute(self, query: str, *args: Any, timeout: float | None = None) -> CoroutineType[Any, Any, Any]:
        # BEGIN needs the longer way, if there is a binding.
        if query in _ENDS or (not query.startswith("BEGIN") and self._is_in_force):
            if self.executed is not None and query in _ENDS:
                self.is_ended = True
            execution: Any = super().execute(query, *args, timeout=timeout)
        else:
            execution = self._execute_bound(query, *args, timeout=timeout)
        coroutine: CoroutineType[Any, Any, Any] = execution
        return coroutine

    async def _execute_bound(self, query: str, *args: Any, timeout: float | None) -> Any:
        binding = self.binding
        if self.is_ended and self.idle:
            # asyncpg keeps the Transaction whose BEGIN it sends here, also if that fails.
            self._top_xact = None
            raise TransactionRefused(ENDED)
        if binding is None or not self.idle:
            left = self.leftovers
            if (
                binding is None
                and self.executed is None
                and left is not None
                and query in _BEGINS
                and self.idle
            ):
                return await self._begin_unbound(query, left, timeout)
            await self.require_in_force()
            return await super().execute(query, *args, timeout=timeout)
        if args or query not in _BEGINS:
            self._require_transaction()
        if (modes := binding.template.modes) is not None:
            query = self._with_modes(query, modes)
        if binding.expires_at is not None:
            require_unexpired(binding.expires_at)
        if binding.discard_key is not None and self.discards:
            self.last_discard_key = None
            try:
                # Postgres refuses DISCARD ALL in one message with BEGIN.
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
                await self._bind_by_parameters(binding.template.query, parameters, timeout)
        except asyncpg.PostgresError as error:
            if self.is_closed():
                raise
            raise binding.refused(getattr(error, "sqlstate", None)) from error
        except BaseException:
            # The error isn't the server's, so it is unknown how much has reached the server.
            self.terminate()
            raise
        self.last_discard_key = binding.discard_key
        self._has_begun = True
        return answer

    async def _begin_unbound(self, begin: str, left: BindingTemplate, timeout: float | None) -> Any:
        if left.pooled:
            text = "; ".join([begin.removesuffix(";"), *left.resets(local=True)])
        else:
            # Committed, so that the application's own settings stay, also after its rollback.
            text = "; ".join([BEGIN_RESET, *left.resets(local=False), "COMMIT", begin])
        answer = await super().execute(text, timeout=timeout)
        self._has_reset(left)
        return answer

    def _has_reset(self, left: BindingTemplate) -> None:
        if not left.pooled:
            self.leftovers = None

    async def _bind_by_parameters(self, query: str, parameters: list[str], timeout: float | None) -> None:
        # Unnamed: SQL of the last caller may have replaced a statement of asyncpg's cache.
        if self._unnamed is None or self._unnamed[0] != query:
            statement = await super().prepare(query, name="", timeout=timeout)
            # From now on, each execution sends the text in one message with the parameters.
            statement._state.mark_unprepared()
            self._unnamed = query, statement
        await self._unnamed[1].fetchrow(*parameters, timeout=timeout)

    def _with_modes(self, begin: str, modes: Modes) -> str:
        if self._begun[0] is not modes or self._begun[1] != begin:
            # If BEGIN names a mode twice, the last one counts: the one that asyncpg has written.
            self._begun = modes, begin, f"{begin.replace('BEGIN', modes.begin(), 1)} RESET ALL; "
        return self._begun[2]

    async def prepare(self, *args: Any, **kw: Any) -> Any:
        self._require_transaction()
        await self.require_in_force()
        statement = await super().prepare(*args, **kw)
        # SQLAlchemy caches it, and executes it without a call to this connection.
        statement.__class__ = PreparedStatement
        return statement

    def cursor(self, *args: Any, **kw: Any) -> Any:
        # A cursor prepares its statement by methods outside this class.
        self._require_transaction()
        if self.is_lost:
            raise TransactionRefused(ENDED)
        return super().cursor(*args, **kw)


_NO_TRANSACTION: Final = (
    "the statement can't run: asyncpg binds a caller with BEGIN, and there is no transaction. "
    "Start a transaction first"
)
#: The statements that begin an asyncpg Transaction.  Another text could run statements before the binding.
_BEGINS: Final = frozenset(
    f"BEGIN{level}{read_only}{deferrable};"
    for level in (
        "",
        *(" ISOLATION LEVEL READ COMMITTED", " ISOLATION LEVEL READ UNCOMMITTED"),
        *(" ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE"),
    )
    for read_only in ("", " READ ONLY")
    for deferrable in ("", " DEFERRABLE")
)
#: The statements that end an asyncpg Transaction.
_ENDS: Final = frozenset({"COMMIT;", "ROLLBACK;"})


def _in_transaction(name: str) -> Any:
    inherited = getattr(asyncpg.Connection, name)

    async def method(self: Connection, *args: Any, **kw: Any) -> Any:
        self._require_transaction()
        await self.require_in_force()
        return await inherited(self, *args, **kw)

    return method


for _name in (
    *("executemany", "fetch", "fetchmany", "fetchrow", "fetchval"),
    *("copy_from_query", "copy_from_table", "copy_records_to_table", "copy_to_table"),
):
    setattr(Connection, _name, _in_transaction(_name))


class PreparedStatement(_PreparedStatement):  # type: ignore[misc] # asyncpg isn't typed
    """A prepared statement that runs in the bound transaction only."""

    __slots__ = ()

    def cursor(self, *args: Any, **kw: Any) -> Any:
        self._connection._require_transaction()
        if self._connection.is_lost:
            raise TransactionRefused(ENDED)
        return super().cursor(*args, **kw)


def _in_force(name: str) -> Any:
    inherited = getattr(_PreparedStatement, name)

    async def checked(self: PreparedStatement, *args: Any, **kw: Any) -> Any:
        self._connection._require_transaction()
        await self._connection.require_in_force()
        return await inherited(self, *args, **kw)

    def method(self: PreparedStatement, *args: Any, **kw: Any) -> Any:
        return (inherited if self._connection._is_in_force else checked)(self, *args, **kw)

    return method


for _name in ("executemany", "explain", "fetch", "fetchmany", "fetchrow", "fetchval"):
    if hasattr(_PreparedStatement, _name):  # fetchmany() is new in asyncpg 0.30
        setattr(PreparedStatement, _name, _in_force(_name))


#: Arguments of connect() that keep asyncpg and SQLAlchemy from caching prepared statements.
UNPREPARED: Final[dict[str, Any]] = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def listen(engine: Engine) -> None:
    """Listen to the events of *engine* that end a binding."""
    event.listen(engine, "handle_error", _discard)
    event.listen(engine, "checkin", _forget)


def with_settings(cparams: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
    """Return *cparams* with *settings* added to the startup parameters; existing parameters win."""
    return {**cparams, "server_settings": {**settings, **(cparams.get("server_settings") or {})}}


def startup(driver_connection: Any) -> dict[str, Any]:
    """Return nothing: ``with_settings()`` overrides no setting."""
    return {}


def connect(dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
    """Open a ``Connection``, unless *cparams* name a connection class of the application."""
    adapter: Any = dialect.connect(*cargs, **{"connection_class": Connection, **cparams})
    # Not isinstance(…, Connection): asyncpg's metaclass counts its own connections as instances.
    if isinstance(adapter.driver_connection, DriverConnection):
        # A Transaction of the application's own doesn't end the transaction of the session.
        adapter.__class__ = Adapter
    return adapter


class Adapter(AsyncAdapt_asyncpg_connection):
    """SQLAlchemy's adapter of a ``Connection``, which refuses statements after a commit or rollback."""

    __slots__ = ()

    def commit(self) -> None:
        connection: Any = self._connection
        connection.is_ended = connection.binding is not None or connection.executed is not None
        super().commit()  # type: ignore[no-untyped-call] # in SQLAlchemy

    def rollback(self) -> None:
        connection: Any = self._connection
        connection.is_ended = connection.binding is not None or connection.executed is not None
        super().rollback()  # type: ignore[no-untyped-call] # in SQLAlchemy


def _discard(context: ExceptionContext) -> None:
    # A Transaction of asyncpg can't be rolled back if its BEGIN has failed.
    error = context.original_exception
    if isinstance(error, BindingError | ExpiredToken) and not isinstance(error, TransactionRefused):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _forget(connection: Any, record: Any) -> None:
    # If no statement was executed, the adapter sends no COMMIT, and the binding is still queued.
    if not isinstance(connection, Adapter):
        return
    driver_connection: Any = connection._connection
    if driver_connection.binding is not None or driver_connection.executed is not None:
        driver_connection.drop()
    if not (driver_connection.idle and driver_connection.is_readable):
        # Its ROLLBACK has failed, so the next caller couldn't begin or end a transaction.
        record.invalidate()
