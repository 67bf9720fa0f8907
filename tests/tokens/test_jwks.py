"""How a provider's keys are read, fetched and kept: asked for rarely, and never believed for long."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sqla_rls.exc import DeclarationError, InvalidToken, KeysUnavailable
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.tokens.jwks import FetchedKeySet, FetchLimits, KeySet, PublicKey, choose, download, keys_in
from tests.support.suite import first_and_rest, table


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> FetchedKeySet:
    return FetchedKeySet(issuer.jwks_uri, FetchLimits(timeout=5), clock=clock)


def get(keys: KeySet, kid: str | None, algorithm: str = "ES256") -> PublicKey:
    fetch = keys.refresh(kid, algorithm)
    if fetch is not None:
        fetch.result(timeout=keys.timeout)
    return keys.find(kid, algorithm)


def jwk(**changes: Any) -> dict[str, Any]:
    merged = Key.generate().jwk() | changes
    return {name: value for name, value in merged.items() if value is not None}


# Which keys are usable


def test_a_key_that_can_not_be_used_does_not_take_the_others_with_it() -> None:
    good = jwk(kid="good")
    private = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    unusable: list[Any] = [
        None,
        7,
        "key",
        [],
        {},
        {"kty": "unknown", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "a", "alg": "HS256"},
        private,
        RSAAlgorithm.to_jwk(small, as_dict=True),
        OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True),
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True),
        jwk(use="enc"),
        jwk(use=7),
        jwk(key_ops=["encrypt"]),
        jwk(key_ops=7),
        jwk(alg="HS256"),
        jwk(alg="none"),
        jwk(alg="RS256"),
        jwk(alg="ES384"),
        jwk(alg=["ES256"]),
        jwk(kid=7),
        jwk(kid=["a"]),
        jwk(x="AAAA"),
        jwk(x=None),
        jwk(x=7),
        jwk(crv="P-384"),
        jwk(crv=["P-256"]),
        {**good, "kid": "not on the curve", "x": good["y"]},
    ]

    assert [key.kid for key in keys_in({"keys": [*unusable, good, *unusable]})] == ["good"]


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": None}, {"keys": {"a": 1}}])
def test_what_is_no_key_document_is_an_error(document: Any) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        keys_in(document)


def test_the_curve_decides_the_algorithm() -> None:
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    for algorithm, curve in curves.items():
        public = ec.generate_private_key(curve).public_key()
        keys = keys_in({"keys": [ECAlgorithm.to_jwk(public, as_dict=True)]})
        assert {name for name in curves if choose(keys, None, name)} == {algorithm}


@pytest.mark.exhaustive
def test_an_rsa_key_serves_one_algorithm_if_it_says_so() -> None:
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    entry = RSAAlgorithm.to_jwk(public, as_dict=True)

    assert choose(keys_in({"keys": [entry]}), None, "PS512") == public
    assert choose(keys_in({"keys": [{**entry, "alg": "RS256"}]}), None, "PS512") is None


def test_an_id_that_names_two_keys_names_none() -> None:
    keys = keys_in({"keys": [jwk(kid="one"), jwk(kid="one")]})

    assert choose(keys, "one", "ES256") is None


def test_a_key_that_is_listed_twice_is_still_one_key() -> None:
    entry = jwk(kid="one")
    keys = keys_in({"keys": [entry, dict(entry), {**entry, "kid": "also one"}]})

    assert choose(keys, "one", "ES256") == choose(keys, None, "ES256") is not None


def test_without_an_id_there_must_be_no_doubt() -> None:
    first, second = jwk(kid="one"), jwk(kid="two")
    other = Key.generate("EdDSA").jwk()

    assert choose(keys_in({"keys": [first, other]}), None, "ES256") is not None
    assert choose(keys_in({"keys": [first, second]}), None, "ES256") is None


def test_a_key_without_an_id_does_not_answer_to_one() -> None:
    keys = keys_in({"keys": [jwk(kid=None)]})

    assert choose(keys, "one", "ES256") is None
    assert choose(keys, None, "ES256") is not None


# Fetching and keeping


def test_keys_are_fetched_when_first_needed_and_then_kept(issuer: Issuer, keys: FetchedKeySet) -> None:
    assert issuer.fetches == 0
    for _ in range(100):
        assert get(keys, issuer.key().kid) == issuer.key().private.public_key()
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_keys_are_asked_for_again_when_their_life_is_over(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    old = issuer.key()
    get(keys, old.kid)
    issuer.rotate()

    clock.now += 299
    assert get(keys, old.kid)
    clock.now += 1
    with pytest.raises(InvalidToken):
        get(keys, old.kid)
    assert issuer.fetches == 2


@pytest.mark.exhaustive
def test_a_new_key_is_found_as_soon_as_it_is_needed(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    new = issuer.rotate(keep=True)

    clock.now += 10
    assert get(keys, new.kid) == new.private.public_key()
    assert issuer.fetches == 2


def test_a_thousand_invented_key_ids_cost_one_fetch(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    clock.now += 10

    for number in range(1000):
        with pytest.raises(InvalidToken, match="key id"):
            get(keys, f"invented-{number}")
    assert issuer.fetches == 2
    assert get(keys, issuer.key().kid)


@pytest.mark.exhaustive
def test_invented_key_ids_cost_one_fetch_per_cooldown_however_long_they_go_on(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    for number in range(600):  # one a second, ten minutes
        with pytest.raises(InvalidToken):
            get(keys, f"invented-{number}")
        clock.now += 1
    assert issuer.fetches == 60


def test_32_threads_at_once_cost_one_fetch(issuer: Issuer, keys: FetchedKeySet) -> None:
    issuer.delay = 0.2
    start = threading.Barrier(32)

    def ask(_: int) -> PublicKey:
        start.wait()
        return get(keys, issuer.key().kid)

    with ThreadPoolExecutor(32) as threads:
        assert set(map(type, threads.map(ask, range(32)))) == {type(issuer.key().private.public_key())}
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_in_an_outage_the_known_keys_go_on_without_a_wait_and_then_nobody_gets_in(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.status = 503

    clock.now += 300
    assert get(keys, kid)  # waits for the attempt that fails
    issuer.delay = 30
    clock.now += 10
    assert keys.refresh(kid, "ES256") is None  # the next attempt is under way, and nobody waits for it
    assert keys.find(kid, "ES256")

    clock.now += 3289
    assert keys.refresh(kid, "ES256") is None
    assert keys.find(kid, "ES256")
    clock.now += 1
    with pytest.raises(KeysUnavailable, match="Try again"):
        keys.find(kid, "ES256")


@pytest.mark.exhaustive
def test_when_the_outage_is_over_its_news_arrive(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    old = issuer.key()
    get(keys, old.kid)
    issuer.status = 500
    clock.now += 300
    get(keys, old.kid)
    issuer.reset()
    new = issuer.rotate()

    clock.now += 10
    assert get(keys, new.kid)
    with pytest.raises(InvalidToken):
        get(keys, old.kid)


def test_after_a_long_outage_the_first_to_come_gets_in(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.status = 500
    clock.now += 300
    get(keys, kid)
    issuer.reset()

    clock.now += 10_000
    assert get(keys, kid)


@pytest.mark.exhaustive
def test_an_id_that_is_new_in_an_outage_is_not_called_invalid(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    issuer.status = 503
    clock.now += 10

    with pytest.raises(KeysUnavailable):
        get(keys, "new")
    assert get(keys, issuer.key().kid)


@pytest.mark.exhaustive
def test_a_provider_that_is_down_is_left_alone(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    issuer.status = 503
    for _ in range(100):  # one in 0.3 s
        with pytest.raises(KeysUnavailable):
            get(keys, issuer.key().kid)
        clock.now += 0.3
    assert issuer.fetches == 3


def test_a_provider_that_withdraws_all_keys_is_obeyed(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.body = b'{"keys": []}'

    clock.now += 300
    with pytest.raises(KeysUnavailable):
        get(keys, kid)


@table(
    "body",
    [b"", b"<html>", b"[]", b"7", b'{"key": []}', b'{"keys": {}}', b"[" * 100_000, b"\xff\xfe", b'{"keys"'],
)
def test_an_answer_that_is_no_key_document_is_a_failed_fetch(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock, body: bytes
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.body = body

    clock.now += 300
    assert get(keys, kid)
    clock.now += 3300
    with pytest.raises(KeysUnavailable):
        get(keys, kid)


@pytest.mark.exhaustive
def test_a_fetch_that_was_lost_is_made_up_for(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    kid = issuer.key().kid
    issuer.delay = 0.5
    lost = keys.refresh(kid, "ES256")  # as if by a thread that a fork left behind
    assert lost is not None
    while not issuer.fetches:
        time.sleep(0.01)
    time.sleep(0.05)
    issuer.delay = 0

    clock.now += 10
    assert keys.refresh(kid, "ES256") is lost
    with pytest.raises(KeysUnavailable):
        keys.find(kid, "ES256")
    clock.now += 0.1
    assert get(keys, kid)
    assert issuer.fetches == 2

    issuer.status = 503
    lost.result(timeout=5)  # what it brings in the end is old news
    with pytest.raises(InvalidToken):
        keys.find("new", "ES256")


def test_a_waiter_that_gives_up_does_not_take_the_fetch_from_the_others(
    issuer: Issuer, keys: FetchedKeySet
) -> None:
    issuer.delay = 0.2
    kid = issuer.key().kid

    async def ask(timeout: float) -> None:
        fetch = keys.refresh(kid, "ES256")
        assert fetch is not None
        await asyncio.wait_for(asyncio.wrap_future(fetch), timeout)

    async def both() -> tuple[BaseException | None, BaseException | None]:
        return await asyncio.gather(ask(0.01), ask(5), return_exceptions=True)

    impatient, patient = asyncio.run(both())
    assert isinstance(impatient, TimeoutError)
    assert patient is None
    assert keys.find(kid, "ES256")


def test_why_a_fetch_failed_is_logged_without_the_query(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.status = 503
    with pytest.raises(KeysUnavailable):
        get(FetchedKeySet(f"{issuer.jwks_uri}?apikey=secret", clock=clock), "any")

    assert issuer.jwks_uri in caplog.text
    assert "503" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "limits",
    [
        {"timeout": 0},
        {"cooldown": 0},
        {"cooldown": -1},
        {"cooldown": 301},
        {"lifespan": 3601},
        {"max_bytes": 0},
        {"lifespan": float("nan")},
    ],
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="FetchLimits"):
        FetchLimits(**limits)


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
        time.sleep(0.02)


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
        assert time.monotonic() - started_at < 1.5


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
def self_signed(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    alternatives = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternatives, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "self-signed.pem"
    pem.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return pem


@pytest.mark.exhaustive
def test_certificates_are_verified_also_in_a_program_that_turned_that_off(
    self_signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            say('HTTP/1.1 200 OK\nContent-Length: 12\n\n{"keys": []}', secure)

    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    with server(answer) as uri:
        secure_uri = uri.replace("http:", "https:")
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            download(secure_uri, FetchLimits())
        monkeypatch.setenv("SSL_CERT_FILE", str(self_signed))
        assert download(secure_uri, FetchLimits()) == {"keys": []}


@pytest.mark.exhaustive
def test_a_secure_server_that_drips_is_left_at_the_deadline(
    self_signed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            drip("HTTP/1.1 200 OK\n", "X: y\r\n", secure)

    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(self_signed))
    with server(answer) as uri:
        started_at = time.monotonic()
        with pytest.raises((OSError, HTTPException)):
            download(uri.replace("http:", "https:"), FetchLimits(timeout=0.3))
        assert time.monotonic() - started_at < 1.5


@pytest.mark.exhaustive
def test_the_document_is_read_as_it_is(issuer: Issuer) -> None:
    assert download(issuer.jwks_uri, FetchLimits()) == json.loads(json.dumps(issuer.jwks()))
