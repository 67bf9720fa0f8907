"""What the database sees of a request: its caller, and the statements of each round trip.

libpq writes the messages of a connection to a file.  That is for this example, not for production: the file
has the values of the parameters, too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from secrets import token_urlsafe
from tempfile import TemporaryFile
from typing import Any, Final, TypeAlias

from psycopg import NotSupportedError
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from sqla_rls import Caller, ServiceAccess

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]

#: The first line of a message: its time, its direction (F is to the server), its length, its kind.
_MESSAGE: Final = re.compile(r"^\S+ \S+\t([FB])\t\d+\t(\w+)(?:\t ?| ?)", re.MULTILINE)
#: The name of a prepared statement, and its SQL; a query has the SQL alone.
_PARSE: Final = re.compile(r'"([^"]*)" "(.*)" \d+(?: \d+)*\s*$', re.DOTALL)
_BIND: Final = re.compile(r'"[^"]*" "([^"]*)"')


@dataclass
class Report:
    """What the database saw of one request."""

    role: str | None = None
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    #: The statements of each round trip.
    trips: list[list[str]] = field(default_factory=list[list[str]])

    def as_json(self) -> dict[str, Any]:
        return {"role": self.role, "claims": self.claims, "trips": self.trips}


_report: ContextVar[Report | None] = ContextVar("report", default=None)


class Wire:
    """The messages of one connection."""

    def __init__(self, connection: Any) -> None:
        self.report: Report | None = None
        self._file = TemporaryFile("r+b")  # noqa: SIM115
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)
        #: The SQL of the prepared statements.
        self._prepared: dict[str, str] = {}
        with suppress(NotSupportedError):  # psycopg traces on Linux only
            connection.pgconn.trace(self._file.fileno())

    def collect(self) -> None:
        """Give the messages since the last time to the report of the request that the connection served."""
        self._file.seek(0)
        text = self._file.read().decode(errors="replace")
        self._file.truncate(0)
        trips = self._trips(text)
        if self.report is not None:
            self.report.trips += trips
        self.report = None

    def _trips(self, text: str) -> list[list[str]]:
        trips: list[list[str]] = []
        waits = False
        found = list(_MESSAGE.finditer(text))
        for message, following in zip(found, [*found[1:], None], strict=True):
            if message[1] == "B":
                waits = False
                continue
            if not waits:
                trips.append([])
            waits = True
            body = text[message.end() : following.start() if following else len(text)]
            if (statement := self._statement(message[2], body)) is not None:
                trips[-1].append(statement)
        return [trip for trip in trips if trip]

    def _statement(self, kind: str, body: str) -> str | None:
        if kind == "Query":
            return body.strip()[1:-1].strip()
        if kind == "Parse" and (parse := _PARSE.match(body)):
            self._prepared[parse[1]] = parse[2].strip()
        if kind == "Bind" and (bind := _BIND.match(body)):
            return self._prepared.get(bind[1])
        return None


def watch(engine: AsyncEngine) -> None:
    """Report the statements of *engine*."""

    @event.listens_for(engine.sync_engine, "connect")
    def open_wire(connection: Any, record: Any) -> None:
        record.info["wire"] = Wire(connection.driver_connection)

    @event.listens_for(engine.sync_engine, "checkin")
    def collect(connection: Any, record: Any) -> None:
        if connection is not None:
            record.info["wire"].collect()


def on_bind(session: Session, connection: Connection, principal: Caller | ServiceAccess) -> None:
    """Report the caller: an argument of ``enforce_row_security()``."""
    report = _report.get()
    wire: Wire = connection.info["wire"]
    wire.report = report
    if report is not None and isinstance(principal, Caller):
        report.role, report.claims = principal.role, json.loads(principal.claims_json)


class Reports:
    """A middleware that keeps the last reports; the header X-Report of an answer has the name of its own."""

    def __init__(self, app: App, *, kept: OrderedDict[str, Report]) -> None:
        self._app, self._kept = app, kept

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        report, name = Report(), token_urlsafe()

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and report.role is not None:
                self._kept[name] = report
                while len(self._kept) > 100:
                    self._kept.popitem(last=False)
                message["headers"] = [*message["headers"], (b"x-report", name.encode())]
            await send(message)

        _report.set(report)
        await self._app(scope, receive, send_named)


class Headers:
    """A middleware that adds headers to each answer."""

    def __init__(self, app: App, *, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Message, receive: Any, send: Send) -> None:
        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, send_all)
