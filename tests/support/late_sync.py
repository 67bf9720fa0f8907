"""A server whose Sync messages arrive late: what happens to the connection meanwhile comes before them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sqlalchemy import Engine, text

from tests.support.sessions import kill

_SYNC: Final = b"S\0\0\0\4"


class LateSync:
    """Forwards the connections of clients to a server; a context manager.

    Attributes:
        port: the port of 127.0.0.1 that it listens on.
        meanwhile: is called, once, when all messages before a Sync are sent to the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.meanwhile: Callable[[], object] | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> LateSync:
        self._start(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for source, target in ((client, server), (server, client)):
                    self._start(self._forward, source, target)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65536):
                if data.endswith(_SYNC) and (meanwhile := self.meanwhile) is not None:
                    self.meanwhile = None
                    target.sendall(data.removesuffix(_SYNC))
                    meanwhile()
                    data = _SYNC
                target.sendall(data)


def kill_before_sync(admin: Engine, backend: int, last: str) -> None:
    """Kill a backend that has answered the statement *last*, in part, and waits for a Sync."""
    state = text("SELECT wait_event, query FROM pg_stat_activity WHERE pid = :pid AND state = 'active'")
    deadline = time.monotonic() + 10
    with admin.connect() as connection:
        while time.monotonic() < deadline:
            event, query = connection.execute(state, {"pid": backend}).one_or_none() or ("", "")
            if event == "ClientRead" and last in query:
                break
            connection.rollback()
    kill(admin, backend)
