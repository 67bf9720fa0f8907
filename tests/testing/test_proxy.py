"""The proxy forwards, counts round trips, delays, and breaks connections; here in threads of the test."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sqla_rls.testing.proxy import Network

LARGE = b"x" * 2**26


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65536):
            self.request.sendall(data)


@pytest.fixture
def network() -> Iterator[Network]:
    """A network in front of a server that sends back what it gets."""
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        network = Network(("127.0.0.1", server.server_address[1]))
        threading.Thread(target=network.run, daemon=True).start()
        yield network
        server.shutdown()


def connect(network: Network) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.answer("port")), timeout=10)


def ask(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.sendall(data)
    return client.recv(len(data))


def test_an_answer_is_a_round_trip(network: Network) -> None:
    with closing(connect(network)) as client:
        assert [ask(client), ask(client)] == [b"hello", b"hello"]
        assert network.answer("round_trips") == 2


def test_each_direction_is_delayed(network: Network) -> None:
    network.answer("delay 0.05")
    with closing(connect(network)) as client:
        before = time.monotonic()
        assert ask(client) == b"hello"
        assert time.monotonic() - before >= 0.1


@pytest.mark.exhaustive
def test_many_connections_take_turns(network: Network) -> None:
    network.answer("delay 0.001")
    clients = [connect(network) for _ in range(20)]
    for number, client in enumerate(clients):
        client.sendall(f"{number:02}".encode())
    assert [client.recv(2) for client in clients] == [f"{number:02}".encode() for number in range(20)]
    for client in clients:
        client.close()


def test_more_than_the_sockets_hold_arrives_whole(network: Network) -> None:
    with closing(connect(network)) as client:
        # The network takes all bytes while nobody takes the answer.
        client.sendall(LARGE)
        received = bytearray()
        while len(received) < len(LARGE):
            received += client.recv(2**20)
        assert received == LARGE


def test_what_is_held_back_arrives_afterwards(network: Network) -> None:
    with closing(connect(network)) as client:
        assert ask(client) == b"hello"
        network.answer("stall")
        client.sendall(b"again")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(5)
        network.answer("recover")
        client.settimeout(10)
        assert client.recv(5) == b"again"


def test_connections_are_cut_and_new_ones_accepted(network: Network) -> None:
    with closing(connect(network)) as client:
        assert ask(client) == b"hello"
        network.answer("drop")
        assert client.recv(5) == b""
    with closing(connect(network)) as client:
        assert ask(client) == b"hello"


def test_the_end_of_one_side_is_the_end_of_the_other(network: Network) -> None:
    with closing(connect(network)) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(5) == b"hello"
        assert client.recv(5) == b""


def test_a_server_that_is_not_there_closes_the_connection() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        target = listener.getsockname()
    network = Network(target)
    threading.Thread(target=network.run, daemon=True).start()
    with closing(connect(network)) as client:
        assert client.recv(5) == b""
