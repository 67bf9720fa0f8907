"""A proxy in front of a Postgres server that counts round trips, delays them, and breaks connections.

``Proxy`` runs this file in a separate process, so that the interpreter lock of the test doesn't change the
delays.  The proxy reads no message, so encrypted connections, errors and pipelines count in the same way.
"""

from __future__ import annotations

import heapq
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final

_CHUNK: Final = 65536  # bytes
_POLL: Final = 0.01  # seconds
_RETRY: Final = 0.001  # seconds until a full socket is tried again


class Proxy:
    """A proxy in front of a server; a context manager.

    Attributes:
        host: the address that it listens on.
        port: the port that it listens on.
    """

    def __init__(self, host: str, port: int, *, delay: float = 0.0) -> None:
        """Listen on a free port of 127.0.0.1.

        Args:
            host: the host of the server.
            port: the port of the server.
            delay: the delay in seconds, as in ``set_delay()``.
        """
        # -I keeps the files beside this one from being imported as modules.
        command = [sys.executable, "-I", __file__, host, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        self._lock = threading.Lock()
        self.host = "127.0.0.1"
        self.port = self._ask("port")
        self.set_delay(delay)

    @property
    def round_trips(self) -> int:
        """The number of answers that the server has begun after a client has sent bytes.

        One flush of a client is one round trip.  A client that sends during an answer, as in a long COPY, may
        have more round trips than it waits for.
        """
        return self._ask("round_trips")

    def set_delay(self, seconds: float) -> None:
        """Delay each direction by *seconds* from now on, so that a round trip takes twice that.

        The timers of the kernel add about 0.1 ms.
        """
        self._ask(f"delay {seconds!r}")

    def drop(self) -> None:
        """Cut all connections; the proxy accepts new ones."""
        self._ask("drop")

    def stall(self) -> None:
        """Hold back all bytes from now on; neither side gets an error."""
        self._ask("stall")

    def recover(self) -> None:
        """Forward again, beginning with the bytes that were held back."""
        self._ask("recover")

    def close(self) -> None:
        """Cut all connections; a second call has no effect."""
        with self._lock:
            self._process.communicate()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, question: str) -> int:
        process = self._process
        assert process.stdin
        assert process.stdout
        with self._lock:
            process.stdin.write(f"{question}\n".encode())
            process.stdin.flush()
            return int(process.stdout.readline())


class _Pipe:
    """One direction of a connection, with the received bytes that wait until they are due."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.other: _Pipe
        self.from_server = False
        #: Whether bytes have gone this way since the last answer came the other way.
        self.unanswered = False
        self.ended = False
        self._waiting: deque[tuple[float, bytes]] = deque()

    @property
    def due(self) -> float | None:
        """The time at which the next bytes are due; None if none wait.  Empty bytes mean the end."""
        return self._waiting[0][0] if self._waiting else None

    def receive(self, delay: float) -> bool:
        """Receive bytes, and return whether they begin an answer."""
        try:
            data = self.source.recv(_CHUNK)
        except OSError:
            data = b""
        self._waiting.append((time.perf_counter() + delay, data))
        self.ended = not data
        self.unanswered = not self.ended
        begins = self.from_server and self.other.unanswered and not self.ended
        self.other.unanswered = False
        return begins

    def send(self) -> None:
        _, data = self._waiting.popleft()
        try:
            if not data:
                self.target.shutdown(socket.SHUT_WR)
            elif rest := data[self.target.send(data) :]:
                self._waiting.appendleft((time.perf_counter() + _RETRY, rest))
        except BlockingIOError:
            self._waiting.appendleft((time.perf_counter() + _RETRY, data))
        except OSError:
            # The target has closed its side, so the source gets the same error as without a proxy.
            self._waiting.clear()
            with suppress(OSError):
                self.source.shutdown(socket.SHUT_RDWR)

    @property
    def over(self) -> bool:
        return self.ended and not self._waiting


class Network:
    """What the separate process runs: the connections to a server, and their bytes on the way."""

    def __init__(self, target: tuple[str, int]) -> None:
        """Listen on a free port of 127.0.0.1, for connections to *target*."""
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.delay = 0.0
        self.stalled = False
        self.round_trips = 0
        self._pipes: list[_Pipe] = []
        #: The pipes with bytes that wait, each by the time of its first ones.
        self._dues: list[tuple[float, int, _Pipe]] = []
        self._selector: Any = selectors.DefaultSelector()
        self._selector.register(self.listener, selectors.EVENT_READ)

    def answer(self, question: str) -> int:
        """Do what *question* says, and return a number; the methods of ``Proxy`` ask."""
        match question.split():
            case ["port"]:
                return int(self.listener.getsockname()[1])
            case ["delay", seconds]:
                self.delay = float(seconds)
            case ["drop"]:
                for pipe in list(self._pipes):
                    with suppress(OSError):  # ended already
                        pipe.source.shutdown(socket.SHUT_RDWR)
            case ["stall" | "recover" as change]:
                self.stalled = change == "stall"
            case _:
                pass
        return self.round_trips

    def run(self) -> None:
        """Forward bytes for ever."""
        waiting_for = [self._selector.fileno()]
        while True:
            wait = self._send_due()
            # select(), since the selector's own wait lasts for at least a millisecond.
            if not select.select(waiting_for, [], [], wait)[0]:
                continue
            for key, _ in self._selector.select(0):
                if key.data is None:
                    self._accept()
                else:
                    self._receive(key.data)

    def _send_due(self) -> float | None:
        """Send what is due, and return the seconds until more is; None if nothing waits."""
        while self._dues:
            # recover() doesn't end the select().
            if self.stalled:
                return _POLL
            if (wait := self._dues[0][0] - time.perf_counter()) > 0:
                return wait
            pipe = heapq.heappop(self._dues)[2]
            pipe.send()
            self._wait_for(pipe)
            self._forget(pipe)
        return None

    def _receive(self, pipe: _Pipe) -> None:
        waits = pipe.due is not None
        self.round_trips += pipe.receive(self.delay)
        if pipe.ended:
            self._selector.unregister(pipe.source)
        if not waits:
            self._wait_for(pipe)

    def _wait_for(self, pipe: _Pipe) -> None:
        if (due := pipe.due) is not None:
            heapq.heappush(self._dues, (due, id(pipe), pipe))

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        try:
            server = socket.create_connection(self.target)
        except OSError:
            client.close()
            return
        there, back = _Pipe(client, server), _Pipe(server, client)
        there.other, back.other, back.from_server = back, there, True
        for pipe in (there, back):
            pipe.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipe.source.setblocking(False)
            self._selector.register(pipe.source, selectors.EVENT_READ, pipe)
            self._pipes.append(pipe)

    def _forget(self, pipe: _Pipe) -> None:
        if pipe.over and pipe.other.over:
            for one in (pipe, pipe.other):
                one.source.close()
                self._pipes.remove(one)


def _serve(host: str, port: str) -> None:
    network = Network((host, int(port)))
    threading.Thread(target=network.run, daemon=True).start()
    # The loop ends when the parent process closes the pipe, or dies.
    for question in sys.stdin:
        print(network.answer(question), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(*sys.argv[1:])
    os._exit(0)  # a normal exit would wait for the thread
