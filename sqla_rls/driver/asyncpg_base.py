"""A statement of asyncpg with BEGIN and the binding ahead of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg

from sqla_rls.driver import asyncpg_pipeline as pipeline
from sqla_rls.driver.base import ENDED, RESET, Binding, DriverConnection, NotDiscarded
from sqla_rls.exc import BindingError, TransactionRefused


class WaitingConnection(asyncpg.Connection, DriverConnection):  # type: ignore[misc] # asyncpg isn't typed
    """A connection whose BEGIN and binding wait for a statement."""

    #: Whether BEGIN and the binding may go ahead of a statement.
    is_pipelined = False
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
        self.last_discard_key = None
        try:
            # Postgres refuses DISCARD ALL in one message with BEGIN.
            await super().execute("DISCARD ALL", timeout=timeout)
        except asyncpg.PostgresError as error:
            if self.is_closed():
                raise
            self.terminate()
            raise NotDiscarded from error
        if self._waiting is None:
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
        except BaseException:
            self.terminate()
            raise

    async def _prepare_first(self, *args: Any, **kw: Any) -> Any:
        """Prepare a statement, with BEGIN and the binding ahead of it, as ``fetch_first()``."""
        protocol: Any = self._protocol
        if protocol is None or protocol._is_cancelling():
            await self.begin()
            return await super().prepare(*args, **kw)
        if self.discards:
            await self._discard()
        binding = self._send_ahead()
        try:
            statement = await super().prepare(*args, **kw)
        except asyncpg.PostgresError as error:
            self._require_accepted(binding, error)
            raise
        except BaseException:
            # The error isn't the server's, so it is unknown how much has reached the server.
            self.terminate()
            raise
        self._unreported_at = protocol.queries_count
        return statement

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
        """Send BEGIN, RESET ALL and the binding, which wait, without a Sync; return the binding."""
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
