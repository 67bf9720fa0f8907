"""The ``Provider``: the facts of an identity provider that no token can decide for itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.tokens.jwks import FetchedKeySet, FetchLimits, Key, KeySet
from sqla_rls.tokens.names import PROVIDER_SUBJECT, is_text
from sqla_rls.tokens.provider_checks import (
    check_algorithms,
    check_names,
    check_roles,
    check_subject,
    check_uri,
    keys_in_pem,
    path_of,
    public_keys_in,
)


class RoleOptions(TypedDict, total=False):
    """The arguments for the Postgres role and the subject of a token: see ``Provider``."""

    role: str
    role_claim: str | tuple[str, ...] | None
    roles: tuple[str, ...]
    subject_claim: str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An identity provider, and the rules for its tokens.

    Exactly one of ``jwks_uri``, ``jwks`` and ``public_key`` has the keys.

    Args:
        name: a name for errors.
        issuer: the ``iss`` claim, to the letter: a trailing slash counts.  With a tuple, one of them.
        jwks_uri: the URL of a JWKS document.
        jwks: a JWKS document.
        public_key: a public key in PEM.
        algorithms: the algorithms that a token may be signed with, such as ``("ES256",)``.
        audience: the value that the ``aud`` claim must hold; with a tuple, one of them.  None skips the
            check.
        required_claims: the accepted values of other claims, by their names.  None among the values accepts
            a missing claim; without values, every value of the claim is accepted.
        refused_subjects: the beginnings of ``sub`` claims that are refused, such as ``("anon@",)``.
        role: the Postgres role of a verified token.
        role_claim: a claim that chooses one of *roles* instead, by its name or path:
            ``("realm_access", "roles")``.  A token without the claim gets *role*.  A claim with another text,
            or of another type, makes the token invalid.  If the claim is a list, the first of *roles* in it
            wins, or *role* if the list has none of them.
        roles: the roles that *role_claim* may choose.
        subject_claim: the claim that identifies the caller instead of ``sub``, by its name or path.  Use it
            for policies on your own user ids, if the provider's ``sub`` is no uuid, for example.  Only you
            may write the claim, and no two people may share its value.  The value is bound as ``sub``, which
            ``auth.user_id()`` and ``auth.uid()`` read.  The provider's ``sub`` is bound as claim
            ``provider_sub``.  A token whose claim is missing, empty or no text is refused.
        per_token_claims: more claims in which two tokens of one sign-in differ, by their names or paths.
            The claims of the standards, such as ``iat``, ``exp`` and ``jti``, always count as such.  For a
            session, two tokens that differ in other claims belong to two callers.

    Raises:
        DeclarationError: an argument is wrong.
    """

    name: str
    issuer: str | tuple[str, ...]
    jwks_uri: str | None = field(default=None, repr=False)
    jwks: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    public_key: str | bytes | None = field(default=None, repr=False)
    algorithms: tuple[str, ...]
    audience: str | tuple[str, ...] | None
    required_claims: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict[str, Any], hash=False)
    refused_subjects: tuple[str, ...] = ()
    role: str = "authenticated"
    role_claim: str | tuple[str, ...] | None = None
    roles: tuple[str, ...] = ()
    subject_claim: str | tuple[str, ...] | None = None
    per_token_claims: tuple[str | tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        # Copies, since the caller of the constructor may change its own objects.
        object.__setattr__(self, "jwks", copy.deepcopy(self.jwks))
        object.__setattr__(self, "required_claims", dict(self.required_claims))
        try:
            check_names("issuer", self.issuer, "Give the 'iss' claim of its tokens")
            check_algorithms(self.algorithms)
            if self.audience is not None:
                check_names("audience", self.audience, "Give None to skip the check")
            for values in self.required_claims.values():
                if not isinstance(values, tuple) or not all(v is None or is_text(v) for v in values):
                    raise ValueError(
                        "required_claims isn't a mapping of names to tuples. Give {'typ': ('Bearer',)}, for "
                        "example"
                    )
            if self.refused_subjects != ():
                if isinstance(self.refused_subjects, str):
                    raise ValueError("refused_subjects isn't a tuple. Give ('anon@',), for example")
                check_names("refused_subjects", self.refused_subjects, "Give ('anon@',), for example")
            check_roles(self.role, self.role_claim, self.roles)
            if self.subject_claim is not None:
                check_subject(self.subject_claim, self.per_token_claims)
            if [self.jwks_uri, self.jwks, self.public_key].count(None) != 2:
                raise ValueError(
                    "its keys are ambiguous or missing. Give exactly one of jwks_uri, jwks and public_key"
                )
            if self.jwks_uri is not None:
                check_uri("jwks_uri", self.jwks_uri)
            elif not any(key.algorithms & set(self.algorithms) for key in self._declared_keys()):
                raise ValueError(
                    "none of its keys fits its algorithms. Give a key that fits; RSA needs 2048 bits"
                )
        except ValueError as problem:
            raise DeclarationError(f"provider {self.name!r} can't be made: {problem}") from None

    def key_set(self, limits: FetchLimits | None = None) -> KeySet:
        """Return the declared keys, or a new cache of the keys at ``jwks_uri``."""
        if self.jwks_uri is not None:
            return FetchedKeySet(self.jwks_uri, limits)
        return KeySet(self._declared_keys(), named=self.jwks is not None)

    @property
    def issuers(self) -> tuple[str, ...]:
        """The accepted ``iss`` claims."""
        return (self.issuer,) if isinstance(self.issuer, str) else self.issuer

    def role_for(self, claims: Mapping[str, Any]) -> str:
        """Return the role for a token with *claims*.

        Raises:
            InvalidToken: the claims name a role that isn't configured.
        """
        if self.role_claim is None:
            return self.role
        asked: Any = claims
        for name in path_of(self.role_claim):
            if isinstance(asked, Mapping) and name not in asked:
                return self.role
            asked = asked[name] if isinstance(asked, Mapping) else None
        if isinstance(asked, list):
            return next((role for role in self.roles if role in asked), self.role)
        if not isinstance(asked, str) or asked not in self.roles:
            raise InvalidToken(
                f"the token is refused: claim {self.role_claim!r} names a role that isn't one of provider "
                f"{self.name!r}. Add it to roles=, or change the claim"
            )
        return asked

    def bound_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return *claims* with the subject in ``sub``.

        Raises:
            InvalidToken: the claims have no subject at ``subject_claim``.
        """
        if self.subject_claim is None:
            return claims
        subject: Any = claims
        for name in path_of(self.subject_claim):
            subject = subject.get(name) if isinstance(subject, Mapping) else None
        if not isinstance(subject, str) or not subject.strip() or not claims["sub"]:
            raise InvalidToken(
                f"the token is refused: claim {self.subject_claim!r}, or 'sub', is missing, empty or no "
                f"text. Give that user an id at provider {self.name!r}, from which the subject comes"
            )
        return {**claims, "sub": subject, PROVIDER_SUBJECT: claims["sub"]}

    def check_claims(self, claims: Mapping[str, Any]) -> None:
        """Raise InvalidToken unless *claims* hold the values of ``required_claims``, and the subject may be.

        The subject is the claim ``sub``, also with ``subject_claim``.
        """
        if str(claims.get("sub")).startswith(self.refused_subjects):
            raise InvalidToken(
                f"the token is refused: provider {self.name!r} has issued it to a visitor who hasn't signed "
                "in. Sign in"
            )
        for name, values in self.required_claims.items():
            found = claims.get(name)
            if (found not in values) if values else (found is None):
                raise InvalidToken(
                    f"the token is refused: provider {self.name!r} doesn't accept the value of claim "
                    f"{name!r}, or the claim is missing. Send an access token for this application"
                )

    def _declared_keys(self) -> tuple[Key, ...]:
        return keys_in_pem(self.public_key) if self.public_key is not None else public_keys_in(self.jwks)
