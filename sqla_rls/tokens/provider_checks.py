"""Checks of the arguments of a ``Provider``, which raise ValueError, and the keys among them."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sqla_rls.tokens.jwks import ALGORITHMS, PRIVATE_MEMBERS, Key, algorithms_of, keys_in
from sqla_rls.tokens.names import check_role, is_loopback, is_text

#: Metadata of Supabase and Auth0, Clerk, Stytch and Stack Auth, without underscores.
_WRITTEN_BY_USERS: Final = frozenset(
    {"usermetadata", "unsafemetadata", "untrustedmetadata", "clientmetadata"}
)
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


def path_of(claim: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (claim,) if isinstance(claim, str) else claim or ()


def _bare(name: str) -> str:
    # The claims of an Auth0 Action start with a URL, and those of Cognito with a prefix.
    return name.rpartition("/")[2].rpartition(":")[2].lower()


def _is_written_by_users(name: str) -> bool:
    return _bare(name).replace("_", "") in _WRITTEN_BY_USERS


def check_names(what: str, names: object, hint: str) -> None:
    wanted = (names,) if isinstance(names, str) else names
    if not isinstance(wanted, tuple) or not wanted or not all(map(is_text, wanted)):
        raise ValueError(f"{what} isn't a name or a tuple of names. {hint}")


def check_roles(role: str, role_claim: str | tuple[str, ...] | None, roles: tuple[str, ...]) -> None:
    if not isinstance(roles, tuple):
        raise ValueError(
            "roles isn't a tuple. Give ('admin', 'editor'), for example: the first one in a claim wins"
        )
    for name in (role, *roles):
        check_role(name)
    if bool(role_claim) != bool(roles):
        raise ValueError("role_claim and roles go together. Give a claim, and the roles that it may choose")
    if role_claim:
        check_names("role_claim", role_claim, "A tuple is the path to a nested claim")
    if any(map(_is_written_by_users, path_of(role_claim))):
        raise ValueError(
            "role_claim is in metadata that users write themselves. Use a claim that only you write"
        )


def check_subject(
    subject_claim: str | tuple[str, ...], per_token_claims: tuple[str | tuple[str, ...], ...]
) -> None:
    check_names("subject_claim", subject_claim, "A tuple is the path to a nested claim")
    path = path_of(subject_claim)
    if any(map(_is_written_by_users, path)):
        raise ValueError(
            "subject_claim is in metadata that users write themselves. Use a claim that only you write"
        )
    if path == ("sub",):
        raise ValueError("subject_claim is 'sub', which is the subject already. Leave subject_claim out")
    last = _bare(path[-1])
    if last in (_OF_NO_PERSON + _NO_IDENTIFIERS).split():
        raise ValueError(
            f"subject_claim is {last!r}, which doesn't identify a caller: it may change, or two people may "
            "share it (OpenID Connect Core, section 5.7). Use an id that you give each user"
        )
    if path in map(path_of, per_token_claims):
        raise ValueError("subject_claim is one of per_token_claims. Use a claim that stays the same")


def check_algorithms(algorithms: tuple[str, ...]) -> None:
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
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError(
            f"{what} isn't https, so that others on the network can replace the keys. Give an https URL"
        )


def keys_in_pem(pem: str | bytes) -> tuple[Key, ...]:
    try:
        public: Any = load_pem_public_key(pem.encode() if isinstance(pem, str) else pem)
    except Exception:  # its message may quote the key
        raise ValueError(
            "public_key isn't a public key in PEM. Run 'openssl pkey -pubout' to make one"
        ) from None
    return (Key(kid=None, algorithms=algorithms_of(public), public=public),)


def public_keys_in(document: object) -> tuple[Key, ...]:
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
