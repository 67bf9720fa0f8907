"""Tokens, good and bad, and the provider for whom they are made."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sqla_rls.provider import Provider, custom
from sqla_rls.testing.issuer import Key
from tests.support.base64url import part

ISSUER = "https://auth.example/"
SECRET = "a secret claim"
ES256, RS256, EDDSA, STRANGER = Key.generate(), Key.generate("RS256"), Key.generate("EdDSA"), Key.generate()
P384 = Key(kid=ES256.kid, algorithm="ES384", private=ec.generate_private_key(ec.SECP384R1()))
JWKS = {"keys": [ES256.jwk(), RS256.jwk(), EDDSA.jwk()]}
PUBLIC_PEM = ES256.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def token(
    claims: dict[str, Any] | bytes | None = None,
    header: dict[str, Any] | bytes | None = None,
    key: Key = ES256,
    algorithm: str | None = None,
) -> str:
    """A good token but for what is given; None leaves a member out, bytes go in as they are."""
    now = int(time.time())
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "app",
        "sub": "alice",
        "iat": now,
        "exp": now + 600,
        "note": SECRET,
    }
    if not isinstance(claims, bytes):
        claims = json.dumps({k: v for k, v in (good | (claims or {})).items() if v is not None}).encode()
    if not isinstance(header, bytes):
        header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"} | (header or {})
        header = json.dumps({k: v for k, v in header.items() if v is not None}).encode()
    signed = f"{part(header)}.{part(claims)}"
    algorithms = jwt.get_algorithm_by_name(algorithm or key.algorithm)
    return f"{signed}.{part(algorithms.sign(signed.encode(), key.private))}"


def pinned(**changes: Any) -> Provider:
    options: dict[str, Any] = {
        "issuer": ISSUER,
        "jwks": JWKS,
        "algorithms": ("ES256", "RS256", "EdDSA"),
        "audience": "app",
    }
    options.update(changes)
    return custom(**options)
