"""Binding inside an asyncpg connection.

asyncpg's Transaction begins with ``Connection.execute("BEGIN …;")``.  While a binding is queued, the
connection refuses every other statement outside a transaction.  If SQLAlchemy begins, BEGIN and the binding
wait for a prepared statement, and go ahead of it in one flush.  Elsewhere they go ahead of an empty
statement.  With transport "with_begin" they are one message, unless the binding must not be part of a text.
In AUTOCOMMIT, the binding goes ahead of each prepared statement, without BEGIN.
"""

from __future__ import annotations

from types import CoroutineType
from typing import Any, Final

import asyncpg
from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine import ExceptionContext

from sqla_rls.driver import asyncpg_pipeline as pipeline
from sqla_rls.driver.asyncpg_adapters import (
    Adapter,
    CheckedCursor,
    PreparedStatement,
    WaitingTransaction,
)
from sqla_rls.driver.asyncpg_base import WaitingConnection
from sqla_rls.driver.base import (
    BEGIN_RESET,
    ENDED,
    MARK,
    Binding,
    BindingTemplate,
    DriverConnection,
    Modes,
    Transport,
    require_unexpired,
)
from sqla_rls.exc import TransactionRefused, UnsupportedTransaction


class Connection(WaitingConnection):
    """An asyncpg connection that sends its binding with BEGIN."""

    _in_text = True
    #: Whether a transaction has begun with the binding.
    _has_begun = False
    #: Whether the next BEGIN may wait for a statement.
    may_wait = False
    #: The modes of a binding, a BEGIN statement, and the latter with these modes.
    _begun: tuple[Modes | None, str, str] = (None, "", "")
    #: The query of the last binding with parameters, and its unnamed statement.
    _unnamed: tuple[str, Any] | None = None

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        #: The settings that the server has reported last.
        self._reports: Any = self.get_settings()
        self._choose_mark()
        self._encoding: str | None = getattr(self._reports, "client_encoding", None)
        # A pooler reports the name that asyncpg has sent, with its quotes.
        self._is_utf8 = (self._encoding or "").strip("'").replace("-", "").upper() == "UTF8"

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
            and self._waiting is None
            and protocol.queries_count != self._unreported_at
        )

    def queue(self, binding: Binding, transport: Transport) -> bool:
        if not self.idle:
            return False
        self._has_begun = self.is_ended = False
        template = binding.template
        if template.modes is not None:
            self.leftovers = template
        self.is_pipelined = transport != "with_begin" and self._is_utf8 and self.is_readable
        self._in_text = transport == "with_begin" and not (template.confidential and template.transferable)
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
        protocol: Any = self._protocol
        return not self.is_closed() and protocol.queries_count != self._unreported_at and super().is_lost

    @property
    def _is_in_force(self) -> bool:
        """Whether no check is necessary; False if that is unknown."""
        if self._waiting is not None:
            return False
        bound = self.binding or self.executed
        if bound is None:
            return self.leftovers is None or not self.idle
        protocol: Any = self._protocol
        return (
            protocol is not None
            and not self.is_ended
            and (
                protocol.queries_count == self._unreported_at
                or (
                    protocol.is_in_transaction()
                    and bound.template.mark is not None
                    and getattr(self._reports, MARK, None) == bound.template.mark
                )
            )
        )

    def _require_transaction(self) -> None:
        """Raise an error if the binding waits for a transaction."""
        if self.binding is not None and self.idle:
            if self.in_autocommit and not self.is_ended:
                raise UnsupportedTransaction(_ONE_STATEMENT)
            if self._has_begun or self.is_ended:
                raise TransactionRefused(ENDED)
            raise UnsupportedTransaction(_NO_TRANSACTION)

    async def require_in_force(self) -> None:
        """Raise TransactionRefused if the transaction in progress isn't the bound one.

        Emits:
            BEGIN and the binding, if they wait; or the reset of what the last caller has left, outside a
            transaction and without a binding.
        """
        if self._waiting is not None:
            await self.begin()
            return
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

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False
    ) -> Any:
        if self.may_wait and self._top_xact is None and not self.is_ended:
            begin = _BEGINS_BY_MODES.get((isolation, readonly, deferrable))
            if begin is not None:
                return WaitingTransaction(self, begin)
        return super().transaction(isolation=isolation, readonly=readonly, deferrable=deferrable)

    def defer(self, transaction: Any, begin: str) -> None:
        """Let *begin*, the BEGIN statement of *transaction*, wait for a statement."""
        self._waiting, self._has_begun, self._top_xact = begin, True, transaction

    def execute(self, query: str, *args: Any, timeout: float | None = None) -> CoroutineType[Any, Any, Any]:
        execution: Any
        if query in _ENDS and self._waiting is None:
            binding = self.binding
            if self.executed is not None:
                self.is_ended = True
            if binding is not None and binding.template.resets_at_end and self._answers is not None:
                execution = self._end_with_reset(query, timeout)
            else:
                execution = super().execute(query, *args, timeout=timeout)
        # BEGIN needs the longer way, if there is a binding.
        elif not query.startswith("BEGIN") and self._is_in_force:
            execution = super().execute(query, *args, timeout=timeout)
        else:
            execution = self._execute_bound(query, *args, timeout=timeout)
        coroutine: CoroutineType[Any, Any, Any] = execution
        return coroutine

    async def _execute_bound(self, query: str, *args: Any, timeout: float | None) -> Any:
        binding = self.binding
        if self._waiting is not None and query in _ENDS:
            # The server has seen nothing of the transaction.
            self._waiting, self.is_ended = None, True
            return query.removesuffix(";")
        # asyncpg keeps the Transaction whose BEGIN it sends here in _top_xact, also if that fails.
        if self.is_ended and self.idle:
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
        self._waiting, self._has_begun = query, True
        try:
            await self.begin(timeout)
        except BaseException:
            self._waiting, self._has_begun, self._top_xact = None, False, None
            raise
        return query

    async def begin(self, timeout: float | None = None) -> None:
        """Send BEGIN and the binding, if they wait.

        Raises:
            ExpiredToken: the caller has expired, and nothing was sent.
            BindingError: the server refuses.
        """
        if self._waiting is None:
            return
        protocol: Any = self._protocol
        if self.is_pipelined and protocol is not None and not protocol._is_cancelling():
            await self._begin_ahead(timeout)
            return
        binding, query = self._waiting_binding(), self._waiting
        if binding.expires_at is not None:
            require_unexpired(binding.expires_at)
        if (modes := binding.template.modes) is not None:
            query = self._with_modes(query, modes)
        if self.discards:
            await self._discard(timeout)
        text = binding.literal() if self._in_text else ""
        parameters = [] if self._in_text else binding.parameters()
        self._waiting = None
        try:
            await super().execute(query + text, timeout=timeout)
            if not self._in_text:
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
            self._begun = modes, begin, f"{pipeline.with_modes(begin, modes)} RESET ALL; "
        return self._begun[2]

    async def prepare(self, *args: Any, **kw: Any) -> Any:
        if self._waiting is not None:
            statement = await self._prepare_first(*args, **kw)
        elif self.in_autocommit and self.is_one_shot:
            statement = await self.prepare_one_shot(*args, **kw)
        else:
            self._require_transaction()
            await self.require_in_force()
            statement = await super().prepare(*args, **kw)
        if not statement._state.name:
            # The next binding replaces the unnamed statement, so each execution sends the text.
            statement._state.mark_unprepared()
        # SQLAlchemy caches it, and executes it without a call to this connection.
        statement.__class__ = PreparedStatement
        return statement

    def cursor(self, *args: Any, **kw: Any) -> Any:
        # A cursor prepares its statement by methods outside this class.
        self._require_transaction()
        cursor = super().cursor(*args, **kw)
        return CheckedCursor(self, cursor) if self.is_lost else cursor


_NO_TRANSACTION: Final = (
    "the statement can't run: asyncpg binds a caller with BEGIN, and there is no transaction. "
    "Start a transaction first"
)
_ONE_STATEMENT: Final = (
    "the statement can't run: in AUTOCOMMIT, asyncpg binds single prepared statements only. Set another "
    "isolation level"
)
#: The statements that begin an asyncpg Transaction, by its isolation level, and whether it is read-only and
#: deferrable.
_BEGINS_BY_MODES: Final = {
    (level, readonly, deferrable): "".join(
        (
            "BEGIN",
            "" if level is None else f" ISOLATION LEVEL {level.replace('_', ' ').upper()}",
            " READ ONLY" if readonly else "",
            " DEFERRABLE" if deferrable else "",
            ";",
        )
    )
    for level in (None, "read_committed", "read_uncommitted", "repeatable_read", "serializable")
    for readonly in (False, True)
    for deferrable in (False, True)
}
#: Another text could run statements before the binding.
_BEGINS: Final = frozenset(_BEGINS_BY_MODES.values())
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


_NO_SUCH_STATEMENT: Final = "26000"
#: The start of the names that asyncpg makes.
_PREPARED: Final = "__asyncpg_"

#: Arguments of connect() that keep asyncpg and SQLAlchemy from caching prepared statements.
UNPREPARED: Final[dict[str, Any]] = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def listen(engine: Engine) -> None:
    """Listen to the events of *engine* that end a binding or invalidate a connection."""
    event.listen(engine, "checkin", _forget)
    event.listen(engine, "handle_error", _replace)


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


def _replace(context: ExceptionContext) -> None:
    # SQL text may have removed the statements that asyncpg has prepared.  SQLAlchemy still has them, and each
    # later caller would have the same error.
    error, connection = context.original_exception, context.connection
    if (
        getattr(error, "sqlstate", None) == _NO_SUCH_STATEMENT
        and connection is not None
        and _has_prepared(connection.connection.dbapi_connection, str(error))
    ):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _has_prepared(adapter: Any, message: str) -> bool:
    """Return whether *message* names a statement that asyncpg or SQLAlchemy has prepared."""
    cache: Any = getattr(adapter, "_prepared_statement_cache", None) or {}
    names = [prepared[0]._state.name for prepared in cache.values()]
    return _PREPARED in message or any(name and name in message for name in names)


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
