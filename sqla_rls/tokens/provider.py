"""What is pinned about an issuer of tokens, so that no token can decide it for itself."""

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
#: Claims of the token, the sign-in, the application or the issuer.
_OF_NO_PERSON: Final = """
iss aud exp nbf iat jti auth_time nonce acr amr azp at_hash c_hash s_hash sid client_id scope scp
"""
#: Claims that may change, or that two people may share (OpenID Connect Core, sections 5.1 and 5.7).
#: The last line has the same by other names, of Microsoft ("mutable"), Cognito and Clerk.
_NO_IDENTIFIERS: Final = """
name given_name family_name middle_name nickname preferred_username profile picture website email
email_verified gender birthdate zoneinfo locale phone_number phone_number_verified address updated_at
upn unique_name username user_name
"""


class RoleOptions(TypedDict, total=False):
    """Which Postgres role a token binds, and which claim is its subject: see ``Provider``."""

    role: str
    role_claim: str | tuple[str, ...] | None
    roles: tuple[str, ...]
    subject_claim: str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An issuer of tokens, and what its tokens must look like to be believed.

    - ``issuer``: the ``iss`` claim, to the letter: a trailing slash counts.  A tuple: any one of them.
    - ``jwks_uri``, ``jwks`` or ``public_key``: where the keys are; exactly one of them.
    - ``algorithms``: those that a token may be signed with, e.g. ``("ES256",)``.
    - ``audience``: what the ``aud`` claim must hold, any one of them; None to leave it unchecked.
    - ``required_claims``: what other claims must hold: one of the values given, None among them if the
      claim may be missing; none given, any value will do.
    - ``role``: the Postgres role that a verified token binds.
    - ``role_claim``, ``roles``: a claim that may choose among these roles instead, by its name, or by the
      path to it: ``("realm_access", "roles")``.  A token without the claim gets ``role``; one whose claim
      is another text, or no text, is refused.  Where the claim is a list, what it holds besides is passed
      over: the first of ``roles`` that is in it wins, and ``role`` if none is.
    - ``subject_claim``: the claim that says who the person is, instead of ``sub``, by its name or the path to
      it: for policies on your own user ids, such as the ``external_id`` of a provider whose ``sub`` is no
      uuid.  Only you may write it, and no two people of the provider may share its value.  Its value is
      bound as ``sub``, which ``auth.user_id()`` and ``auth.uid()`` read; the provider's own ``sub`` is in
      claim ``provider_sub``, which replaces one of the token.  A token whose claim is missing, empty or no
      text is refused.
    - ``per_token_claims``: claims in which two tokens of one sign-in differ, by their names or paths,
      besides those of the standards, such as ``iat``, ``exp`` and ``jti``.  To a session, two tokens that
      differ in other claims belong to two people.
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
        # What others hold a reference to isn't frozen.
        object.__setattr__(self, "jwks", copy.deepcopy(self.jwks))
        object.__setattr__(self, "required_claims", dict(self.required_claims))
        try:
            _check_names("issuer", self.issuer, "give the 'iss' claim of its tokens")
            _check_algorithms(self.algorithms)
            if self.audience is not None:
                _check_names("audience", self.audience, "None leaves it unchecked")
            for values in self.required_claims.values():
                if not isinstance(values, tuple) or not all(v is None or _is_text(v) for v in values):
                    raise ValueError("required_claims is of the form {'typ': ('Bearer',)}")
            _check_roles(self.role, self.role_claim, self.roles)
            if self.subject_claim is not None:
                _check_subject(self.subject_claim, self.per_token_claims)
            if [self.jwks_uri, self.jwks, self.public_key].count(None) != 2:
                raise ValueError("its keys come from exactly one of jwks_uri, jwks and public_key")
            if self.jwks_uri is not None:
                check_uri("jwks_uri", self.jwks_uri)
            elif not any(key.algorithms & set(self.algorithms) for key in self._declared_keys()):
                raise ValueError("none of its keys fits its algorithms; RSA keys need 2048 bits")
        except ValueError as problem:
            raise DeclarationError(f"provider {self.name!r}: {problem}") from None

    def key_set(self, limits: FetchLimits | None = None) -> KeySet:
        """Its keys: those declared, or a cache of their own for those at ``jwks_uri``."""
        if self.jwks_uri is not None:
            return FetchedKeySet(self.jwks_uri, limits)
        return KeySet(self._declared_keys(), named=self.jwks is not None)

    @property
    def issuers(self) -> tuple[str, ...]:
        """Each ``iss`` claim that is accepted."""
        return (self.issuer,) if isinstance(self.issuer, str) else self.issuer

    def role_for(self, claims: Mapping[str, Any]) -> str:
        """The role for a token with *claims*; InvalidToken if they ask for one that isn't configured."""
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
            raise InvalidToken(f"claim {self.role_claim!r} asks for a role that provider {self.name!r} lacks")
        return asked

    def bound_claims(self, claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """*claims* with the subject in ``sub``; InvalidToken if ``subject_claim`` leads to none."""
        if self.subject_claim is None:
            return claims
        subject: Any = claims
        for name in _path(self.subject_claim):
            subject = subject.get(name) if isinstance(subject, Mapping) else None
        if not isinstance(subject, str) or not subject.strip() or not claims["sub"]:
            raise InvalidToken(
                f"claim {self.subject_claim!r}, or 'sub', is missing, empty or no text, and provider "
                f"{self.name!r} takes the subject from it. Give that user an id at the provider"
            )
        return {**claims, "sub": subject, PROVIDER_SUBJECT: claims["sub"]}

    def check_claims(self, claims: Mapping[str, Any]) -> None:
        """InvalidToken unless *claims* hold what ``required_claims`` says."""
        for name, values in self.required_claims.items():
            found = claims.get(name)
            if (found not in values) if values else (found is None):
                raise InvalidToken(
                    f"claim {name!r} is missing, or not one that provider {self.name!r} accepts; "
                    "send an access token issued for this application"
                )

    def _declared_keys(self) -> tuple[Key, ...]:
        return _keys_in_pem(self.public_key) if self.public_key is not None else _public_keys_in(self.jwks)


def check_role(role: object) -> None:
    """ValueError unless Postgres has roles of that name."""
    if not _is_text(role) or not 0 < len(str(role).encode()) <= 63 or role in ("none", "public"):
        # SET ROLE none is the login role again, and so might be what a longer name is cut to.
        raise ValueError("a role is a name of 1 to 63 bytes, and neither 'none' nor 'public'")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _path(claim: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (claim,) if isinstance(claim, str) else claim or ()


def _check_names(what: str, names: object, hint: str) -> None:
    wanted = (names,) if isinstance(names, str) else names
    if not isinstance(wanted, tuple) or not wanted or not all(map(_is_text, wanted)):
        raise ValueError(f"{what} is a name or a tuple of names; {hint}")


def _check_roles(role: str, role_claim: str | tuple[str, ...] | None, roles: tuple[str, ...]) -> None:
    if not isinstance(roles, tuple):
        raise ValueError("roles is a tuple: of several roles that a claim lists, the first one given wins")
    for name in (role, *roles):
        check_role(name)
    if bool(role_claim) != bool(roles):
        raise ValueError("role_claim and roles go together: a claim, and the roles that it may choose")
    if role_claim:
        _check_names("role_claim", role_claim, "a tuple is the path to a nested claim")
    if _WRITTEN_BY_USERS & set(_path(role_claim)):
        raise ValueError("role_claim is in metadata that users write themselves; use what only you write")


def _check_subject(
    subject_claim: str | tuple[str, ...], per_token_claims: tuple[str | tuple[str, ...], ...]
) -> None:
    _check_names("subject_claim", subject_claim, "a tuple is the path to a nested claim")
    path = _path(subject_claim)
    if _WRITTEN_BY_USERS & set(path):
        raise ValueError("subject_claim is in metadata that users write themselves; use what only you write")
    if path == ("sub",):
        raise ValueError("subject_claim is 'sub', which is the subject already. Leave subject_claim out")
    # The claims of an Action at Auth0 have a URL in front, and those of Cognito a prefix.
    last = path[-1].rpartition("/")[2].rpartition(":")[2].lower()
    if last in (_OF_NO_PERSON + _NO_IDENTIFIERS).split():
        raise ValueError(
            f"subject_claim is {last!r}, which identifies nobody: it may change, or two people may share it "
            "(OpenID Connect Core, section 5.7). Use an id that you give each user"
        )
    if path in map(_path, per_token_claims):
        raise ValueError("subject_claim is one of per_token_claims. Use a claim that stays the same")


def _check_algorithms(algorithms: tuple[str, ...]) -> None:
    if not isinstance(algorithms, tuple) or not algorithms:
        raise ValueError("algorithms is a tuple of at least one, e.g. ('ES256',)")
    for algorithm in algorithms:
        if str(algorithm).upper().startswith("HS"):
            raise ValueError(
                f"{algorithm} has no public key: who can verify a token can forge one; use ES256"
            )
        if algorithm not in ALGORITHMS:
            raise ValueError(
                f"algorithm {algorithm!r} isn't accepted; use one of {', '.join(sorted(ALGORITHMS))}"
            )


def check_uri(what: str, uri: str) -> None:
    """ValueError unless *uri* is one that nobody on the way can answer for."""
    try:
        parts = urlsplit(uri)
        # The characters of RFC 3986: urlsplit drops some of the others in silence.
        usable = re.fullmatch(r"[!-\[\]-~]+", uri) and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError(f"{what} is no URL of the form https://host/path") from None
    if not usable or not parts.hostname or "@" in parts.netloc:
        raise ValueError(f"{what} is no URL of the form https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"{what} must be https: on the way, http lets anyone put in keys of their own")


def _is_loopback(host: str) -> bool:
    try:
        return any(ip_address(host) in network for network in _LOOPBACK)
    except ValueError:
        return host == "localhost"


def _keys_in_pem(pem: str | bytes) -> tuple[Key, ...]:
    try:
        public: Any = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except Exception:  # may quote what it read
        raise ValueError("public_key is no public key in PEM; 'openssl pkey -pubout' makes one") from None
    return (Key(kid=None, algorithms=algorithms_of(public), public=public),)


def _public_keys_in(document: object) -> tuple[Key, ...]:
    keys = keys_in(document)
    for entry in document["keys"] if isinstance(document, dict) else ():
        if isinstance(entry, dict) and entry.get("kty") == "oct":
            raise ValueError(
                "jwks holds a symmetric key: who can verify a token can forge one; use EC or RSA"
            )
        if isinstance(entry, dict) and PRIVATE_MEMBERS & entry.keys():
            raise ValueError(
                "jwks holds a private key; publish its public half, and replace it if others saw it"
            )
    return keys
