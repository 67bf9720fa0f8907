"""The public keys of a provider: fetched, cached, and found by key id.

Invented key ids don't make the fetches more frequent.  A withdrawn key is accepted for a bounded time, also
in an outage.  ``FetchLimits`` has the bounds.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import math
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK

from sqla_rls.exc import DeclarationError, InvalidToken, KeysUnavailable

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

#: The secret members of a JWK.  A key with one of them is a private key.
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

#: The algorithms whose verification key can't sign.
ALGORITHMS: Final = frozenset(_CURVES.values()) | _RSA | {"EdDSA"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """The limits for fetching a provider's keys.

    Args:
        timeout: the seconds that a fetch may take, and that a request waits for it.
        lifespan: the seconds for which keys count without another fetch.
        cooldown: the seconds between two fetches, successful or not.  With 10 s, a key that is used before
            its publication works 10 s later.  Invented key ids cost the provider at most six requests per
            minute and process.
        max_stale: the seconds since the last successful fetch for which its keys count while fetches fail.
        max_bytes: the size of the provider's answer.

    Raises:
        DeclarationError: a limit isn't above 0, or they aren't in order.
    """

    timeout: float = 5.0
    lifespan: float = 300.0
    cooldown: float = 10.0
    max_stale: float = 3600.0
    max_bytes: int = 512 * 1024

    def __post_init__(self) -> None:
        ages = 0 < self.cooldown <= self.lifespan <= self.max_stale
        if not (ages and self.timeout > 0 and self.max_bytes > 0):
            raise DeclarationError(
                "FetchLimits() can't be made: a limit isn't above 0, or the ages aren't in order. "
                "Give cooldown <= lifespan <= max_stale"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key and its algorithms: the one that its JWK names, or all that fit the key."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


def keys_in(document: object) -> tuple[Key, ...]:
    """Return the usable keys of the JWKS *document*, and skip its other entries.

    Raises:
        ValueError: the document isn't a JWKS.
    """
    entries: Any = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("the document isn't a JWKS: it isn't an object with a list 'keys'. Check the URL")
    return tuple(key for key in map(_usable, entries) if key is not None)


def _usable(entry: Any) -> Key | None:
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return None
        if PRIVATE_MEMBERS & entry.keys() or not isinstance(entry.get("kid"), str | None):
            return None
        public: Any = PyJWK(entry).key
        algorithms = algorithms_of(public) & ({entry["alg"]} if "alg" in entry else ALGORITHMS)
    except Exception:  # PyJWT raises a dozen types of errors
        return None
    return Key(kid=entry.get("kid"), algorithms=algorithms, public=public) if algorithms else None


def algorithms_of(public: object) -> frozenset[str]:
    """Return the algorithms of *public*.

    A curve has one algorithm, and RSA needs 2048 bits (RFC 7518, sections 3.3 and 3.4).
    """
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return frozenset({_CURVES[public.curve.name]})
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return _RSA
    return frozenset({"EdDSA"} if isinstance(public, ed25519.Ed25519PublicKey) else ())


def choose(keys: Iterable[Key], kid: str | None, algorithm: str) -> PublicKey | None:
    """Return the key with the id *kid* that fits *algorithm*; None if there is none, or more than one.

    Without an id, every key that fits counts.  If two different keys fit, the bearer of the token must not
    choose between them.
    """
    fitting = [key.public for key in keys if algorithm in key.algorithms and kid in (None, key.kid)]
    return fitting[0] if fitting and all(key == fitting[0] for key in fitting) else None


class KeySet:
    """Keys that never change.

    Args:
        keys: the keys.
        named: whether the keys have ids.  Without ids, the key id of a token is ignored.
    """

    timeout: float = 0.0  # the seconds to wait for the result of refresh()

    def __init__(self, keys: Iterable[Key], *, named: bool = True) -> None:
        self._keys = tuple(keys)
        self._named = named

    def refresh(self, kid: str | None, algorithm: str) -> Future[None] | None:
        """Return the fetch to wait for before ``find()``; None without a fetch."""
        return None

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """Return the known key that has *kid* and fits *algorithm*.

        Raises:
            InvalidToken: the provider has no such key.
            KeysUnavailable: the provider's keys can't be fetched.
        """
        key = choose(self._keys, kid if self._named else None, algorithm)
        if key is None:
            raise InvalidToken(
                "the token is refused: no key of the provider has its key id and algorithm. Sign in again"
            )
        return key


class FetchedKeySet(KeySet):
    """The keys published at *uri*.  One fetch at a time runs in a thread, and all requests share it."""

    def __init__(
        self, uri: str, limits: FetchLimits | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(())
        self._uri, self._limits, self._clock = uri, limits or FetchLimits(), clock
        self.timeout = self._limits.timeout
        self._lock = threading.Lock()
        self._fetched_at = self._started_at = -math.inf
        self._failing = False
        self._fetch: Future[None] | None = None

    def refresh(self, kid: str | None, algorithm: str) -> Future[None] | None:
        with self._lock:
            now = self._clock()
            age, idle = now - self._fetched_at, now - self._started_at
            known = age < self._limits.max_stale and choose(self._keys, kid, algorithm) is not None
            if known and age < self._limits.lifespan:
                return None
            # A fetch of more than twice its timeout hangs in name resolution, or was lost in a fork.
            if idle >= self._limits.cooldown and (self._fetch is None or idle > 2 * self.timeout):
                self._fetch, self._started_at = Future(), now
                # Running: a request that stops waiting can't cancel the fetch for the others.
                self._fetch.set_running_or_notify_cancel()
                threading.Thread(target=self._run, args=(self._fetch, now), daemon=True).start()
            # In an outage, requests use the last keys at once, and don't wait for the next attempt.
            return None if known and self._failing else self._fetch

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        with self._lock:
            outdated = self._clock() - self._fetched_at >= self._limits.max_stale
            if not outdated and not self._failing and self._fetch is None:
                return super().find(kid, algorithm)
            key = None if outdated else choose(self._keys, kid, algorithm)
            if key is None:
                raise KeysUnavailable(
                    "the token can't be verified: the provider's keys can't be fetched (see the log). "
                    "Try again later"
                )
            return key

    def _run(self, fetch: Future[None], started_at: float) -> None:
        keys: tuple[Key, ...] | None = None
        try:
            keys = keys_in(download(self._uri, self._limits))
            if not keys:
                _log.warning("tokens can't be verified: %s has no usable key", self._uri.partition("?")[0])
        except Exception as error:  # after any error, the waiting requests need an answer
            _log.warning("the keys at %s can't be fetched: %s", self._uri.partition("?")[0], error)
        with self._lock:
            if self._fetch is fetch:
                self._fetch, self._failing = None, not keys
                if keys is not None:
                    self._keys, self._fetched_at = keys, started_at
        fetch.set_result(None)


def download(uri: str, limits: FetchLimits) -> object:
    """Return the JSON document at *uri*.

    Raises:
        OSError: the server can't be reached.
        HTTPException: the answer isn't HTTP.
        ValueError: the status isn't 200, or the document is too long or no JSON.
    """
    # Without urllib's usual handlers, redirects aren't followed, and file: and ftp: are unknown.
    opener = urllib.request.OpenerDirector()
    if uri.lower().startswith("https:"):  # http: means this machine, without a proxy
        opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(_Handler(time.monotonic() + limits.timeout))
    request = urllib.request.Request(uri, headers={"User-Agent": "sqla-rls"})  # noqa: S310 (checked)
    with opener.open(request, timeout=limits.timeout) as response:
        if response.status != 200:
            raise ValueError(f"the status is {response.status}, not 200")
        body = response.read(limits.max_bytes + 1)
    if len(body) > limits.max_bytes:
        raise ValueError(f"the document is longer than {limits.max_bytes} bytes")
    return json.loads(body)


class _Handler(urllib.request.AbstractHTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.deadline = deadline

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        # A new context, since a program may have turned off verification in http.client's default one.
        return self.do_open(http.client.HTTPSConnection, request, context=ssl.create_default_context())

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def do_open(self, http_class: Any, req: urllib.request.Request, **kw: Any) -> http.client.HTTPResponse:
        def connection(host: str, **kw: Any) -> Any:
            made = http_class(host, **kw)
            made.response_class = partial(_Response, deadline=self.deadline)
            return made

        return super().do_open(connection, req, **kw)


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kw: Any) -> None:
        super().__init__(sock, *args, **kw)
        self.fp = io.BufferedReader(_UntilDeadline(self.fp.detach(), sock, deadline))


class _UntilDeadline(io.RawIOBase):
    # urllib restarts its timeout with every byte, so a slow server could hold the thread forever.
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw, self._sock, self._deadline = raw, sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
