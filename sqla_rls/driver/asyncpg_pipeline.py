"""Messages that a connection sends ahead of asyncpg's own, and the answers to them.

asyncpg sends one statement and waits for its answer.  Messages of PostgreSQL's extended query that end with
no Sync belong to the next statement: the server answers both together.  After an error in one of them, the
server skips the statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqla_rls.driver.base import RESET, Binding, BindingTemplate, Modes


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def parsed(statement: bytes) -> bytes:
    """Return the message Parse for the unnamed statement."""
    return _message(b"P", b"\0%b\0\0\0" % statement)


def sized(parameter: bytes) -> bytes:
    """Return *parameter* as it stands in Bind."""
    return len(parameter).to_bytes(4, "big") + parameter


def executed(parameters: Sequence[bytes] = (), fixed: Sequence[bytes] = ()) -> bytes:
    """Return the messages Bind and Execute for the unnamed statement.

    Args:
        parameters: the first parameters, as texts.
        fixed: the other ones, each ``sized()``.
    """
    number = (len(parameters) + len(fixed)).to_bytes(2, "big")
    return (
        _message(b"B", b"".join((b"\0\0\0\0", number, *map(sized, parameters), *fixed, b"\0\0"))) + _EXECUTE
    )


def answered(tag: bytes, *rows: bytes) -> bytes:
    """Return the answer to ``parsed()`` and ``executed()``: rows of one value, and the command's *tag*."""
    found = [_message(b"D", b"\0\1" + sized(row)) for row in rows]
    return b"".join((_message(b"1", b""), _message(b"2", b""), *found, _message(b"C", tag + b"\0")))


_EXECUTE: Final = _message(b"E", b"\0\0\0\0\0")
SYNC: Final = _message(b"S", b"")
READY: Final = _message(b"Z", b"T")
_ERROR: Final = ord("E")
#: NoticeResponse, ParameterStatus and NotificationResponse.
_ANY_TIME: Final = b"NSA"
_HEAD: Final = 5  # the bytes of a message's kind and length


@dataclass(frozen=True, slots=True)
class Ahead:
    """BEGIN, RESET ALL and the bindings of one template, as messages."""

    template: BindingTemplate
    begin: str
    #: The messages without the parameters of the binding.
    _statements: bytes
    #: The parameters that all bindings have in common.
    _fixed: list[bytes]
    #: The answer of a server that accepts them.
    answer: bytes

    @classmethod
    def of(cls, template: BindingTemplate, begin: str) -> Ahead:
        """Return the messages of *begin*, a BEGIN statement, and of the bindings of *template*."""
        statements, tags = [begin], [b"BEGIN"]
        if template.modes is not None:
            statements, tags = [with_modes(begin, template.modes), RESET], [b"BEGIN", b"RESET"]
        messages = [parsed(statement.encode()) + executed() for statement in statements]
        answers = [*map(answered, tags), answered(b"SELECT 1", b"0")]
        return cls(
            template,
            begin,
            b"".join([*messages, parsed(template.encoded_query)]),
            [sized(value) for value in template.encoded_fixed("utf-8")],
            b"".join(answers),
        )

    def messages(self, binding: Binding) -> bytes:
        """Return the messages of *binding*.

        Raises:
            ExpiredToken: the caller has expired.
        """
        own = "\0".join(binding.own_values()).encode().split(b"\0")
        return self._statements + executed(own, self._fixed)


def with_modes(begin: str, modes: Modes) -> str:
    """Return asyncpg's statement *begin* with *modes*, where it names none."""
    # If BEGIN names a mode twice, the last one counts: the one that asyncpg has written.
    return begin.replace("BEGIN", modes.begin(), 1)


class Answers(asyncio.Protocol):
    """Takes the answers to messages that went ahead; asyncpg's protocol gets what follows.

    It stands for asyncpg's protocol until then.  An answer that isn't the expected one closes the connection.
    """

    def __init__(self, transport: Any, protocol: Any) -> None:
        self._transport, self._protocol = transport, protocol
        self._expected = self._received = b""
        #: The SQLSTATE of the server's refusal.
        self.refusal: str | None = None
        self._is_synced = False

    def expect(self, answer: bytes) -> None:
        """Take *answer*, which is to come."""
        self._expected, self._received = answer, b""
        self.refusal, self._is_synced = None, False
        self._transport.set_protocol(self)

    def expect_ready(self) -> None:
        """Take the answer to a Sync, too."""
        self._expected += READY
        self._is_synced = True

    def data_received(self, data: bytes) -> None:
        if data.startswith(self._expected) and not self._received:
            self._pass_on(data[len(self._expected) :])
            return
        data = self._received + data
        while len(data) >= _HEAD and len(data) > (length := int.from_bytes(data[1:_HEAD], "big")):
            message, rest = data[: length + 1], data[length + 1 :]
            kind = message[0]
            if kind in _ANY_TIME:
                self._protocol.data_received(message)
            elif self.refusal is not None:
                # Ahead of a Sync, the server has skipped the other messages.
                self._pass_on(rest)
                return
            elif kind == _ERROR:
                self.refusal = _sqlstate(message)
                if not self._is_synced:
                    self._pass_on(data)
                    return
            elif self._expected.startswith(message):
                self._expected = self._expected[len(message) :]
                if not self._expected:
                    self._pass_on(rest)
                    return
            else:
                self._transport.abort()
                return
            data = rest
        self._received = data

    def _pass_on(self, rest: bytes) -> None:
        self._expected = self._received = b""
        self._transport.set_protocol(self._protocol)
        if rest:
            self._protocol.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool | None:
        found: bool | None = self._protocol.eof_received()
        return found

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()


def _sqlstate(error: bytes) -> str:
    fields = error[_HEAD:].split(b"\0")
    return next((field[1:].decode("ascii", "replace") for field in fields if field[:1] == b"C"), "")
