"""Tokens for the database, which believes the claims only that the application has signed.

With pg_session_jwt: Ed25519, by a key that is made for one connection and never leaves the process.  With
the functions of ``op.create_auth_functions(signed=True)``: HS256, by the key that the database has, too.
"""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt import PyJWS
from jwt.algorithms import OKPAlgorithm

from sqla_rls.exc import SigningKeyRejected

#: A base64url-encoded key of 32 bytes, or what returns the one to sign with now.
SigningKey: TypeAlias = str | Callable[[], str]

#: Seconds for which an HS256 token is made, and after which it is made anew: with the verifier's leeway of
#: 60 seconds clocks may differ by 90.
LIFETIME: Final = 60
RENEWAL: Final = 30
#: Of how many people a connection keeps the HS256 tokens.
KEPT: Final = 100

# To the letter what the verifier wants: no token that was made for another purpose passes (RFC 8725, 3.11).
_HS256_HEADERS: Final = {"typ": "rls+jwt"}
# What the database checks is ours to say; those of the provider's token were verified.
_OURS: Final = frozenset({"exp", "nbf", "pid"})

_jws = PyJWS()
_encode: Final = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"), default=dict).encode


class Signer(Protocol):
    """Signs for one connection; a token is used again as long as it is good."""

    #: For the log.
    kind: str
    #: Whether its tokens are good on that connection only.
    bound: bool

    def token(self, claims: Mapping[str, Any], claims_json: str, expires_at: float | None) -> str:
        """A token of *claims*, of which *claims_json* is the text, good until *expires_at*."""
        ...


class Ed25519Signer:
    """For pg_session_jwt: *jwk* goes into the connection's startup parameters.

    The token has a rising integer ``jti``, instead of the provider's own, and no ``nbf``; its ``exp`` is when
    the caller expires.
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
        known, until, token = self._last
        if known != claims_json or until != expires_at:
            self._jti += 1
            token = _sign(claims, {"jti": self._jti}, expires_at, self._key, "EdDSA")
            self._last = claims_json, expires_at, token
        return token


class HS256Signer:
    """For the portable functions; with a *pid*, for the server's process of that number alone.

    The token lives for a minute, or until the caller expires; it has no ``nbf``.
    """

    kind = "HS256, by the key of the database, for its own functions"

    def __init__(self, key: SigningKey, pid: int | None) -> None:
        self._key = key
        self.bound = pid is not None
        self._more = {} if pid is None else {"pid": pid}
        self._signed_by = ""
        #: By the text of the claims: until when a token is used again, and the token.
        self._kept: dict[tuple[str, float | None], tuple[float, str]] = {}

    def token(self, claims: Mapping[str, Any], claims_json: str, expires_at: float | None) -> str:
        key = self._key() if callable(self._key) else self._key
        if key != self._signed_by:
            self._signed_by, self._kept = key, {}
        now = time.time()
        until, token = self._kept.get((claims_json, expires_at), (0.0, ""))
        if now >= until:
            end = now + LIFETIME if expires_at is None else min(now + LIFETIME, expires_at)
            token = _sign(claims, self._more, end, _decoded(key), "HS256", _HS256_HEADERS)
            if len(self._kept) >= KEPT:
                self._kept = {}
            self._kept[claims_json, expires_at] = min(now + RENEWAL, end), token
        return token


def _decoded(key: str) -> bytes:
    try:
        secret = urlsafe_b64decode(key + "=" * (-len(key) % 4))
    except (TypeError, ValueError):
        secret = b""
    if len(secret) != 32:
        raise SigningKeyRejected(
            "the signing key isn't 32 bytes in base64url: give it as `sqla-rls rotate-key` prints it"
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
