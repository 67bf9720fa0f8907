"""Tokens that the application signs for the database.

The signer for pg_session_jwt uses Ed25519, with a key for one connection that never leaves the process.  The
signer for the functions of ``op.create_auth_functions(signed=True)`` uses HS256, with a key that the database
has, too.
"""

from __future__ import annotations

import json
import string
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt import PyJWS
from jwt.algorithms import OKPAlgorithm

from sqla_rls.exc import SigningKeyRejected
from sqla_rls.tokens import clock

#: A base64url-encoded key of 32 bytes, or a function that returns the present one.
SigningKey: TypeAlias = str | Callable[[], str]

#: The lifetime of an HS256 token and the age at which a new one replaces it, in seconds.  The verifier has a
#: leeway of 60 seconds, so clocks may differ by 90.
LIFETIME: Final = 60
RENEWAL: Final = 30
#: The number of HS256 tokens that a connection caches.
KEPT: Final = 100

# The verifier requires this type, so that a token for another purpose fails (RFC 8725, section 3.11).
_HS256_HEADERS: Final = {"typ": "rls+jwt"}
# The signer sets these claims itself; the verifier has checked those of the provider's token.
_OURS: Final = frozenset({"exp", "nbf", "pid"})

_jws = PyJWS()
_encode: Final = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"), default=dict).encode


class Signer(Protocol):
    """Signs tokens for one connection, and reuses a token as long as it is valid."""

    #: A text for the log.
    kind: str
    #: Whether its tokens are valid on that connection only.
    bound: bool

    def token(self, claims: Mapping[str, Any], claims_json: str, expires_at: float | None) -> str:
        """Return a token of *claims* that is valid until *expires_at*; *claims_json* is their text."""
        ...


class Ed25519Signer:
    """Signs for pg_session_jwt; ``jwk`` goes into the connection's startup parameters.

    The token has a rising integer ``jti`` instead of the provider's, and no ``nbf``.  It expires with the
    caller.
    """

    kind = "Ed25519, by a key of each connection, for pg_session_jwt"
    bound = True

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = OKPAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.jwk = _encode({name: public[name] for name in ("kty", "crv", "x")})
        self._jti = 0
        self._last: tuple[str | None, float | None, str] = (None, None, "")

    def token(self, claims: Mapping[str, Any], claims_json: str, expires_at: float | None) -> str:
        expires_at = clock.machine_time(expires_at)
        known, until, token = self._last
        if known != claims_json or until != expires_at:
            self._jti += 1
            token = _sign(claims, {"jti": self._jti}, expires_at, self._key, "EdDSA")
            self._last = claims_json, expires_at, token
        return token


class HS256Signer:
    """Signs for the functions of ``op.create_auth_functions(signed=True)``.

    The token is valid for a minute, or until the caller expires.  It has no ``nbf``.

    Args:
        key: the signing key, or a function that returns the present one.
        pid: the server process for which the tokens are valid; None for every process.
    """

    kind = "HS256, by the key of the database, for its own functions"

    def __init__(self, key: SigningKey, pid: int | None) -> None:
        self._key = key
        self.bound = pid is not None
        self._more = {} if pid is None else {"pid": pid}
        self._signed_by = ""
        #: The end of its reuse and the token, by the text of the claims and the end of the caller.
        self._kept: dict[tuple[str, float | None], tuple[float, str]] = {}

    def token(self, claims: Mapping[str, Any], claims_json: str, expires_at: float | None) -> str:
        key = self._key() if callable(self._key) else self._key
        # A file of `sqla-rls rotate-key > signing.key` ends in a newline.
        if isinstance(key, str):
            key = key.strip(string.whitespace)
        if key != self._signed_by:
            self._signed_by, self._kept = key, {}
        now, last = time.time(), clock.machine_time(expires_at)
        until, token = self._kept.get((claims_json, expires_at), (0.0, ""))
        if now >= until:
            end = now + LIFETIME if last is None else min(now + LIFETIME, last)
            token = _sign(claims, self._more, end, _decoded(key), "HS256", _HS256_HEADERS)
            if len(self._kept) >= KEPT:
                self._kept = {}
            self._kept[claims_json, expires_at] = min(now + RENEWAL, end), token
        return token


def _decoded(key: str) -> bytes:
    try:
        secret = b64decode(key + "=" * (-len(key) % 4), altchars="-_", validate=True)
    except (TypeError, ValueError):
        secret = b""
    if len(secret) != 32:
        raise SigningKeyRejected(
            "the caller can't be signed: the signing key isn't 32 bytes in base64url. "
            "Give it as `sqla-rls rotate-key` prints it"
        )
    return secret


def _sign(
    claims: Mapping[str, Any],
    more: Mapping[str, int],
    end: float | None,
    key: Any,
    algorithm: str,
    headers: dict[str, Any] | None = None,
) -> str:
    payload = {name: value for name, value in claims.items() if name not in _OURS} | dict(more)
    if end is not None:
        payload["exp"] = int(end)
    return _jws.encode(_encode(payload).encode(), key, algorithm, headers)
