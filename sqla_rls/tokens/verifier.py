"""The ``Verifier``, which turns a token into a ``Caller``.

The first failed check raises InvalidToken.  Its message names the check, and holds no claim of the token.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import jwt

from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken
from sqla_rls.tokens import clock
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.jwks import FetchLimits, KeySet
from sqla_rls.tokens.provider import Provider

# Members of a header that carry a key, or extensions that this verifier doesn't support.
_SYMMETRIC: Final = ("HS256", "HS384", "HS512")
_FORBIDDEN_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64"})
_TYPES: Final = ("jwt", "at+jwt")  # RFC 9068; a type such as logout+jwt has the same key and another purpose

_REASONS: Final[dict[type[Exception], str]] = {
    jwt.InvalidSignatureError: "the token is refused: its provider's key hasn't signed it. Sign in again",
    jwt.InvalidAudienceError: (
        "the token is refused: its provider issued it for another audience. Get one for this application"
    ),
    jwt.exceptions.InvalidSubjectError: (
        "the token is refused: its subject isn't text (RFC 7519). Get one with a text subject"
    ),
    jwt.ImmatureSignatureError: (
        "the token is refused: it isn't valid yet. Compare this machine's clock with its provider's"
    ),
}


class Verifier:
    """Turns the tokens of *providers* into callers.

    Args:
        providers: the identity providers, each with another issuer.
        leeway: the seconds by which clocks may differ, for ``exp``, ``nbf`` and ``iat``.  The
            ``expires_at`` of a caller includes it.
        required_claims: claims that a token must have, in addition to ``exp``, ``iss`` and ``sub``.
        cache_size: the number of verified tokens in the cache, by their digest; 0 for none.
        cache_for: the seconds until a token in the cache is verified again.  A withdrawn key counts for
            this time plus ``limits.lifespan``, in an outage plus ``limits.max_stale``.
        max_token_length: the characters of a token; longer tokens are refused.
        limits: the limits for fetching keys; None is ``FetchLimits()``.
        subjects_are_distinct: no two providers issue the same subject, or the policies test claim ``iss``.
            A subject is unique within one issuer only (RFC 7519, section 4.1.2), and ``auth_uid()`` compares
            only the subject.

    Raises:
        DeclarationError: an argument is wrong, or two providers share a role without
            *subjects_are_distinct*.
    """

    def __init__(
        self,
        *providers: Provider,
        leeway: float = 30.0,
        required_claims: Sequence[str] = (),
        cache_size: int = 4096,
        cache_for: float = 300.0,
        max_token_length: int = 16 * 1024,
        limits: FetchLimits | None = None,
        subjects_are_distinct: bool = False,
    ) -> None:
        if not subjects_are_distinct:
            _require_roles_apart(providers)
        pairs = [(provider, provider.key_set(limits)) for provider in providers]
        self._issuers = {issuer: pair for pair in pairs for issuer in pair[0].issuers}
        if not providers or len(self._issuers) != sum(len(provider.issuers) for provider in providers):
            raise DeclarationError(
                "the Verifier can't be made: it has no providers, or two of them have one issuer. "
                "Give providers, each with another issuer"
            )
        if not 0 <= leeway <= 300 or isinstance(required_claims, str):
            raise DeclarationError(
                "the Verifier can't be made: leeway or required_claims is wrong. "
                "Give 0 to 300 seconds, and a sequence of names"
            )
        self._leeway, self._max_token_length = leeway, max_token_length
        self._required = ["exp", "iss", "sub", *required_claims]
        self._cache_size, self._cache_for = cache_size, cache_for
        self._cache: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> Caller:
        """Return the caller that *token* proves.

        The call may wait for the provider's keys, ``limits.timeout`` seconds at most.

        Raises:
            InvalidToken: the token is refused.
            ExpiredToken: the token has expired.
            KeysUnavailable: the provider's keys can't be fetched.
        """
        found = self._begin(token)
        if isinstance(found, Caller):
            return found
        if found.fetch is not None:
            wait((found.fetch,), timeout=found.keys.timeout)
        return self._end(found)

    async def verify_async(self, token: str) -> Caller:
        """Return the caller that *token* proves, as ``verify()`` does, without blocking the event loop."""
        found = self._begin(token)
        if isinstance(found, Caller):
            return found
        if found.fetch is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(found.fetch), found.keys.timeout)
        return self._end(found)

    def _begin(self, token: str) -> Caller | _Unverified:
        if not isinstance(token, str) or not token.isascii():
            raise InvalidToken("the token is refused: it isn't ASCII text. Send it as its provider issued it")
        if len(token) > self._max_token_length:
            raise InvalidToken(
                "the token is refused: it is too long. Raise max_token_length if its provider issues "
                "such tokens"
            )
        digest = sha256(token.encode()).digest()
        with self._lock:
            if (entry := self._cache.get(digest)) is not None:
                caller, until = entry
                if time.monotonic() < until and not caller.is_expired():
                    self._cache.move_to_end(digest)
                    return caller
                del self._cache[digest]
        return self._read(token, digest)

    def _read(self, token: str, digest: bytes) -> _Unverified:
        header, claims = _objects_in(token)
        for member in _FORBIDDEN_HEADERS & header.keys():
            raise InvalidToken(
                f"the token is refused: its header has {member!r}, a key or an extension. Sign in again"
            )
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(kid, str | None) or str(kind).lower().removeprefix("application/") not in _TYPES:
            raise InvalidToken(
                "the token is refused: its 'kid' isn't text, or its 'typ' isn't that of an access token. "
                "Send an access token"
            )
        if isinstance(algorithm, str) and algorithm in _SYMMETRIC:
            # Before the issuer: the legacy API keys of Supabase have another one.
            raise InvalidToken(
                f"the token is refused: a shared secret has signed it ({algorithm}). Sign with a key pair: "
                "in Supabase, a JWT signing key"
            )
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise InvalidToken(
                "the token is refused: its issuer isn't configured. Compare 'iss' with the provider's issuer"
            )
        provider, keys = self._issuers[issuer]
        if algorithm not in provider.algorithms:
            raise InvalidToken(
                f"the token is refused: its algorithm isn't one of provider {provider.name!r}. Sign in again"
            )
        for claim in claims.keys() & {"exp", "nbf", "iat"}:
            # PyJWT accepts text and true as numbers, and milliseconds as the year 50,000.
            if type(claims[claim]) not in (int, float) or not 0 <= claims[claim] < 253402300800:
                raise InvalidToken(
                    f"the token is refused: its {claim!r} isn't in seconds since the epoch. Sign in again"
                )
        fetch = keys.refresh(kid, algorithm)
        return _Unverified(token, digest, claims, provider, keys, kid, algorithm, fetch)

    def _end(self, token: _Unverified) -> Caller:
        try:
            caller = self._verified(token)
        except (jwt.PyJWTError, DeclarationError, ValueError, TypeError) as problem:
            refusal = _refusal(problem)
        else:
            with self._lock:
                self._cache[token.digest] = caller, time.monotonic() + self._cache_for
                while len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)
            return caller
        raise refusal  # outside the except block, since its context would hold claims

    def _verified(self, token: _Unverified) -> Caller:
        provider, claims = token.provider, token.claims
        jwt.decode(
            token.text,
            token.keys.find(token.kid, token.algorithm),
            [token.algorithm],  # an algorithm of the provider that fits the key
            {
                "require": self._required,
                "verify_aud": provider.audience is not None,
                # _require_current() checks these by the clock of sqla_rls, which tests freeze.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
            audience=provider.audience,
            issuer=provider.issuers,
        )
        _require_current(claims, clock.now(), self._leeway)
        provider.check_claims(claims)
        role, expires_at = provider.role_for(claims), int(claims["exp"]) + self._leeway
        bound = provider.bound_claims(claims)
        return Caller(
            role=role,
            subject=bound["sub"],
            claims=bound,
            expires_at=expires_at,
            per_token_claims=provider.per_token_claims,
        )


def _require_current(claims: Mapping[str, Any], now: float, leeway: float) -> None:
    """Raise the errors of PyJWT unless the token is valid at *now*, in seconds since the epoch."""
    for claim in ("iat", "nbf"):
        if claim in claims and int(claims[claim]) > now + leeway:
            raise jwt.ImmatureSignatureError
    if int(claims["exp"]) <= now - leeway:
        raise jwt.ExpiredSignatureError


def _require_roles_apart(providers: Sequence[Provider]) -> None:
    roles: dict[str, str] = {}
    for provider in providers:
        for role in {provider.role, *provider.roles}:
            if role in roles:
                raise DeclarationError(
                    f"the Verifier can't tell callers apart: providers {roles[role]!r} and {provider.name!r} "
                    f"may issue the same subject for role {role!r}, and auth_uid() compares only the "
                    "subject. "
                    "Give each provider a role of its own; or set subjects_are_distinct=True, if no two "
                    "issuers share a subject or the policies test jwt_claim('iss')"
                )
            roles[role] = provider.name


def _refusal(problem: Exception) -> InvalidToken:
    if isinstance(problem, jwt.ExpiredSignatureError):
        return ExpiredToken("the token is refused: it has expired. Refresh it or sign in again")
    if isinstance(problem, jwt.MissingRequiredClaimError):
        return InvalidToken(
            f"the token is refused: it lacks claim {problem.claim!r}. Get one with this claim"
        )
    if isinstance(problem, DeclarationError):
        return InvalidToken(f"the token is refused: {problem}")
    return InvalidToken(_REASONS.get(type(problem), "the token is refused: it isn't valid. Sign in again"))


@dataclass(frozen=True, slots=True, repr=False)
class _Unverified:
    text: str
    digest: bytes
    claims: dict[str, Any]
    provider: Provider
    keys: KeySet
    kid: str | None
    algorithm: str
    fetch: Future[None] | None


def _objects_in(token: str) -> list[dict[str, Any]]:
    with suppress(ValueError, RecursionError):
        parts = [urlsafe_b64decode(part + "==") for part in token.split(".", 3)]
        # Python's decoder ignores invalid characters, and bits after the end.
        canonical = ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        objects = [json.loads(part.decode(), object_pairs_hook=_unique) for part in parts[:2]]
        if canonical == token and len(parts) == 3 and all(isinstance(value, dict) for value in objects):
            return objects
    raise InvalidToken(
        "the token is refused: it isn't a JWT, or has a name twice. Send it as its provider issued it"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two equal names, some readers take the first, and others the last.
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)
