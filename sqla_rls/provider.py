"""Who issues the tokens: one function per identity provider.

A ``Provider`` pins everything that a token must not decide for itself: the issuer, the keys, the
algorithms, the audience, and the Postgres roles that it may ask for.  Adding one is adding a function
beside its siblings; where a provider shares its keys among customers, its audience is required.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sqla_rls.exc import DeclarationError, InvalidToken
from sqla_rls.jwks import (
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An issuer of tokens, and what its tokens must look like to be believed.

    - ``issuer``: the ``iss`` claim, to the letter: a trailing slash counts.
    - ``jwks_uri``, ``jwks`` or ``public_key``: where the keys are; exactly one of them.
    - ``algorithms``: those that a token may be signed with, e.g. ``("ES256",)``.
    - ``audience``: what the ``aud`` claim must hold, any one of them; None to leave it unchecked.
    - ``role``: the Postgres role that a verified token binds.
    - ``role_claim``, ``roles``: a claim that may choose among these roles instead.  A token without
      the claim gets ``role``; one that asks for anything else is refused.
    """

    name: str
    issuer: str
    jwks_uri: str | None = field(default=None, repr=False)
    jwks: Mapping[str, Any] | None = field(default=None, repr=False, hash=False)
    public_key: str | bytes | None = field(default=None, repr=False)
    algorithms: tuple[str, ...]
    audience: str | tuple[str, ...] | None
    role: str = "authenticated"
    role_claim: str | None = None
    roles: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        # What others hold a reference to isn't frozen.
        object.__setattr__(self, "jwks", copy.deepcopy(self.jwks))
        try:
            if not _is_text(self.issuer):
                raise ValueError("issuer is empty; give the 'iss' claim of its tokens")
            _check_algorithms(self.algorithms)
            _check_audience(self.audience)
            _check_roles(self.role, self.role_claim, self.roles)
            if [self.jwks_uri, self.jwks, self.public_key].count(None) != 2:
                raise ValueError("its keys come from exactly one of jwks_uri, jwks and public_key")
            if self.jwks_uri is not None:
                _check_uri(self.jwks_uri)
            elif not any(key.algorithms & set(self.algorithms) for key in self._declared_keys()):
                raise ValueError("none of its keys fits its algorithms; RSA keys need 2048 bits")
        except ValueError as problem:
            raise DeclarationError(f"provider {self.name!r}: {problem}") from None

    def key_set(self, limits: FetchLimits | None = None) -> KeySet:
        """Its keys: those declared, or a cache of their own for those at ``jwks_uri``."""
        if self.jwks_uri is not None:
            return FetchedKeySet(self.jwks_uri, limits)
        return KeySet(self._declared_keys(), named=self.jwks is not None)

    def role_for(self, claims: Mapping[str, Any]) -> str:
        """The role for a token with *claims*; InvalidToken if they ask for one that isn't configured."""
        if self.role_claim is None or self.role_claim not in claims:
            return self.role
        asked = claims[self.role_claim]
        if not isinstance(asked, str) or asked not in self.roles:
            raise InvalidToken(f"claim {self.role_claim!r} asks for a role that provider {self.name!r} lacks")
        return asked

    def _declared_keys(self) -> tuple[Key, ...]:
        return _keys_in_pem(self.public_key) if self.public_key is not None else _public_keys_in(self.jwks)


def stack_auth(
    project_id: str,
    *,
    base_url: str = "https://api.stack-auth.com",
    audience: str | tuple[str, ...] | None = None,
    role: str = "authenticated",
    role_claim: str | None = None,
    roles: AbstractSet[str] = frozenset(),
) -> Provider:
    """Stack Auth (docs.stack-auth.com, JWT Tokens).  The audience is the project id unless given.

    Its anonymous and restricted users have another issuer and another audience: they are refused.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", project_id):
        raise DeclarationError("provider 'stack_auth': project_id has letters, digits, '-' and '_' only")
    issuer = f"{base_url.rstrip('/')}/api/v1/projects/{project_id}"
    return Provider(
        name="stack_auth",
        issuer=issuer,
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        algorithms=("ES256",),
        audience=project_id if audience is None else audience,
        role=role,
        role_claim=role_claim,
        roles=frozenset(roles),
    )


def custom(
    *,
    issuer: str,
    jwks_uri: str | None = None,
    jwks: Mapping[str, Any] | None = None,
    public_key: str | bytes | None = None,
    algorithms: tuple[str, ...],
    audience: str | tuple[str, ...] | None,
    name: str = "custom",
    role: str = "authenticated",
    role_claim: str | None = None,
    roles: AbstractSet[str] = frozenset(),
) -> Provider:
    """Any issuer, by the URL of its JWKS, the document itself, or a public key in PEM.

    ``audience=None`` leaves ``aud`` unchecked, which is safe only for an issuer that issues tokens to
    nobody else: else whoever runs another of its applications can sign in here with its users' tokens.
    """
    return Provider(
        name=name,
        issuer=issuer,
        jwks_uri=jwks_uri,
        jwks=jwks,
        public_key=public_key,
        algorithms=algorithms,
        audience=audience,
        role=role,
        role_claim=role_claim,
        roles=frozenset(roles),
    )


def check_role(role: object) -> None:
    """ValueError unless Postgres has roles of that name."""
    if not _is_text(role) or not 0 < len(str(role).encode()) <= 63 or role in ("none", "public"):
        # SET ROLE none is the login role again, and so might be what a longer name is cut to.
        raise ValueError("a role is a name of 1 to 63 bytes, and neither 'none' nor 'public'")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _check_roles(role: str, role_claim: str | None, roles: frozenset[str]) -> None:
    for name in (role, *roles):
        check_role(name)
    if bool(role_claim) != bool(roles):
        raise ValueError("role_claim and roles go together: a claim, and the roles that it may choose")


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


def _check_audience(audience: str | tuple[str, ...] | None) -> None:
    if audience is not None:
        wanted = (audience,) if isinstance(audience, str) else audience
        if not isinstance(wanted, tuple) or not wanted or not all(map(_is_text, wanted)):
            raise ValueError("audience is a name or a tuple of names; None leaves it unchecked")


def _check_uri(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        # The characters of RFC 3986: urlsplit drops some of the others in silence.
        usable = re.fullmatch(r"[!-\[\]-~]+", uri) and parts.hostname and parts.port != 0
    except ValueError:
        raise ValueError("jwks_uri is no URL of the form https://host/path") from None
    if not usable or not parts.hostname or "@" in parts.netloc:
        raise ValueError("jwks_uri is no URL of the form https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError("jwks_uri must be https: on the way, http lets anyone put in keys of their own")


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
