"""How the document of the keys is downloaded: by a deadline, without redirects, from a verified server."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from sqla_rls.testing.issuer import Issuer
from sqla_rls.tokens.jwks import FetchLimits, download
from tests.support.certificates import self_signed_certificate
from tests.support.suite import first_and_rest

# The download


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that reads a request and does as it is told; the URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/jwks.json"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def say(text: str, connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(text.replace("\n", "\r\n").encode())


def drip(start: str, again: str, connection: socket.socket) -> None:
    say(start, connection)
    while True:
        connection.sendall(again.encode())
        time.sleep(0.2)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("start", "again"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 100000\n\n", " "),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "1\r\n \r\n"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "1"),
        ("HTTP/1.1 200 OK\nX: ", "x"),
        ("HTTP/1.1 200 OK\n", "X: y\r\n"),
        ("HTTP", "/"),
        ("HTTP/1.1 100 Continue\n\n", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", ""),
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(start: str, again: str) -> None:
    with server(partial(drip, start, again)) as uri:
        started_at = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            download(uri, FetchLimits(timeout=0.3))
        assert time.monotonic() - started_at < 10


STATUSES = [201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 404, 407, 500, 503]


@first_and_rest("statuses", STATUSES)
def test_only_status_200_will_do_and_no_redirect_is_followed(
    issuer: Issuer, statuses: list[int], subtests: pytest.Subtests
) -> None:
    for status in statuses:
        issuer.reset()
        moved = f"HTTP/1.1 {status} X\nLocation: {issuer.jwks_uri}\nContent-Length: 12\n\n" + '{"keys": []}'
        with subtests.test(f"status {status}"), server(partial(say, moved)) as uri:
            with pytest.raises(ValueError, match=str(status)):
                download(uri, FetchLimits())
            assert issuer.fetches == 0


def test_a_document_has_a_size_limit() -> None:
    body = '{"keys": [], "x": "' + "x" * 1000 + '"}'
    answer = f"HTTP/1.1 200 OK\nContent-Length: {len(body)}\n\n{body}"
    with server(partial(say, answer)) as uri:
        assert download(uri, FetchLimits(max_bytes=len(body)))
        with pytest.raises(ValueError, match="longer"):
            download(uri, FetchLimits(max_bytes=len(body) - 1))


def test_a_document_that_breaks_off_is_none() -> None:
    answer = 'HTTP/1.1 200 OK\nContent-Length: 1000\n\n{"keys": ['
    with server(partial(say, answer)) as uri, pytest.raises(ValueError, match="Expecting"):
        download(uri, FetchLimits())


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(OSError, match="refused"):
        download(f"http://127.0.0.1:{port}/", FetchLimits())


def test_a_proxy_is_used_for_https_and_never_for_this_machine(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        heard.append(connection.recv(65536))

    for name in ("no_proxy", "NO_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with server(proxy) as uri:
        monkeypatch.setenv("HTTPS_PROXY", uri)
        monkeypatch.setenv("HTTP_PROXY", uri)
        assert download(issuer.jwks_uri, FetchLimits())
        assert heard == []
        with pytest.raises((OSError, HTTPException)):
            download("https://keys.example/jwks.json", FetchLimits(timeout=1))
    assert heard[0].startswith(b"CONNECT keys.example:443 ")


@pytest.fixture
def self_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate, and no proxy in the way."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return self_signed_certificate(tmp_path)


@contextmanager
def secure_server(certificate: Path, answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """``server()`` behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def answer_securely(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            answer(secure)

    with server(answer_securely) as uri:
        yield uri.replace("http:", "https:")


@pytest.mark.exhaustive
def test_certificates_are_verified_also_in_a_program_that_turned_that_off(
    self_signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(secure: socket.socket) -> None:
        say('HTTP/1.1 200 OK\nContent-Length: 12\n\n{"keys": []}', secure)

    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    with secure_server(self_signed, answer) as uri:
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            download(uri, FetchLimits())
        monkeypatch.setenv("SSL_CERT_FILE", str(self_signed))
        assert download(uri, FetchLimits()) == {"keys": []}


@pytest.mark.exhaustive
def test_a_secure_server_that_drips_is_left_at_the_deadline(
    self_signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(secure: socket.socket) -> None:
        drip("HTTP/1.1 200 OK\n", "X: y\r\n", secure)

    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed))
    with secure_server(self_signed, answer) as uri:
        started_at = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            download(uri, FetchLimits(timeout=0.3))
        assert time.monotonic() - started_at < 10


@pytest.mark.exhaustive
def test_http_loads_no_certificates(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take 30 ms."""
    monkeypatch.delattr(ssl, "create_default_context")

    assert download(issuer.jwks_uri, FetchLimits())


def test_the_document_is_read_as_it_is(issuer: Issuer) -> None:
    assert download(issuer.jwks_uri, FetchLimits()) == json.loads(json.dumps(issuer.jwks()))
