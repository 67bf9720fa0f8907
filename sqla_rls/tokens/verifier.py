"""The ``Verifier``, which turns a token into a ``Caller``.

A token is hearsay until every check has passed.  The first that fails raises InvalidToken, whose
message names the check and never what the token holds.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import jwt

from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.jwks import FetchLimits, KeySet
from sqla_rls.tokens.provider import Provider

# Header members by which a token brings its own key along, or rules that this reader doesn't know.
_FORBIDDEN_HEADERS: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64"})
_TYPES: Final = ("jwt", "at+jwt")  # RFC 9068; not logout+jwt and the like: same key, other purpose

_REASONS: Final[dict[type[Exception], str]] = {
    jwt.InvalidSignatureError: "the token isn't signed by its provider's key; sign in again",
    jwt.InvalidAudienceError: "the token was issued for another audience; get one for this application",
    jwt.exceptions.InvalidSubjectError: "the token's subject isn't text, as RFC 7519 wants it",
    jwt.ImmatureSignatureError: "the token isn't valid yet; compare this machine's clock with its provider's",
}


class Verifier:
    """Turns the tokens of *providers* into callers.

    - ``leeway``: seconds by which clocks may differ, in ``exp``, ``nbf`` and ``iat``; a caller's
      ``expires_at`` includes it, so that a token ends at one moment wherever it is looked at.
    - ``required_claims``: those that a token must have besides ``exp``, ``iss`` and ``sub``.
    - ``cache_size``: how many verified tokens are remembered, by their digest; 0 for none.
    - ``cache_for``: seconds until a remembered token is verified anew.  A key that its provider has
      withdrawn is believed for this plus ``limits.lifespan`` (in an outage ``max_stale``) at most.
    - ``max_token_length``: in characters; longer ones aren't looked at.
    - ``subjects_are_distinct``: no two of the providers issue the same subject, or policies test claim
      ``iss``.  Without it, several providers raise DeclarationError unless their roles differ: a subject is
      unique within one issuer only (RFC 7519, section 4.1.2), and ``auth_uid()`` compares the subject alone.
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
            raise DeclarationError("a Verifier needs providers, each of another issuer")
        if not 0 <= leeway <= 300 or isinstance(required_claims, str):
            raise DeclarationError("leeway is 0 to 300 seconds, required_claims a sequence of names")
        self._leeway, self._max_token_length = leeway, max_token_length
        self._required = ["exp", "iss", "sub", *required_claims]
        self._cache_size, self._cache_for = cache_size, cache_for
        self._cache: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> Caller:
        """The caller that *token* proves; may wait for its provider's keys, ``limits.timeout`` seconds.

        Raises InvalidToken, ExpiredToken, or KeysUnavailable where the keys can't be had.
        """
        found = self._begin(token)
        if isinstance(found, Caller):
            return found
        if found.fetch is not None:
            wait((found.fetch,), timeout=found.keys.timeout)
        return self._end(found)

    async def verify_async(self, token: str) -> Caller:
        """The same under asyncio: the event loop goes on while keys are waited for."""
        found = self._begin(token)
        if isinstance(found, Caller):
            return found
        if found.fetch is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(found.fetch), found.keys.timeout)
        return self._end(found)

    def _begin(self, token: str) -> Caller | _Unverified:
        if not isinstance(token, str) or not token.isascii():
            raise InvalidToken("the token isn't ASCII text; send it as its provider issued it")
        if len(token) > self._max_token_length:
            raise InvalidToken("the token is too long; raise max_token_length if its provider means it")
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
            raise InvalidToken(f"the token's header has {member!r}; it may bring no key and no extension")
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(kid, str | None) or str(kind).lower().removeprefix("application/") not in _TYPES:
            raise InvalidToken("the token's 'kid' isn't text, or its 'typ' is that of no access token")
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise InvalidToken("the token's issuer isn't configured; compare 'iss' to the letter")
        provider, keys = self._issuers[issuer]
        if isinstance(algorithm, str) and algorithm.startswith("HS"):
            raise InvalidToken(
                f"the token is signed with a secret; let provider {provider.name!r} use a key pair"
            )
        if algorithm not in provider.algorithms:
            raise InvalidToken(f"the token's algorithm isn't among those of provider {provider.name!r}")
        for claim in claims.keys() & {"exp", "nbf", "iat"}:
            # PyJWT takes text and true for a number, and milliseconds for the year 50,000.
            if type(claims[claim]) not in (int, float) or not 0 <= claims[claim] < 253402300800:
                raise InvalidToken(f"the token's {claim!r} isn't in seconds since the epoch")
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
        raise refusal  # here, where it has no context: that would hold claims

    def _verified(self, token: _Unverified) -> Caller:
        provider, claims = token.provider, token.claims
        jwt.decode(
            token.text,
            token.keys.find(token.kid, token.algorithm),
            [token.algorithm],  # one of the provider's, and one that the key fits
            {"require": self._required, "verify_aud": provider.audience is not None},
            audience=provider.audience,
            issuer=provider.issuers,
            leeway=self._leeway,
        )
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


def _require_roles_apart(providers: Sequence[Provider]) -> None:
    roles: dict[str, str] = {}
    for provider in providers:
        for role in {provider.role, *provider.roles}:
            if role in roles:
                raise DeclarationError(
                    f"the Verifier can't tell people apart: providers {roles[role]!r} and {provider.name!r} "
                    f"may issue the same subject for role {role!r}, and auth_uid() compares it alone. "
                    "Give each provider a role of its own; or say subjects_are_distinct=True, if no two "
                    "issuers share a subject or the policies test jwt_claim('iss')"
                )
            roles[role] = provider.name


def _refusal(problem: Exception) -> InvalidToken:
    if isinstance(problem, jwt.ExpiredSignatureError):
        return ExpiredToken("the token has expired; refresh it or sign in again")
    if isinstance(problem, jwt.MissingRequiredClaimError):
        return InvalidToken(f"the token lacks claim {problem.claim!r}")
    if isinstance(problem, DeclarationError):
        return InvalidToken(f"the token can't be used: {problem}")
    return InvalidToken(_REASONS.get(type(problem), "the token isn't valid; sign in again"))


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
        # Python's reader passes over strange characters and what is left over at the end.
        canonical = ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
        objects = [json.loads(part.decode(), object_pairs_hook=_unique) for part in parts[:2]]
        if canonical == token and len(parts) == 3 and all(isinstance(value, dict) for value in objects):
            return objects
    raise InvalidToken("the token isn't a JWT, or names something twice; send it as issued")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two equal names one reader takes the first, another the last.
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)
