"""The ``Provider``: the facts of an identity provider that no token can decide for itself."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.tokens.jwks import (
    ALGORITHMS,
    PRIVATE_MEMBERS,
    FetchedKeySet,
    FetchLimits,
    Key,
    KeySet,
    algorithms_of,
    keys_in,
)

_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_WRITTEN_BY_USERS: Final = frozenset({"user_metadata", "unsafe_metadata"})  # Supabase and Auth0; Clerk

#: The claim that holds the ``sub`` of the provider, where ``subject_claim`` replaces it.
PROVIDER_SUBJECT: Final = "provider_sub"
#: Claims about the token, the sign-in, the application or the issuer.
_OF_NO_PERSON: Final = """
iss aud exp nbf iat jti auth_time nonce acr amr azp at_hash c_hash s_hash sid client_id scope scp
"""
#: Claims that may change, or that two people may share (OpenID Connect Core, sections 5.1 and 5.7).
#: The last line has such claims of Microsoft ("mutable"), Cognito and Clerk.
_NO_IDENTIFIERS: Final = """
name given_name family_name middle_name nickname preferred_username profile picture website email
email_verified gender birthdate zoneinfo locale phone_number phone_number_verified address updated_at
upn unique_name username user_name
"""


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
            _check_names("issuer", self.issuer, "Give the 'iss' claim of its tokens")
            _check_algorithms(self.algorithms)
            if self.audience is not None:
                _check_names("audience", self.audience, "Give None to skip the check")
            for values in self.required_claims.values():
                if not isinstance(values, tuple) or not all(v is None or _is_text(v) for v in values):
                    raise ValueError(
                        "required_claims isn't a mapping of names to tuples. Give {'typ': ('Bearer',)}, for "
                        "example"
                    )
            _check_roles(self.role, self.role_claim, self.roles)
            if self.subject_claim is not None:
                _check_subject(self.subject_claim, self.per_token_claims)
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
        for name in _path(self.role_claim):
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
        for name in _path(self.subject_claim):
            subject = subject.get(name) if isinstance(subject, Mapping) else None
        if not isinstance(subject, str) or not subject.strip() or not claims["sub"]:
            raise InvalidToken(
                f"the token is refused: claim {self.subject_claim!r}, or 'sub', is missing, empty or "
                "no text, "
                f"and provider {self.name!r} takes the subject from it. Give that user an id at the provider"
            )
        return {**claims, "sub": subject, PROVIDER_SUBJECT: claims["sub"]}

    def check_claims(self, claims: Mapping[str, Any]) -> None:
        """Raise InvalidToken unless *claims* hold the values of ``required_claims``."""
        for name, values in self.required_claims.items():
            found = claims.get(name)
            if (found not in values) if values else (found is None):
                raise InvalidToken(
                    f"the token is refused: provider {self.name!r} doesn't accept the value of claim "
                    f"{name!r}, "
                    "or the claim is missing. Send an access token for this application"
                )

    def _declared_keys(self) -> tuple[Key, ...]:
        return _keys_in_pem(self.public_key) if self.public_key is not None else _public_keys_in(self.jwks)


def check_role(role: object) -> None:
    """Raise ValueError unless *role* can be the name of a role."""
    if not _is_text(role) or not 0 < len(str(role).encode()) <= 63 or role in ("none", "public"):
        # SET ROLE none returns to the login role.  Postgres cuts a longer name, perhaps to another role's.
        raise ValueError(
            "the role isn't a name of 1 to 63 bytes, or is 'none' or 'public'. Give the name of a role"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _path(claim: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (claim,) if isinstance(claim, str) else claim or ()


def _check_names(what: str, names: object, hint: str) -> None:
    wanted = (names,) if isinstance(names, str) else names
    if not isinstance(wanted, tuple) or not wanted or not all(map(_is_text, wanted)):
        raise ValueError(f"{what} isn't a name or a tuple of names. {hint}")


def _check_roles(role: str, role_claim: str | tuple[str, ...] | None, roles: tuple[str, ...]) -> None:
    if not isinstance(roles, tuple):
        raise ValueError(
            "roles isn't a tuple. Give ('admin', 'editor'), for example: the first one in a claim wins"
        )
    for name in (role, *roles):
        check_role(name)
    if bool(role_claim) != bool(roles):
        raise ValueError("role_claim and roles go together. Give a claim, and the roles that it may choose")
    if role_claim:
        _check_names("role_claim", role_claim, "A tuple is the path to a nested claim")
    if _WRITTEN_BY_USERS & set(_path(role_claim)):
        raise ValueError(
            "role_claim is in metadata that users write themselves. Use a claim that only you write"
        )


def _check_subject(
    subject_claim: str | tuple[str, ...], per_token_claims: tuple[str | tuple[str, ...], ...]
) -> None:
    _check_names("subject_claim", subject_claim, "A tuple is the path to a nested claim")
    path = _path(subject_claim)
    if _WRITTEN_BY_USERS & set(path):
        raise ValueError(
            "subject_claim is in metadata that users write themselves. Use a claim that only you write"
        )
    if path == ("sub",):
        raise ValueError("subject_claim is 'sub', which is the subject already. Leave subject_claim out")
    # The claims of an Auth0 Action start with a URL, and those of Cognito with a prefix.
    last = path[-1].rpartition("/")[2].rpartition(":")[2].lower()
    if last in (_OF_NO_PERSON + _NO_IDENTIFIERS).split():
        raise ValueError(
            f"subject_claim is {last!r}, which doesn't identify a caller: it may change, or two people may "
            "share it (OpenID Connect Core, section 5.7). Use an id that you give each user"
        )
    if path in map(_path, per_token_claims):
        raise ValueError("subject_claim is one of per_token_claims. Use a claim that stays the same")


def _check_algorithms(algorithms: tuple[str, ...]) -> None:
    if not isinstance(algorithms, tuple) or not algorithms:
        raise ValueError("algorithms isn't a tuple, or is empty. Give ('ES256',), for example")
    for algorithm in algorithms:
        if str(algorithm).upper().startswith("HS"):
            raise ValueError(
                f"{algorithm} has no public key, so that a verifier of tokens can forge one. Use ES256"
            )
        if algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm {algorithm!r} isn't supported. Use one of {', '.join(sorted(ALGORITHMS))}"
            )


def check_uri(what: str, uri: str) -> None:
    """Raise ValueError unless *uri* is https, or http to this machine."""
    try:
        parts = urlsplit(uri)
        # The characters of RFC 3986: urlsplit silently drops some of the others.
        usable = re.fullmatch(r"[!-\[\]-~]+", uri) and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(f"{what} isn't a URL. Give one of the form https://host/path") from None
    if not usable or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{what} isn't a URL. Give one of the form https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(
            f"{what} isn't https, so that others on the network can replace the keys. Give an https URL"
        )


def _is_loopback(host: str) -> bool:
    try:
        return any(ip_address(host) in network for network in _LOOPBACK)
    except ValueError:
        return host == "localhost"


def _keys_in_pem(pem: str | bytes) -> tuple[Key, ...]:
    try:
        public: Any = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except Exception:  # its message may quote the key
        raise ValueError(
            "public_key isn't a public key in PEM. Run 'openssl pkey -pubout' to make one"
        ) from None
    return (Key(kid=None, algorithms=algorithms_of(public), public=public),)


def _public_keys_in(document: object) -> tuple[Key, ...]:
    keys = keys_in(document)
    for entry in document["keys"] if isinstance(document, dict) else ():
        if isinstance(entry, dict) and entry.get("kty") == "oct":
            raise ValueError(
                "jwks holds a symmetric key, so that a verifier of tokens can forge one. Use EC or RSA"
            )
        if isinstance(entry, dict) and PRIVATE_MEMBERS & entry.keys():
            raise ValueError(
                "jwks holds a private key. Give its public half, and replace the key if others may "
                "have seen it"
            )
    return keys
