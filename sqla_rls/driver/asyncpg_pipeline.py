"""Messages that a connection sends ahead of asyncpg's own, and the answers to them.

asyncpg sends one statement and waits for its answer.  Messages of PostgreSQL's extended query that end with
no Sync belong to the next statement: the server answers both together.  After an error in one of them, the
server skips the statement.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from sqla_rls.driver.base import RESET, Binding, BindingTemplate, Modes

_size: Final = Struct(">I").pack


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + _size(len(body) + 4) + body


def parsed(statement: bytes) -> bytes:
    """Return the message Parse for the unnamed statement."""
    return _message(b"P", b"\0%b\0\0\0" % statement)


def sized(parameter: bytes) -> bytes:
    """Return *parameter* as it stands in Bind."""
    return _size(len(parameter)) + parameter


def executed() -> bytes:
    """Return the messages Bind and Execute for the unnamed statement without parameters."""
    return _message(b"B", _UNNAMED + b"\0\0" + _TEXTS) + _EXECUTE


def answered(tag: bytes, *rows: bytes) -> bytes:
    """Return the answer to ``parsed()`` and ``executed()``: rows of one value, and the command's *tag*."""
    found = [_message(b"D", b"\0\1" + sized(row)) for row in rows]
    return b"".join((_message(b"1", b""), _message(b"2", b""), *found, _message(b"C", tag + b"\0")))


#: In Bind: an unnamed portal and statement, whose parameters are texts; and results, which are texts.
_UNNAMED: Final = b"\0\0\0\0"
_TEXTS: Final = b"\0\0"
_EXECUTE: Final = _message(b"E", b"\0\0\0\0\0")
SYNC: Final = _message(b"S", b"")
#: ReadyForQuery in a transaction, and outside one.
READY: Final = _message(b"Z", b"T")
IDLE: Final = _message(b"Z", b"I")
_ERROR: Final = ord("E")
_COMPLETE: Final = ord("C")
#: NoticeResponse, ParameterStatus and NotificationResponse.
_ANY_TIME: Final = b"NSA"
_HEAD: Final = 5  # the bytes of a message's kind and length


@dataclass(frozen=True, slots=True)
class Ahead:
    """BEGIN, RESET ALL and the bindings of one template, as messages."""

    template: BindingTemplate
    #: Empty in AUTOCOMMIT, where the messages belong to the implicit transaction of the next statement.
    begin: str
    #: Whether RESET ALL was the last statement before.
    is_reset: bool
    #: The messages without Bind and Execute of the binding.
    _statements: bytes
    #: The parts of Bind before and after the parameters that differ.
    _first: bytes
    _last: bytes
    #: The answer of a server that accepts them.
    answer: bytes

    @classmethod
    def of(cls, template: BindingTemplate, begin: str, *, is_reset: bool) -> Ahead:
        """Return the messages of *begin*, a BEGIN statement or none, and of the bindings of *template*."""
        modes = None if is_reset else template.modes
        statements: list[str] = []
        tags: list[bytes] = []
        if begin:
            statements.append(begin if modes is None else with_modes(begin, modes))
            tags.append(b"BEGIN")
        if modes is not None:
            statements.append(RESET)
            tags.append(b"RESET")
        messages = [parsed(statement.encode()) + executed() for statement in statements]
        answers = [*map(answered, tags), answered(b"SELECT 1", b"0")]
        fixed = template.encoded_fixed("utf-8")
        number = 1 + len(template.names) + len(fixed)
        return cls(
            template,
            begin,
            is_reset,
            b"".join([*messages, parsed(template.encoded_query)]),
            _UNNAMED + number.to_bytes(2, "big"),
            b"".join([*map(sized, fixed), _TEXTS]),
            b"".join(answers),
        )

    def messages(self, binding: Binding) -> bytes:
        """Return the messages of *binding*.

        Raises:
            ExpiredToken: the caller has expired.
        """
        parts = [self._first]
        for value in binding.own_values():
            encoded = value.encode()
            parts += (_size(len(encoded)), encoded)
        parts.append(self._last)
        bind = b"".join(parts)
        return b"".join((self._statements, b"B", _size(len(bind) + 4), bind, _EXECUTE))


def with_modes(begin: str, modes: Modes) -> str:
    """Return asyncpg's statement *begin* with *modes*, where it names none."""
    # If BEGIN names a mode twice, the last one counts: the one that asyncpg has written.
    return begin.replace("BEGIN", modes.begin(), 1)


class Answers(asyncio.Protocol):
    """Takes the answers to messages that went ahead; asyncpg's protocol gets what follows.

    It stands for asyncpg's protocol from now on.  An answer that isn't the expected one closes the
    connection.
    """

    def __init__(self, transport: Any, protocol: Any) -> None:
        self._transport, self._protocol = transport, protocol
        self._pass_on = protocol.data_received
        self._expected = self._received = b""
        #: The SQLSTATE of the server's refusal.
        self.refusal: str | None = None
        self._is_synced = False
        #: A copy of what asyncpg's protocol gets; None keeps none.
        self.kept: bytes | None = None
        transport.set_protocol(self)

    def expect(self, answer: bytes) -> None:
        """Take *answer*, which is to come after the other expected ones."""
        self._expected += answer
        self.refusal, self._is_synced = None, False

    def expect_ready(self) -> None:
        """Take the answer to a Sync, too."""
        self._expected += READY
        self._is_synced = True

    def data_received(self, data: bytes) -> None:
        if not (expected := self._expected):
            if self.kept is not None:
                self.kept += data
            self._pass_on(data)
            return
        if data.startswith(expected) and not self._received:
            self._expected = b""
            if rest := data[len(expected) :]:
                self._pass_on(rest)
            return
        data = self._received + data
        while len(data) >= _HEAD and len(data) > (length := int.from_bytes(data[1:_HEAD], "big")):
            message, rest = data[: length + 1], data[length + 1 :]
            kind = message[0]
            if kind in _ANY_TIME:
                self._pass_on(message)
            elif self.refusal is not None:
                # Ahead of a Sync, the server has skipped the other messages.
                self._finish(rest)
                return
            elif kind == _ERROR:
                self.refusal = _sqlstate(message)
                if not self._is_synced:
                    self._finish(data)
                    return
            elif self._expected.startswith(message):
                self._expected = self._expected[len(message) :]
                if not self._expected:
                    self._finish(rest)
                    return
            else:
                self._transport.abort()
                return
            data = rest
        self._received = data

    def _finish(self, rest: bytes) -> None:
        self._expected = self._received = b""
        if rest:
            self._pass_on(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        found: bool | None = self._protocol.eof_received()
        return found

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def has_completed(answer: bytes) -> bool:
    """Return whether *answer* says that the server has completed a statement."""
    while len(answer) >= _HEAD:
        if answer[0] == _COMPLETE:
            return True
        answer = answer[int.from_bytes(answer[1:_HEAD], "big") + 1 :]
    return False


def _sqlstate(error: bytes) -> str:
    fields = error[_HEAD:].split(b"\0")
    return next((field[1:].decode("ascii", "replace") for field in fields if field[:1] == b"C"), "")
