"""Which tokens prove who is calling, and which don't."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken
from sqla_rls.provider import Provider
from sqla_rls.session.principal import principal_key
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.tokens.jwks import FetchLimits
from sqla_rls.tokens.verifier import Verifier
from tests.support.base64url import part
from tests.support.clocks import Clocks
from tests.support.forge import EDDSA, ES256, ISSUER, P384, PUBLIC_PEM, RS256, STRANGER, pinned, token


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(pinned())


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signature was checked."""
    checked: list[str] = []
    decode = jwt.decode

    def count(token: str, *args: Any, **options: Any) -> Any:
        checked.append(token)
        return decode(token, *args, **options)

    monkeypatch.setattr(jwt, "decode", count)
    return checked


# Whose token is accepted, and what comes of it


@pytest.mark.parametrize("key", [ES256, RS256, EDDSA], ids=lambda key: key.algorithm)
def test_alice_proves_who_she_is(verifier: Verifier, key: Key) -> None:
    alice = verifier.verify(token(key=key))

    assert alice.subject == "alice"
    assert alice.role == "authenticated"
    assert alice.claims["aud"] == "app"
    assert json.loads(alice.claims_json) == {**alice.claims}
    assert alice.expires_at == alice.claims["exp"] + 30


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_that_names_no_algorithm_serves_those_that_the_provider_pins(algorithm: str) -> None:
    jwks = {"keys": [{name: value for name, value in RS256.jwk().items() if name != "alg"}]}
    signed = token(header={"alg": algorithm}, key=RS256, algorithm=algorithm)

    assert Verifier(pinned(jwks=jwks, algorithms=(algorithm,))).verify(signed).subject == "alice"
    with pytest.raises(InvalidToken):
        Verifier(pinned(jwks=jwks, algorithms=("RS256",))).verify(signed)


@pytest.mark.parametrize(("algorithm", "curve"), [("ES384", ec.SECP384R1()), ("ES512", ec.SECP521R1())])
def test_the_longer_curves_work(algorithm: str, curve: ec.EllipticCurve) -> None:
    key = Key(kid="long", algorithm=algorithm, private=ec.generate_private_key(curve))

    assert Verifier(pinned(jwks={"keys": [key.jwk()]}, algorithms=(algorithm,))).verify(token(key=key))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
def test_the_usual_types_are_accepted(verifier: Verifier, typ: str | None) -> None:
    assert verifier.verify(token(header={"typ": typ}))


@pytest.mark.parametrize("aud", ["app", ["app"], ["other", "app"]])
def test_a_token_may_be_for_several_audiences(verifier: Verifier, aud: Any) -> None:
    assert verifier.verify(token({"aud": aud}))


def test_a_provider_may_accept_several_audiences() -> None:
    verifier = Verifier(pinned(audience=("web", "mobile")))

    assert verifier.verify(token({"aud": "mobile"}))
    with pytest.raises(InvalidToken, match="audience"):
        verifier.verify(token({"aud": "app"}))


def test_where_the_audience_is_left_unchecked_there_may_be_any_or_none() -> None:
    verifier = Verifier(pinned(audience=None))

    assert verifier.verify(token({"aud": "somebody else"}))
    assert verifier.verify(token({"aud": None}))


def test_without_a_key_id_the_one_key_that_fits_is_used(verifier: Verifier) -> None:
    assert verifier.verify(token(header={"kid": None}))
    with pytest.raises(InvalidToken, match="key id"):
        Verifier(pinned(jwks={"keys": [ES256.jwk(), STRANGER.jwk()]})).verify(token(header={"kid": None}))


def test_with_a_pem_the_key_id_is_passed_over() -> None:
    verifier = Verifier(pinned(jwks=None, public_key=PUBLIC_PEM, algorithms=("ES256",)))

    assert verifier.verify(token(header={"kid": "anything"}))


def test_each_provider_is_trusted_for_its_own_tokens_only() -> None:
    other = "https://other.example"
    verifier = Verifier(pinned(), pinned(issuer=other, jwks={"keys": [STRANGER.jwk()]}, role="partner"))

    assert verifier.verify(token({"iss": other}, key=STRANGER)).role == "partner"
    assert verifier.verify(token()).role == "authenticated"
    for forged in (token(key=STRANGER), token({"iss": other})):
        with pytest.raises(InvalidToken):
            verifier.verify(forged)
    borrowed = Key(kid=ES256.kid, algorithm="ES256", private=STRANGER.private)
    with pytest.raises(InvalidToken, match="signed"):
        verifier.verify(token(key=borrowed))


def test_a_provider_may_have_several_issuers() -> None:
    verifier = Verifier(pinned(issuer=(ISSUER, "auth.example")))

    assert verifier.verify(token())
    assert verifier.verify(token({"iss": "auth.example"}))
    with pytest.raises(InvalidToken, match="issuer"):
        verifier.verify(token({"iss": "auth.example/"}))


def test_a_provider_may_require_more_of_a_token() -> None:
    verifier = Verifier(pinned(required_claims={"typ": ("Bearer",)}))

    assert verifier.verify(token({"typ": "Bearer"}))
    for typ in ("ID", "Refresh", None):
        with pytest.raises(InvalidToken, match="'typ'"):
            verifier.verify(token({"typ": typ}))


def test_a_claim_chooses_among_the_configured_roles_only() -> None:
    verifier = Verifier(pinned(role_claim="role", roles=("authenticated", "admin")))

    assert verifier.verify(token({"role": "admin"})).role == "admin"
    assert verifier.verify(token()).role == "authenticated"
    with pytest.raises(InvalidToken, match="role"):
        verifier.verify(token({"role": "postgres"}))


def test_the_subject_may_be_in_another_claim() -> None:
    verifier = Verifier(pinned(subject_claim=("ids", "internal"), role_claim="sub", roles=("alice",)))
    internal = "5f0c2b9e-0000-4000-8000-000000000001"

    def signed(**claims: Any) -> str:
        return token({"ids": {"internal": internal}, **claims})

    alice = verifier.verify(signed(provider_sub="bob"))
    assert (alice.subject, alice.role) == (internal, "alice")
    seen = json.loads(alice.claims_json)
    assert (seen["sub"], seen["provider_sub"], seen["ids"]) == (internal, "alice", {"internal": internal})
    assert pickle.loads(pickle.dumps(alice)) == alice
    with pytest.raises(InvalidToken, match="from which the subject comes"):
        verifier.verify(token())
    with pytest.raises(InvalidToken):
        verifier.verify(signed(sub=None))


@pytest.mark.parametrize("names", [None, ["org_id"]])
def test_a_person_is_the_subject_in_the_other_claim_and_the_providers_own(names: list[str] | None) -> None:
    verifier = Verifier(pinned(subject_claim="internal"))

    def who(**claims: Any) -> Any:
        return principal_key(verifier.verify(token({"internal": "5", **claims})), names)

    now = int(time.time())
    assert who() == who(iat=now - 5, exp=now + 900)
    assert len({who(), who(internal="6"), who(sub="bob"), who(org_id="a")}) == 4


@pytest.mark.exhaustive
def test_stack_auth_end_to_end(issuer: Issuer) -> None:
    verifier = Verifier(issuer.provider)

    assert verifier.verify(issuer.token("alice")).subject == "alice"
    anonymous_user = {
        "iss": issuer.issuer.replace("/projects/", "/projects-anonymous-users/"),
        "aud": f"{issuer.project_id}:anon",
    }
    for foreign in (
        issuer.token("mallory", claims=anonymous_user),
        issuer.token("mallory", audience=f"{issuer.project_id}:anon"),
        issuer.token("mallory", key=Key.generate()),
        issuer.token("mallory", algorithm="none"),
        issuer.token("mallory", issuer=issuer.issuer + "/"),
    ):
        with pytest.raises(InvalidToken):
            verifier.verify(foreign)


def test_a_key_on_another_curve_than_its_algorithm_verifies_nothing() -> None:
    jwk = {name: value for name, value in P384.jwk().items() if name != "alg"}
    verifier = Verifier(pinned(jwks={"keys": [jwk]}, algorithms=("ES256", "ES384")))
    header, claims, _ = token(header={"alg": "ES256"}, key=P384).split(".")
    any_curve: Any = ECAlgorithm(ECAlgorithm.SHA256)
    forged = f"{header}.{claims}.{part(any_curve.sign(f'{header}.{claims}'.encode(), P384.private))}"

    with pytest.raises(InvalidToken, match="key id and algorithm"):
        verifier.verify(forged)
    assert verifier.verify(token(key=P384))


@pytest.mark.parametrize("subject", ["x' OR 1=1 --", "\\u0000", "日本", "a\nb", '"}', "😀", "\x01"])
def test_any_text_may_be_a_subject(verifier: Verifier, subject: str) -> None:
    known = verifier.verify(token({"sub": subject}))

    assert known.subject == subject
    assert known.claims_json.isascii()
    assert json.loads(known.claims_json)["sub"] == subject


def test_a_token_ends_at_the_same_moment_wherever_it_is_looked_at(clocks: Clocks) -> None:
    verifier = Verifier(pinned(), leeway=10)
    now = int(time.time())
    old = token({"exp": now})
    known = verifier.verify(old)

    assert known.expires_at == now + 10
    assert not known.is_expired(now + 9.999)
    assert known.is_expired(now + 10)
    clocks.ahead = 10
    for late in (verifier, Verifier(pinned(), leeway=10)):  # known to it, and not
        with pytest.raises(ExpiredToken, match="Refresh"):
            late.verify(old)
    assert known.is_expired()


def test_leeway_counts_for_a_clock_that_is_slow(clocks: Clocks) -> None:
    now = int(time.time())
    early = token({"iat": now + 25, "nbf": now + 25})

    assert Verifier(pinned()).verify(early)
    with pytest.raises(InvalidToken, match="clock"):
        Verifier(pinned(), leeway=0).verify(early)
    clocks.ahead = 30
    assert Verifier(pinned(), leeway=0).verify(early)


def test_times_may_have_fractions(verifier: Verifier) -> None:
    exp = time.time() + 600.5

    assert verifier.verify(token({"exp": exp})).expires_at == int(exp) + 30


def test_more_claims_may_be_required() -> None:
    verifier = Verifier(pinned(), required_claims=["email"])

    assert verifier.verify(token({"email": "alice@example.com"}))
    with pytest.raises(InvalidToken, match="'email'"):
        verifier.verify(token())
    with pytest.raises(InvalidToken, match="'sub'"):
        verifier.verify(token({"sub": None, "email": "alice@example.com"}))


# What is remembered


def test_a_token_is_verified_once(checks: list[str]) -> None:
    verifier = Verifier(pinned())
    alice = token()

    assert verifier.verify(alice) is verifier.verify(alice)
    assert asyncio.run(verifier.verify_async(alice)) is verifier.verify(alice)
    assert len(checks) == 1


def test_what_is_refused_is_not_remembered(checks: list[str]) -> None:
    verifier = Verifier(pinned())
    forged = token(header={"kid": ES256.kid}, key=STRANGER)

    for _ in range(2):
        with pytest.raises(InvalidToken):
            verifier.verify(forged)
    assert len(checks) == 2


def test_tokens_that_were_used_lately_are_remembered_and_no_more_than_that(checks: list[str]) -> None:
    verifier = Verifier(pinned(), cache_size=2)
    alice, bob, carol = (token({"sub": name}) for name in ("alice", "bob", "carol"))
    for known in (alice, bob, alice, carol):
        verifier.verify(known)
    checks.clear()

    verifier.verify(alice)
    verifier.verify(carol)
    assert checks == []
    verifier.verify(bob)
    assert checks == [bob]


def test_nothing_is_remembered_if_not_wanted(checks: list[str]) -> None:
    verifier = Verifier(pinned(), cache_size=0)
    alice = token()

    assert verifier.verify(alice) == verifier.verify(alice)
    assert len(checks) == 2


def test_a_withdrawn_key_takes_effect_although_its_tokens_are_remembered(
    issuer: Issuer, clocks: Clocks
) -> None:
    limits = FetchLimits(lifespan=0.05, cooldown=0.05)
    verifier = Verifier(issuer.provider, limits=limits, cache_for=60)
    alice = issuer.token("alice")
    verifier.verify(alice)
    issuer.rotate()
    time.sleep(0.1)

    clocks.ahead = 59
    assert verifier.verify(alice)
    clocks.ahead = 60
    with pytest.raises(InvalidToken, match="key id"):
        verifier.verify(alice)


@pytest.mark.exhaustive
def test_threads_share_what_is_remembered(checks: list[str]) -> None:
    verifier = Verifier(pinned(), cache_size=8)
    tokens = [token({"sub": f"user-{number}"}) for number in range(16)]

    def work(seed: int) -> bool:
        chance = random.Random(seed)
        for _ in range(300):
            number = chance.randrange(16)
            if verifier.verify(tokens[number]).subject != f"user-{number}":
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))


# Declaring a verifier


def test_providers_that_may_issue_one_subject_for_one_role_are_refused() -> None:
    first, second = pinned(), pinned(name="other", issuer="https://other.example")
    with pytest.raises(DeclarationError, match="subjects_are_distinct=True"):
        Verifier(first, second)
    with pytest.raises(DeclarationError, match="'partner'"):
        Verifier(replace(first, role="partner"), replace(second, role_claim="r", roles=("partner",)))
    Verifier(first, second, subjects_are_distinct=True)
    Verifier(first, replace(second, role="partner"))


@pytest.mark.parametrize(
    ("providers", "options"),
    [
        ([], {}),
        ([pinned(), pinned(audience=None)], {}),
        ([pinned(), pinned(issuer=("https://another.example", ISSUER))], {}),
        ([pinned(issuer=(ISSUER, ISSUER))], {}),
        ([pinned()], {"leeway": -1}),
        ([pinned()], {"leeway": 301}),
        ([pinned()], {"required_claims": "email"}),
    ],
)
def test_a_verifier_that_can_not_be_meant_is_refused(
    providers: list[Provider], options: dict[str, Any]
) -> None:
    with pytest.raises(DeclarationError):
        Verifier(*providers, **options)
