"""The ``Caller``: a ``Verifier`` makes one of a token, or an application makes it directly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens import clock
from sqla_rls.tokens.names import PROVIDER_SUBJECT, check_role

# ASCII text has the same bytes in every client encoding.  With sorted keys, equal claims are equal text.
_encode: Final = json.JSONEncoder(allow_nan=False, sort_keys=True, separators=(",", ":"), default=dict).encode
#: Claims in which two tokens of one sign-in differ (RFC 7519, section 4.1; OpenID Connect Core, section 2).
PER_TOKEN_CLAIMS: Final = frozenset(
    {"iat", "exp", "nbf", "jti", "auth_time", "nonce", "at_hash", "c_hash", "s_hash"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller with a Postgres role and claims, until it expires.

    A caller is immutable at any depth, so one caller serves every request with its token.  ``pickle`` and
    ``copy`` accept it, for a worker process.

    Args:
        role: the Postgres role of the caller's transactions.
        subject: the claim ``sub``; None for a caller without one.
        claims: the claims, as ``auth.jwt()`` returns them.
        expires_at: the end of the caller, in seconds since the epoch; None for no end.
        per_token_claims: more claims in which two tokens of one sign-in differ, by their names or paths.
            ``iat``, ``exp``, ``nbf``, ``jti``, ``auth_time``, ``nonce`` and the hashes of OpenID Connect
            always count as such.  ``Verifier`` passes those of the provider.

    Raises:
        DeclarationError: the role isn't a name of a role, or Postgres can't hold the claims.  Or the subject
            differs from claim ``sub``, or the end isn't a finite number.
    """

    role: str
    subject: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    expires_at: float | None = None
    per_token_claims: tuple[str | tuple[str, ...], ...] = field(default=(), compare=False)
    claims_json: str = field(init=False)  # compact; the value of request.jwt.claims
    _sign_in: str | None = field(init=False, default=None, compare=False)

    def __post_init__(self) -> None:
        if self.expires_at is not None and not _is_time(self.expires_at):
            raise DeclarationError(
                "the caller has no valid end: expires_at= isn't a finite number. Give seconds since the epoch"
            )
        claims = self.claims if self.subject is None else {"sub": self.subject, **self.claims}
        if self.subject == "" or claims.get("sub") != self.subject:
            raise DeclarationError(
                "the caller has no valid subject: it is empty, or claim 'sub' differs. Give subject= alone"
            )
        try:
            check_role(self.role)
            object.__setattr__(self, "claims", _frozen(claims))
            object.__setattr__(self, "claims_json", _encode(self.claims))
        except ValueError as problem:
            raise DeclarationError(f"{problem}") from None

    @classmethod
    def anonymous(cls, role: str = "anonymous") -> Caller:
        """Return a caller without a token.  In Supabase the role is ``anon``."""
        return cls(role=role)

    def is_expired(self, now: float | None = None) -> bool:
        """Return whether the caller has expired at *now*, in seconds since the epoch; None is the present."""
        return self.expires_at is not None and self.expires_at <= (clock.now() if now is None else now)

    def sign_in(self, names: Sequence[str] | None = None) -> str:
        """Return the claims as JSON, without those in which two tokens of one sign-in differ.

        Args:
            names: return ``iss``, ``sub``, ``provider_sub`` and the claims of these names instead.
        """
        if names is not None:
            always = ("iss", "sub", PROVIDER_SUBJECT)
            return _encode({name: self.claims.get(name) for name in (*always, *names)})
        if self._sign_in is None:
            kept = {name: value for name, value in self.claims.items() if name not in PER_TOKEN_CLAIMS}
            for claim in self.per_token_claims:
                kept = _without(kept, (claim,) if isinstance(claim, str) else claim)
            object.__setattr__(self, "_sign_in", _encode(kept))
        assert self._sign_in is not None
        return self._sign_in

    def __reduce__(self) -> tuple[Any, ...]:
        # The constructor checks and freezes the claims.
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return partial(type(self), **{**given, "claims": json.loads(self.claims_json)}), ()

    def __repr__(self) -> str:
        # Callers end up in logs, and claims are personal.
        subject = None if self.subject is None else "…"
        return f"Caller(role={self.role!r}, subject={subject}, expires_at={self.expires_at})"


def _is_time(value: Any) -> bool:
    # A comparison with NaN is false, so such a caller would never expire.
    return isfinite(value) if isinstance(value, float) else type(value) is int


def _without(claims: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    kept = dict(claims)
    if len(path) == 1:
        kept.pop(path[0], None)
    elif isinstance(inner := kept.get(path[0]), Mapping):
        kept[path[0]] = _without(inner, path[1:])
    return kept


def _frozen(value: Any, depth: int = 0) -> Any:
    """Return an immutable copy of the JSON *value*.

    Raises:
        ValueError: jsonb can't hold the value.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
            raise ValueError(
                "the claims can't be bound: they hold a NUL or a lone surrogate, which jsonb refuses. "
                "Leave it out"
            )
        return value
    if depth > 32:
        raise ValueError("the claims can't be bound: they are nested more than 32 levels deep. Flatten them")
    if isinstance(value, list | tuple):
        return tuple([_frozen(inner, depth + 1) for inner in value])
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return MappingProxyType({_frozen(name): _frozen(inner, depth + 1) for name, inner in value.items()})
    raise ValueError(
        "the claims can't be bound: they hold a value that isn't JSON. Give text, numbers and lists"
    )
