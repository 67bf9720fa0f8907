"""A provider's public keys: read, fetched, kept for a while, and found by key id.

A provider is asked rarely, whoever wants a key and whatever key ids strangers invent; and a key that
it has withdrawn is believed for a bounded time, also in an outage.  ``FetchLimits`` has the bounds.
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

#: What is secret in a JWK: a key that carries any of it was never meant to be published.
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})

#: The algorithms that verify with a key that can't sign.
ALGORITHMS: Final = frozenset(_CURVES.values()) | _RSA | {"EdDSA"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How often a provider is asked for its keys, and what its answer may cost.  Ages are in seconds.

    With a ``cooldown`` of 10 s, a key that is used before it was published works 10 s later, and a
    storm of invented key ids costs the provider six requests a minute and process.
    """

    timeout: float = 5.0  # of a fetch as a whole, and of waiting for it
    lifespan: float = 300.0  # for so long keys are believed without asking again
    cooldown: float = 10.0  # between two fetches, whatever asked and whatever came of it
    max_stale: float = 3600.0  # since the last good fetch: its keys serve while fetches fail
    max_bytes: int = 512 * 1024

    def __post_init__(self) -> None:
        ages = 0 < self.cooldown <= self.lifespan <= self.max_stale
        if not (ages and self.timeout > 0 and self.max_bytes > 0):
            raise DeclarationError("FetchLimits: all are above 0, and cooldown <= lifespan <= max_stale")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A public key and the algorithms that it verifies: the one that its JWK names, or all that fit."""

    kid: str | None
    algorithms: frozenset[str]
    public: PublicKey


def keys_in(document: object) -> tuple[Key, ...]:
    """The usable keys of the JWKS *document*, whatever else is in it; ValueError if it isn't one."""
    entries: Any = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JWKS document, which is an object with a list named 'keys'")
    return tuple(key for key in map(_usable, entries) if key is not None)


def _usable(entry: Any) -> Key | None:
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return None
        if PRIVATE_MEMBERS & entry.keys() or not isinstance(entry.get("kid"), str | None):
            return None
        public: Any = PyJWK(entry).key
        algorithms = algorithms_of(public) & ({entry["alg"]} if "alg" in entry else ALGORITHMS)
    except Exception:  # PyJWT has a dozen; the next release may have another
        return None
    return Key(kid=entry.get("kid"), algorithms=algorithms, public=public) if algorithms else None


def algorithms_of(public: object) -> frozenset[str]:
    """What *public* verifies: a curve has one algorithm, RSA needs 2048 bits (RFC 7518, 3.3 and 3.4)."""
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        return frozenset({_CURVES[public.curve.name]})
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return _RSA
    return frozenset({"EdDSA"} if isinstance(public, ed25519.Ed25519PublicKey) else ())


def choose(keys: Iterable[Key], kid: str | None, algorithm: str) -> PublicKey | None:
    """The one key that has the id *kid* and fits *algorithm*; without an id, the one that fits.

    Two different ones are as good as none: which is meant isn't for the bearer of a token to say.
    """
    fitting = [key.public for key in keys if algorithm in key.algorithms and kid in (None, key.kid)]
    return fitting[0] if fitting and all(key == fitting[0] for key in fitting) else None


class KeySet:
    """Keys that never change.  ``named=False``: they have no ids, and a token's is passed over."""

    timeout: float = 0.0  # seconds to wait for what ``refresh`` returns

    def __init__(self, keys: Iterable[Key], *, named: bool = True) -> None:
        self._keys = tuple(keys)
        self._named = named

    def refresh(self, kid: str | None, algorithm: str) -> Future[None] | None:
        """The fetch to wait for before ``find`` is asked; None if there is nothing to wait for."""
        return None

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key of these, out of those known; InvalidToken if there is none, KeysUnavailable if unsure."""
        key = choose(self._keys, kid if self._named else None, algorithm)
        if key is None:
            raise InvalidToken("no key of the provider has the token's key id and algorithm; sign in again")
        return key


class FetchedKeySet(KeySet):
    """The keys published at *uri*: one fetch at a time, in a thread of its own, for all who wait."""

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
            # One that takes twice its time hangs in name resolution, or was lost in a fork.
            if idle >= self._limits.cooldown and (self._fetch is None or idle > 2 * self.timeout):
                self._fetch, self._started_at = Future(), now
                # Running: a waiter that gives up can't cancel it for the others.
                self._fetch.set_running_or_notify_cancel()
                threading.Thread(target=self._run, args=(self._fetch, now), daemon=True).start()
            # In an outage the last keys serve at once: nobody waits for the next attempt to fail.
            return None if known and self._failing else self._fetch

    def find(self, kid: str | None, algorithm: str) -> PublicKey:
        with self._lock:
            outdated = self._clock() - self._fetched_at >= self._limits.max_stale
            if not outdated and not self._failing and self._fetch is None:
                return super().find(kid, algorithm)
            key = None if outdated else choose(self._keys, kid, algorithm)
            if key is None:
                raise KeysUnavailable("the provider's keys can't be fetched (see the log); try again later")
            return key

    def _run(self, fetch: Future[None], started_at: float) -> None:
        keys: tuple[Key, ...] | None = None
        try:
            keys = keys_in(download(self._uri, self._limits))
            if not keys:
                _log.warning("none of the keys at %s can be used", self._uri.partition("?")[0])
        except Exception as error:  # whatever it is, those who wait must get an answer
            _log.warning("the keys at %s can't be had: %s", self._uri.partition("?")[0], error)
        with self._lock:
            if self._fetch is fetch:
                self._fetch, self._failing = None, not keys
                if keys is not None:
                    self._keys, self._fetched_at = keys, started_at
        fetch.set_result(None)


def download(uri: str, limits: FetchLimits) -> object:
    """The JSON document at *uri*; OSError, HTTPException or ValueError if there is none."""
    # None of urllib's usual handlers: a redirect is a status like any other, file: and ftp: unknown.
    opener = urllib.request.OpenerDirector()
    if uri.lower().startswith("https:"):  # http: is this machine, which no proxy may stand in for
        opener.add_handler(urllib.request.ProxyHandler())
    # A context made here: programs turn verification off in http.client's default one.
    handler = _Handler(context=ssl.create_default_context())
    handler.deadline = time.monotonic() + limits.timeout
    opener.add_handler(handler)
    request = urllib.request.Request(uri, headers={"User-Agent": "sqla-rls"})  # noqa: S310 (checked)
    with opener.open(request, timeout=limits.timeout) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}, where only 200 will do")
        body = response.read(limits.max_bytes + 1)
    if len(body) > limits.max_bytes:
        raise ValueError(f"the document is longer than {limits.max_bytes} bytes")
    return json.loads(body)


class _Handler(urllib.request.HTTPSHandler):
    deadline = 0.0

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(http.client.HTTPConnection, request)

    http_request = urllib.request.HTTPSHandler.https_request

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
    # urllib's timeout starts anew with every byte: a server that drips would hold its reader for ever.
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
