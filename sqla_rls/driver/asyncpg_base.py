"""A statement of asyncpg with BEGIN and the binding ahead of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import asyncpg

from sqla_rls.driver import asyncpg_pipeline as pipeline
from sqla_rls.driver.base import ENDED, RESET, Binding, DriverConnection, NotDiscarded
from sqla_rls.exc import BindingError, TransactionRefused, UnsupportedTransaction

#: The time for a cancellation, as SQLAlchemy has it, in seconds.
_CANCELLATION: Final = 2.0


class WaitingConnection(asyncpg.Connection, DriverConnection):  # type: ignore[misc] # asyncpg isn't typed
    """A connection whose BEGIN and binding wait for a statement."""

    #: Whether BEGIN and the binding may go ahead of a statement.
    is_pipelined = False
    #: Whether SQLAlchemy begins no transaction.
    in_autocommit = False
    #: Whether the connection began with UTF-8.
    _is_utf8 = False
    #: The BEGIN statement that waits for a statement.
    _waiting: str | None = None
    #: The number of asyncpg's queries when BEGIN went ahead of a message that ends with no Sync.  Until the
    #: next query, the server reports no transaction.
    _unreported_at = -1
    #: The number of asyncpg's queries when RESET ALL was the last statement, after a transaction.
    _reset_at = -1
    _ahead: pipeline.Ahead | None = None
    _answers: pipeline.Answers | None = None
    #: asyncpg's state of an unnamed statement without text.
    _nothing: Any = None

    async def begin(self, timeout: float | None = None) -> None:
        """Send BEGIN and the binding, if they wait."""
        raise NotImplementedError

    async def _begin_ahead(self, timeout: float | None) -> None:
        """Send BEGIN and the binding ahead of a statement that does nothing."""
        try:
            if self._nothing is None:
                statement = await self._prepare_first("", name="", timeout=timeout)
                statement._state.mark_unprepared()
                # The statement itself would refer to the connection.
                self._nothing = statement._state
            protocol: Any = self._protocol
            fetch = partial(protocol.bind_execute, self._nothing, (), "", 0, False, timeout)
            await (self.fetch_first(fetch) if self._waiting is not None else fetch())
        except BaseException as error:
            if self._waiting is None and not isinstance(error, asyncpg.PostgresError | BindingError):
                # The error isn't the server's, so it is unknown how much has reached the server.
                self.terminate()
            raise

    async def _discard(self, timeout: float | None = None) -> None:
        waiting, self.last_discard_key = self._waiting, None
        try:
            # Postgres refuses DISCARD ALL in one message with BEGIN.
            await super().execute("DISCARD ALL", timeout=timeout)
        except asyncpg.PostgresError as error:
            if self.is_closed():
                raise
            self.terminate()
            raise NotDiscarded from error
        if self._waiting != waiting or self.is_ended:
            # The transaction has ended in the meantime.
            raise TransactionRefused(ENDED)

    def _waiting_binding(self) -> Binding:
        if (binding := self.binding) is None:
            # The session has dropped it.
            raise TransactionRefused(ENDED)
        return binding

    async def fetch_first(self, fetch: Callable[..., Awaitable[Any]], *args: Any, **kw: Any) -> Any:
        """Call *fetch*, which executes a prepared statement, with BEGIN and the binding ahead of it.

        Raises:
            ExpiredToken: the caller has expired, and nothing was sent.
            BindingError: the server refuses, and has skipped the statement.
        """
        protocol: Any = self._protocol
        if protocol is None or protocol._is_cancelling():
            self._require_waiting()
            await self.begin()
            return await fetch(*args, **kw)
        if self.discards:
            await self._discard()
        sent = protocol.queries_count
        binding = self._send_ahead()
        try:
            return await fetch(*args, **kw)
        except Exception as error:
            if protocol.queries_count == sent:
                # asyncpg has refused the statement, for example for the type of a parameter.
                await self._sync()
            self._require_accepted(binding, error)
            raise
        except asyncio.CancelledError:
            await self._give_up()
            raise
        except BaseException:
            self.terminate()
            raise

    async def _give_up(self) -> None:
        """Close the connection, once the server has cancelled the statement that it executes."""
        protocol: Any = self._protocol
        try:
            if protocol is not None and protocol._is_cancelling():
                await protocol._wait_for_cancellation(_CANCELLATION)
        except TimeoutError:
            pass
        finally:
            self.terminate()

    async def _prepare_first(self, *args: Any, **kw: Any) -> Any:
        """Prepare a statement, with BEGIN and the binding ahead of it, as ``fetch_first()``."""
        protocol: Any = self._protocol
        if protocol is None or protocol._is_cancelling():
            self._require_waiting()
            await self.begin()
            return await super().prepare(*args, **kw)
        if self.discards:
            await self._discard()
        is_one_shot = self._waiting is None
        binding = self._send_ahead()
        try:
            statement = await super().prepare(*args, **kw)
            if is_one_shot:
                # asyncpg ends a Parse with no Sync.  The binding must not wait for the next statement.
                await self._end_implicit_transaction()
            else:
                self._unreported_at = protocol.queries_count
        except asyncpg.PostgresError as error:
            self._require_accepted(binding, error)
            raise
        except (asyncio.CancelledError, TimeoutError):
            # The statement may wait for a lock.
            await self._give_up()
            raise
        except BaseException:
            # The error isn't the server's, so it is unknown how much has reached the server.
            self.terminate()
            raise
        return statement

    @property
    def is_one_shot(self) -> bool:
        """Whether the next statement is bound by itself, in its own implicit transaction."""
        return self.in_autocommit and self.binding is not None and self.idle and not self.is_ended

    async def fetch_one_shot(self, fetch: Callable[..., Awaitable[Any]], *args: Any, **kw: Any) -> Any:
        """Call *fetch*, which executes a prepared statement, with the binding ahead of it.

        Raises:
            ExpiredToken: the caller has expired, and nothing was sent.
            BindingError: the server refuses, and has skipped the statement.
            UnsupportedTransaction: the connection's encoding isn't UTF-8.
        """
        await self._make_ready()
        return await self.fetch_first(fetch, *args, **kw)

    async def prepare_one_shot(self, *args: Any, **kw: Any) -> Any:
        """Prepare a statement, with the binding ahead of it, as ``fetch_one_shot()``."""
        await self._make_ready()
        return await self._prepare_first(*args, **kw)

    async def _make_ready(self) -> None:
        """Wait until messages can go ahead of the next statement in AUTOCOMMIT."""
        protocol: Any = self._protocol
        if protocol._is_cancelling():
            await protocol._wait_for_cancellation()
        if not self.is_readable and self.binding is not None and self.binding.template.modes is not None:
            # What goes ahead is in UTF-8, and so is what asyncpg sends after RESET ALL.
            await super().execute(RESET)
        if not (self._is_utf8 and self.is_readable):
            raise UnsupportedTransaction(_NOT_UTF8)
        if not self.is_one_shot:
            # The transaction has ended in the meantime.
            raise TransactionRefused(ENDED)

    @property
    def is_readable(self) -> bool:
        """Whether the server answers in the encoding that the connection began with."""
        raise NotImplementedError

    def _require_waiting(self) -> None:
        """Raise TransactionRefused if no BEGIN waits: a statement would run without the binding."""
        if self._waiting is None:
            raise TransactionRefused(ENDED)

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:
        """Ask the server for types, for asyncpg; in AUTOCOMMIT, in a transaction of the caller."""
        introspect = super()._introspect_types
        if not self.is_one_shot:
            return await introspect(typeoids, timeout)
        try:
            await self._end_implicit_transaction()
            self._waiting = "BEGIN;"
            await self.begin(timeout)
            types = await introspect(typeoids, timeout)
            await super().execute("COMMIT;", timeout=timeout)
        except BaseException:
            self.terminate()
            raise
        return types

    async def _end_implicit_transaction(self) -> None:
        """Send a Sync."""
        if self._waiting_binding().template.pooled:
            # PgBouncer 1.18 may lose the messages that follow a Sync before its answer.
            await self._close_portal()
            return
        answers: Any = self._answers
        answers.expect(pipeline.IDLE)
        self._transport.write(pipeline.SYNC)

    async def _close_portal(self) -> None:
        # asyncpg has no other message that ends with a Sync and runs no statement.
        protocol: Any = self._protocol
        await protocol.close_portal("", None)

    @property
    def is_unreported(self) -> bool:
        """Whether a statement is prepared after BEGIN, and asyncpg knows of no transaction yet."""
        protocol: Any = self._protocol
        return protocol is not None and bool(protocol.queries_count == self._unreported_at)

    async def fetch_unreported(self, fetch: Callable[..., Awaitable[Any]], *args: Any, **kw: Any) -> Any:
        """Call *fetch*, which executes a prepared statement; afterwards asyncpg knows of the transaction."""
        try:
            return await fetch(*args, **kw)
        except Exception:
            if self.is_unreported:
                # asyncpg has refused the statement, for example for the type of a parameter.
                await self._report()
            raise

    def _send_ahead(self) -> Binding:
        """Send BEGIN, RESET ALL and the binding, as far as they wait, without a Sync; return the binding."""
        binding, begin = self._waiting_binding(), self._waiting or ""
        template, ahead = binding.template, self._ahead
        protocol: Any = self._protocol
        is_reset = protocol.queries_count == self._reset_at
        if (
            ahead is None
            or ahead.template is not template
            or ahead.is_reset is not is_reset
            or ahead.begin != begin
        ):
            ahead = self._ahead = pipeline.Ahead.of(template, begin, is_reset=is_reset)
        messages = ahead.messages(binding)
        self._waiting, self.last_discard_key = None, binding.discard_key
        try:
            if self._answers is None:
                self._answers = pipeline.Answers(self._transport, protocol)
            self._answers.expect(ahead.answer)
            self._transport.write(messages)
        except BaseException:
            self.terminate()
            raise
        return binding

    async def _end_with_reset(self, end: str, timeout: float | None) -> str:
        """End the transaction by *end*, with RESET ALL in the same message; return the tag of the command."""
        answers: Any = self._answers
        protocol: Any = self._protocol
        answers.kept = b""
        try:
            await super().execute(f"{end} {RESET}", timeout=timeout)
        except asyncpg.PostgresError:
            if not pipeline.has_completed(answers.kept):
                raise
            # The transaction has ended.  RESET ALL, which has failed, goes with the next BEGIN.
        else:
            self._reset_at = protocol.queries_count
        finally:
            answers.kept = None
        return end.removesuffix(";")

    def _require_accepted(self, binding: Binding, error: Exception) -> None:
        """Raise BindingError if *error* is that of BEGIN, RESET ALL or *binding*, which went ahead."""
        answers: Any = self._answers
        if answers.refusal is not None and isinstance(error, asyncpg.PostgresError) and not self.is_closed():
            raise binding.refused(answers.refusal) from error

    async def _sync(self) -> None:
        """End what went ahead by a Sync, since no statement has followed."""
        answers: Any = self._answers
        ahead: Any = self._ahead
        if not ahead.begin:
            try:
                await self._close_portal()
            except asyncpg.PostgresError:
                # The server has refused the binding, too.
                pass
            except BaseException:
                self.terminate()
                raise
            return
        answers.expect_ready()
        self._transport.write(pipeline.SYNC)
        await self._report()

    async def _report(self) -> None:
        """Let asyncpg learn of the transaction, from the answer to a statement."""
        try:
            await super().execute("SELECT 1")
        except asyncpg.InFailedSQLTransactionError:
            pass
        except BaseException:
            self.terminate()
            raise


_NOT_UTF8: Final = (
    "the statement can't run: in AUTOCOMMIT, asyncpg sends the binding in UTF-8, and the connection has "
    "another client_encoding. Use a transaction"
)
