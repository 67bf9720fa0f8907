"""Which tokens prove who is calling, and which don't."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pickle
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sqla_rls.exc import DeclarationError, ExpiredToken, InvalidToken, KeysUnavailable
from sqla_rls.provider import Provider
from sqla_rls.session.principal import principal_key
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.jwks import FetchedKeySet, FetchLimits
from sqla_rls.tokens.verifier import Verifier
from tests.support.base64url import part
from tests.support.clocks import Clocks
from tests.support.forge import (
    EDDSA,
    ES256,
    ISSUER,
    P384,
    PUBLIC_PEM,
    RS256,
    SECRET,
    STRANGER,
    pinned,
    token,
)


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(pinned())


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


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
    with pytest.raises(InvalidToken, match="takes the subject from"):
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


# Keys that have to be fetched


def test_32_threads_at_once_cost_one_fetch(issuer: Issuer) -> None:
    issuer.delay = 0.2
    verifier, start = Verifier(issuer.provider), threading.Barrier(32)
    tokens = [issuer.token(f"user-{number}") for number in range(32)]

    def ask(number: int) -> str | None:
        start.wait()
        return verifier.verify(tokens[number]).subject

    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(ask, range(32))) == [f"user-{number}" for number in range(32)]
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_a_thousand_invented_key_ids_cost_one_fetch_and_no_threads(issuer: Issuer) -> None:
    issuer.delay = 0.2
    verifier = Verifier(issuer.provider)
    forged = [issuer.token("mallory", headers={"kid": f"invented-{number}"}) for number in range(1000)]
    alice = issuer.token("alice")

    async def storm() -> tuple[list[Caller | BaseException], int]:
        waiting = asyncio.gather(*map(verifier.verify_async, [*forged, alice]), return_exceptions=True)
        await asyncio.sleep(0.1)
        return await waiting, threading.active_count()

    threads_before = threading.active_count()
    results, threads = asyncio.run(storm())
    assert {type(result) for result in results[:-1]} == {InvalidToken}
    assert isinstance(results[-1], Caller)
    assert issuer.fetches == 1
    assert threads <= threads_before + 3  # the fetch, and two of the issuer's

    for text in forged:
        with pytest.raises(InvalidToken):
            verifier.verify(text)
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_the_event_loop_goes_on_while_keys_are_fetched(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, went_on = Verifier(issuer.provider), threading.Event()

    def download(uri: str, limits: FetchLimits) -> object:
        assert went_on.wait(limits.timeout)
        return issuer.jwks()

    async def look() -> Caller:
        verifying = asyncio.create_task(verifier.verify_async(issuer.token("alice")))
        await asyncio.sleep(0)  # it asks for the keys
        assert not verifying.done()
        went_on.set()
        return await verifying

    monkeypatch.setattr("sqla_rls.tokens.jwks.download", download)
    assert asyncio.run(look()).subject == "alice"


@pytest.mark.exhaustive
def test_known_keys_and_known_tokens_are_answered_without_giving_way_to_others(issuer: Issuer) -> None:
    verifier = Verifier(issuer.provider)
    verifier.verify(issuer.token("alice"))

    bob = issuer.token("bob")
    for _ in range(2):
        with pytest.raises(StopIteration) as answered:
            verifier.verify_async(bob).send(None)
        assert answered.value.value.subject == "bob"


def test_a_request_that_is_cancelled_does_not_take_the_keys_from_the_others(issuer: Issuer) -> None:
    issuer.delay = 0.2
    verifier = Verifier(issuer.provider)

    async def both() -> Caller:
        leaving = asyncio.create_task(verifier.verify_async(issuer.token("mallory")))
        staying = asyncio.create_task(verifier.verify_async(issuer.token("alice")))
        await asyncio.sleep(0.05)
        leaving.cancel()
        return await staying

    assert asyncio.run(both()).subject == "alice"
    assert issuer.fetches == 1


def test_nobody_waits_for_keys_longer_than_the_limit(issuer: Issuer) -> None:
    issuer.delay = 30
    verifier = Verifier(issuer.provider, limits=FetchLimits(timeout=0.2))

    for verify in (verifier.verify, lambda text: asyncio.run(verifier.verify_async(text))):
        started_at = time.monotonic()
        with pytest.raises(KeysUnavailable):
            verify(issuer.token("alice"))
        assert time.monotonic() - started_at < 1


@pytest.mark.exhaustive
def test_in_an_outage_those_with_known_keys_get_in_and_nobody_else(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    keys = FetchedKeySet(issuer.jwks_uri, clock=clocks.monotonic)
    monkeypatch.setattr(Provider, "key_set", lambda *_: keys)
    verifier = Verifier(issuer.provider, cache_size=0)
    verifier.verify(issuer.token("alice"))
    issuer.status = 503

    clocks.ahead = 400  # more than their lifespan
    assert verifier.verify(issuer.token("bob"))
    with pytest.raises(KeysUnavailable):
        verifier.verify(issuer.token("carol", headers={"kid": "new"}))
    clocks.ahead = 3600
    with pytest.raises(KeysUnavailable):
        verifier.verify(issuer.token("bob"))
    issuer.status = 200
    clocks.ahead = 3611
    assert verifier.verify(issuer.token("bob"))


@pytest.mark.exhaustive
def test_threads_and_event_loops_at_once_cost_one_fetch(issuer: Issuer) -> None:
    issuer.delay = 0.2
    verifier, start = Verifier(issuer.provider), threading.Barrier(16)
    tokens = [issuer.token(f"user-{number}") for number in range(16)]

    def ask(number: int) -> str | None:
        start.wait()
        text = tokens[number]
        caller = asyncio.run(verifier.verify_async(text)) if number % 2 else verifier.verify(text)
        return caller.subject

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(16))) == [f"user-{number}" for number in range(16)]
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_while_keys_are_replaced_nobody_is_refused_and_each_new_one_costs_one_fetch(issuer: Issuer) -> None:
    """As providers do it: the old key stays until its tokens end."""
    verifier = Verifier(issuer.provider, limits=FetchLimits(lifespan=60, cooldown=0.01), cache_size=0)
    tokens = [issuer.token("alice")]
    with ThreadPoolExecutor(8) as threads:
        for fetches in range(1, 5):
            subjects = list(threads.map(lambda text: verifier.verify(text).subject, tokens * 8))
            assert subjects == ["alice"] * len(tokens) * 8
            assert issuer.fetches == fetches
            issuer.rotate(keep=True)
            tokens.append(issuer.token("alice"))
            time.sleep(0.02)


def test_the_outage_of_one_provider_is_nobody_elses(issuer: Issuer) -> None:
    issuer.status = 503
    with Issuer() as other:
        verifier = Verifier(issuer.provider, other.provider, subjects_are_distinct=True)

        with pytest.raises(KeysUnavailable):
            verifier.verify(issuer.token("alice"))
        assert verifier.verify(other.token("alice")).subject == "alice"


# Declaring a verifier


def test_providers_that_may_issue_one_subject_for_one_role_are_refused() -> None:
    first, second = pinned(), pinned(name="other", issuer="https://other.example")
    with pytest.raises(DeclarationError, match="subjects_are_distinct=True"):
        Verifier(first, second)
    with pytest.raises(DeclarationError, match="'partner'"):
        Verifier(replace(first, role="partner"), replace(second, role_claim="r", roles=("partner",)))
    Verifier(first, second, subjects_are_distinct=True)
    Verifier(first, replace(second, role="partner"))


# Who is one person


def test_two_tokens_of_one_sign_in_differ_in_claims_that_do_not_count() -> None:
    at = {"iss": "x", "org_id": "a", "iat": 1, "exp": 2, "nbf": 1, "jti": "1", "auth_time": 1, "nonce": "n"}
    signed_in = Caller(role="authenticated", subject="alice", claims=at)
    later = {**at, **dict.fromkeys(("iat", "exp", "nbf", "jti", "auth_time", "nonce"), 9)}
    assert Caller(role="authenticated", subject="alice", claims=later).sign_in() == signed_in.sign_in()
    for change in ({"iss": "y"}, {"org_id": "b"}, {"org_id": None}, {"sid": "1"}):
        other = Caller(role="authenticated", subject="alice", claims={**at, **change})
        assert other.sign_in() != signed_in.sign_in()
        assert (other.sign_in(["org_id"]) != signed_in.sign_in(["org_id"])) is ("sid" not in change)


def test_a_provider_may_name_claims_that_each_token_has_anew() -> None:
    names = ("fva", ("session", "seen_at"))
    first, later, other = (
        Caller(
            role="authenticated",
            claims={"fva": [minutes], "session": {"id": session, "seen_at": minutes}},
            per_token_claims=names,
        )
        for minutes, session in ((1, "a"), (2, "a"), (3, "b"))
    )
    assert first.sign_in() == later.sign_in() != other.sign_in()


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


# Callers


def test_nobody_in_particular() -> None:
    assert Caller(role="anonymous") == Caller.anonymous()
    assert Caller.anonymous().subject is None
    assert Caller.anonymous().claims_json == "{}"
    assert not Caller.anonymous().is_expired(now=1e12)
    assert dataclasses.replace(Caller.anonymous(), role="anon") == Caller(role="anon")


def test_a_caller_may_be_made_by_hand() -> None:
    alice = Caller(role="authenticated", subject="alice", claims={"org": 7})

    assert alice.claims_json == '{"org":7,"sub":"alice"}'
    assert alice.claims["sub"] == "alice"


def test_equal_callers_are_equal() -> None:
    first = Caller(role="a", subject="alice", claims={"x": {"a": 1, "b": [2]}, "y": 3})
    second = Caller(role="a", subject="alice", claims={"y": 3, "x": {"b": (2,), "a": 1}})

    assert first == second
    assert hash(first) == hash(second)
    assert first != Caller(role="a", subject="alice", claims={"y": 4})
    assert first != dataclasses.replace(first, role="b")
    assert first != dataclasses.replace(first, expires_at=1.0)


def test_nobody_can_change_a_caller_that_others_share() -> None:
    claims: dict[str, Any] = {"roles": ["reader"], "app": {"plan": "free"}}
    alice = Caller(role="authenticated", subject="alice", claims=claims)
    claims["roles"].append("admin")
    claims["app"]["plan"] = "paid"

    assert alice.claims["roles"] == ("reader",)
    assert alice.claims["app"]["plan"] == "free"
    changeable: Any = alice
    with pytest.raises(TypeError):
        changeable.claims["sub"] = "bob"
    with pytest.raises(TypeError):
        changeable.claims["app"]["plan"] = "paid"
    for name in ("role", "subject", "claims", "claims_json"):
        with pytest.raises(AttributeError):
            setattr(changeable, name, "bob")


@pytest.mark.parametrize(
    "options",
    [
        {"subject": "alice", "claims": {"sub": "bob"}},
        {"claims": {"sub": "bob"}},
        {"subject": ""},
        {"subject": "a\0b"},
        {"claims": {"x": "\ud800"}},
        {"claims": {"x": float("nan")}},
        {"claims": {"x": {1, 2}}},
        {"claims": {"x": b"bytes"}},
        {"claims": {1: "x"}},
        {"role": "none"},
        {"role": ""},
        {"role": "x" * 64},
    ],
)
def test_what_postgres_can_not_hold_or_would_misread_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError) as refused:
        Caller(**{"role": "authenticated", **options})

    assert "bob" not in str(refused.value)


def test_repr_does_not_say_who_it_is() -> None:
    alice = Caller(role="authenticated", subject="alice", claims={"email": SECRET}, expires_at=9.5)

    assert repr(alice) == str(alice) == "Caller(role='authenticated', subject=…, expires_at=9.5)"
    assert repr(Caller.anonymous()) == "Caller(role='anonymous', subject=None, expires_at=None)"
