"""A token issuer that behaves as a real one, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import jwt
import pytest

from sqla_rls import Verifier, provider
from sqla_rls.exc import InvalidToken
from sqla_rls.testing.issuer import ALGORITHMS, Issuer, Key


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


def fetch(issuer: Issuer) -> dict[str, Any]:
    with urlopen(issuer.jwks_uri, timeout=5) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


def verified(issuer: Issuer, /, token: str, **options: Any) -> dict[str, Any]:
    """The claims, as somebody sees them who knows nothing but the URL."""
    header = jwt.get_unverified_header(token)
    key = jwt.PyJWKSet.from_dict(fetch(issuer))[header["kid"]]
    expected: dict[str, Any] = {"audience": issuer.provider.audience, "issuer": issuer.issuer}
    claims: dict[str, Any] = jwt.decode(token, key, [header["alg"]], **expected | options)
    return claims


# Tokens


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_is_verified_with_the_published_key(issuer: Issuer, algorithm: str) -> None:
    token = issuer.token("alice", algorithm=algorithm)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert verified(issuer, token)["sub"] == "alice"


def test_it_looks_like_stack_auth() -> None:
    with Issuer("f57c38ff-1d84-4fe8-8ad1-0d8c2f1f1d3a") as issuer:
        project = "/api/v1/projects/f57c38ff-1d84-4fe8-8ad1-0d8c2f1f1d3a"
        assert issuer.issuer.endswith(project)
        assert issuer.jwks_uri == f"{issuer.issuer}/.well-known/jwks.json"
        claims = verified(issuer, issuer.token("alice"))
    assert claims["iss"] == issuer.issuer
    assert claims["aud"] == claims["project_id"] == issuer.project_id
    assert claims["role"] == "authenticated"
    assert claims["branch_id"] == "main"
    assert claims["email"] == "alice@example.com"
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.exhaustive
def test_it_can_imitate_another_provider() -> None:
    keycloak = provider.keycloak("https://sso.example.com", "todos", audience=("api", "web"))
    with Issuer(imitate=keycloak) as issuer:
        assert issuer.jwks_uri == f"{issuer.base_url}/realms/todos/protocol/openid-connect/certs"
        assert issuer.provider == replace(keycloak, jwks_uri=issuer.jwks_uri)
        token = issuer.token("alice")
        claims = verified(issuer, token)
        assert Verifier(issuer.provider).verify(token).subject == "alice"

    assert jwt.get_unverified_header(token)["alg"] == "RS256"
    assert set(claims) == {"sub", "iss", "aud", "iat", "exp", "typ"}
    assert (claims["iss"], claims["aud"]) == ("https://sso.example.com/realms/todos", "api")


def test_a_provider_whose_keys_were_declared_can_be_imitated_with_other_keys() -> None:
    declared = provider.custom(
        issuer="https://auth.example.com",
        jwks={"keys": [Key.generate().jwk()]},
        algorithms=("ES256",),
        audience=None,
    )
    with Issuer(imitate=declared) as issuer:
        assert Verifier(issuer.provider).verify(issuer.token("alice")).subject == "alice"
        with pytest.raises(InvalidToken):
            Verifier(declared).verify(issuer.token("alice"))


def test_a_token_may_be_old(issuer: Issuer) -> None:
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(issuer, issuer.token("alice", expires_in=-1))
    with pytest.raises(jwt.ExpiredSignatureError):
        verified(issuer, issuer.token("alice", issued_at=time.time() - 7200))


def test_a_token_may_be_for_somebody_else(issuer: Issuer) -> None:
    with pytest.raises(jwt.InvalidAudienceError):
        verified(issuer, issuer.token("alice", audience="another project"))
    with pytest.raises(jwt.InvalidIssuerError):
        verified(issuer, issuer.token("alice", issuer="https://example.com"))


def test_none_leaves_a_claim_out(issuer: Issuer) -> None:
    token = issuer.token(None, expires_in=None, claims={"aud": None}, headers={"kid": None})
    claims = jwt.decode(token, options={"verify_signature": False})
    assert not {"sub", "exp", "aud", "name", "email"} & set(claims)
    assert "kid" not in jwt.get_unverified_header(token)


def test_given_claims_and_headers_win(issuer: Issuer) -> None:
    token = issuer.token("alice", claims={"sub": "bob", "org": 7}, headers={"kid": "mine", "x": 1})
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["org"]) == ("bob", 7)
    header = jwt.get_unverified_header(token)
    assert (header["kid"], header["x"]) == ("mine", 1)


def test_a_token_may_be_forged_under_the_kid_of_a_real_key(issuer: Issuer) -> None:
    kid = issuer.key().kid
    forged = issuer.token("alice", key=Key.generate(), headers={"kid": kid})
    with pytest.raises(jwt.InvalidSignatureError):
        verified(issuer, forged)


def test_a_token_may_have_no_signature_or_a_shared_secret(issuer: Issuer) -> None:
    unsigned = issuer.token("alice", algorithm="none")
    assert jwt.get_unverified_header(unsigned)["alg"] == "none"
    assert unsigned.endswith(".")
    secret = "a secret of at least thirty-two bytes"
    shared = issuer.token("alice", algorithm="HS256", key=secret)
    assert jwt.decode(shared, secret, ["HS256"], audience=issuer.project_id)["sub"] == "alice"


def test_a_secret_can_not_be_made_up(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="HS256"):
        issuer.token("alice", algorithm="HS256")


# Keys


def test_keys_have_kid_algorithm_and_no_private_half(issuer: Issuer) -> None:
    for algorithm in ALGORITHMS:
        issuer.key(algorithm)
    keys = fetch(issuer)["keys"]
    assert {key["alg"] for key in keys} == set(ALGORITHMS)
    assert len({key["kid"] for key in keys}) == 3
    assert all(key["use"] == "sig" and "d" not in key for key in keys)


def test_a_slow_key_is_made_only_when_needed(issuer: Issuer) -> None:
    assert [key["kty"] for key in fetch(issuer)["keys"]] == ["EC"]
    issuer.token("alice", algorithm="RS256")
    assert [key["kty"] for key in fetch(issuer)["keys"]] == ["EC", "RSA"]


@pytest.mark.exhaustive
def test_the_tokens_of_one_issuer_are_not_those_of_another(issuer: Issuer) -> None:
    with Issuer(issuer.project_id) as other:
        for algorithm in ALGORITHMS:
            forged = other.token("alice", algorithm=algorithm, headers={"kid": issuer.key(algorithm).kid})
            with pytest.raises(jwt.InvalidSignatureError):
                verified(issuer, forged, issuer=other.issuer)


def test_after_a_rotation_the_old_key_is_gone(issuer: Issuer) -> None:
    old = issuer.token("alice")
    issuer.rotate()
    assert verified(issuer, issuer.token("alice"))["sub"] == "alice"
    with pytest.raises(KeyError):
        verified(issuer, old)


def test_after_a_rotation_the_old_key_may_be_kept_for_a_while(issuer: Issuer) -> None:
    old = issuer.token("alice")
    new = issuer.rotate(keep=True)
    assert jwt.get_unverified_header(issuer.token("alice"))["kid"] == new.kid
    assert verified(issuer, old)["sub"] == "alice"


def test_a_key_that_is_gone_can_still_sign(issuer: Issuer) -> None:
    old = issuer.key("EdDSA")
    issuer.rotate("EdDSA")
    header = jwt.get_unverified_header(issuer.token("alice", key=old))
    assert (header["kid"], header["alg"]) == (old.kid, "EdDSA")


# The network


def test_fetches_of_the_keys_are_counted(issuer: Issuer) -> None:
    fetch(issuer)
    fetch(issuer)
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{issuer.issuer}/users")
    refused.value.close()
    assert (refused.value.code, issuer.fetches) == (404, 2)


def test_it_can_be_down_slow_and_wrong_and_recovers(issuer: Issuer) -> None:
    issuer.status = 503
    with pytest.raises(HTTPError) as refused:
        fetch(issuer)
    refused.value.close()
    assert refused.value.code == 503

    issuer.reset()
    issuer.delay = 0.1
    start = time.monotonic()
    fetch(issuer)
    assert time.monotonic() - start >= 0.1

    issuer.body = b"<html>"
    with pytest.raises(json.JSONDecodeError):
        fetch(issuer)

    issuer.reset()
    assert fetch(issuer) == issuer.jwks()
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_who_does_not_wait_for_the_answer_does_no_harm(
    issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    issuer.delay = 0.2
    with pytest.raises(TimeoutError):
        urlopen(issuer.jwks_uri, timeout=0.05)
    time.sleep(0.3)
    issuer.reset()
    assert fetch(issuer)["keys"]
    assert capsys.readouterr().err == ""


@pytest.mark.exhaustive
def test_many_ask_at_the_same_time(issuer: Issuer) -> None:
    issuer.delay = 1
    threads = [threading.Thread(target=fetch, args=(issuer,)) for _ in range(40)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert issuer.fetches == 40
    assert time.monotonic() - start < 20


def test_a_closed_issuer_answers_nobody_and_does_not_wait() -> None:
    issuer = Issuer()
    issuer.delay = 30
    impatient = threading.Thread(target=fetch, args=(issuer,))
    impatient.start()
    while not issuer.fetches:
        time.sleep(0.01)
    start = time.monotonic()
    issuer.close()
    issuer.close()
    impatient.join()
    assert time.monotonic() - start < 20
    with pytest.raises(OSError, match="refused"):
        fetch(issuer)


def test_the_fixture_is_an_issuer(rls_issuer: Issuer) -> None:
    assert verified(rls_issuer, rls_issuer.token("alice"))["sub"] == "alice"
