"""A TCP proxy whose connections break as those of networks do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Proxy:
    """Forwards what is sent to 127.0.0.1:*port*; a context manager.

    Attributes:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def drop(self) -> None:
        """End all connections."""
        for end in self._sockets:
            with suppress(OSError):  # ended already
                end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Forward nothing from now on, and tell nobody."""
        self._flows.clear()

    def recover(self) -> None:
        """Forward again, also what was held back."""
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(self._forward, client, server)
                self._start(self._forward, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def _start(self, target: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=target, args=sockets, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):
            # close() alone doesn't wake up who waits in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
        self.recover()
        self.drop()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()
