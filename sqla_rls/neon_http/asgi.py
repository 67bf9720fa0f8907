"""The side of the web server: answers, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import uuid4

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Neon-Array-Mode, Neon-Batch-Deferrable, Neon-Batch-Isolation-Level, "
    "Neon-Batch-Read-Only, Neon-Connection-String, Neon-Pool-Opt-In, Neon-Raw-Text-Output"
)


class Answer:
    """The answer to a request, with the headers for the page that has sent it."""

    def __init__(self, origins: Sequence[str], allowed: frozenset[str]) -> None:
        self._cors: dict[str, str] = {}
        if allowed:
            self._cors["vary"] = "Origin"
        if "*" in allowed:
            self._cors = {"access-control-allow-origin": "*"}
        elif len(origins) == 1 and origins[0] in allowed:
            self._cors["access-control-allow-origin"] = origins[0]

    def preflight(self) -> dict[str, str]:
        """Return the headers for a page that asks first."""
        if "access-control-allow-origin" not in self._cors:
            return {}
        return {
            "access-control-allow-methods": "POST",
            "access-control-allow-headers": _REQUEST_HEADERS,
            "access-control-max-age": "86400",
        }

    async def send(
        self, send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send the answer, as JSON."""
        sent = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "neon-request-id": str(uuid4()),
            **self._cors,
            **(headers or {}),
        }
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


async def unless_disconnected(answer: Coroutine[Any, Any, bytes], receive: Receive) -> bytes | None:
    """Return the result of *answer*; cancel it if the client goes away, and return None."""
    running = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((running, gone), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return await running
        return None
    finally:
        gone.cancel()
        running.cancel()
        if not running.done():
            # psycopg cancels the statement in the server.
            await asyncio.wait((running,))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def live(receive: Receive, send: Send) -> None:
    """Answer the lifespan of a server that runs the application alone."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
