"""How a provider's keys are read, fetched and kept: asked for rarely, and never believed for long."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from sqla_rls.exc import DeclarationError, InvalidToken, KeysUnavailable
from sqla_rls.testing.issuer import Issuer, Key
from sqla_rls.tokens.jwks import FetchedKeySet, FetchLimits, KeySet, PublicKey, choose, keys_in
from tests.support.suite import table


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> FetchedKeySet:
    return FetchedKeySet(issuer.jwks_uri, FetchLimits(timeout=5), clock=clock)


def get(keys: KeySet, kid: str | None, algorithm: str = "ES256") -> PublicKey:
    fetch = keys.refresh(kid, algorithm)
    if fetch is not None:
        fetch.result(timeout=keys.timeout)
    return keys.find(kid, algorithm)


def jwk(**changes: Any) -> dict[str, Any]:
    merged = Key.generate().jwk() | changes
    return {name: value for name, value in merged.items() if value is not None}


# Which keys are usable


def test_a_key_that_can_not_be_used_does_not_take_the_others_with_it() -> None:
    good = jwk(kid="good")
    private = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    unusable: list[Any] = [
        None,
        7,
        "key",
        [],
        {},
        {"kty": "unknown", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "a"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0", "kid": "a", "alg": "HS256"},
        private,
        RSAAlgorithm.to_jwk(small, as_dict=True),
        OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True),
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True),
        jwk(use="enc"),
        jwk(use=7),
        jwk(key_ops=["encrypt"]),
        jwk(key_ops=7),
        jwk(alg="HS256"),
        jwk(alg="none"),
        jwk(alg="RS256"),
        jwk(alg="ES384"),
        jwk(alg=["ES256"]),
        jwk(kid=7),
        jwk(kid=["a"]),
        jwk(x="AAAA"),
        jwk(x=None),
        jwk(x=7),
        jwk(crv="P-384"),
        jwk(crv=["P-256"]),
        {**good, "kid": "not on the curve", "x": good["y"]},
    ]

    assert [key.kid for key in keys_in({"keys": [*unusable, good, *unusable]})] == ["good"]


@pytest.mark.parametrize("document", [None, [], "keys", {}, {"keys": None}, {"keys": {"a": 1}}])
def test_what_is_no_key_document_is_an_error(document: Any) -> None:
    with pytest.raises(ValueError, match="JWKS"):
        keys_in(document)


def test_the_curve_decides_the_algorithm() -> None:
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    for algorithm, curve in curves.items():
        public = ec.generate_private_key(curve).public_key()
        keys = keys_in({"keys": [ECAlgorithm.to_jwk(public, as_dict=True)]})
        assert {name for name in curves if choose(keys, None, name)} == {algorithm}


@pytest.mark.exhaustive
def test_an_rsa_key_serves_one_algorithm_if_it_says_so() -> None:
    public = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    entry = RSAAlgorithm.to_jwk(public, as_dict=True)

    assert choose(keys_in({"keys": [entry]}), None, "PS512") == public
    assert choose(keys_in({"keys": [{**entry, "alg": "RS256"}]}), None, "PS512") is None


def test_an_id_that_names_two_keys_names_none() -> None:
    keys = keys_in({"keys": [jwk(kid="one"), jwk(kid="one")]})

    assert choose(keys, "one", "ES256") is None


def test_a_key_that_is_listed_twice_is_still_one_key() -> None:
    entry = jwk(kid="one")
    keys = keys_in({"keys": [entry, dict(entry), {**entry, "kid": "also one"}]})

    assert choose(keys, "one", "ES256") == choose(keys, None, "ES256") is not None


def test_without_an_id_there_must_be_no_doubt() -> None:
    first, second = jwk(kid="one"), jwk(kid="two")
    other = Key.generate("EdDSA").jwk()

    assert choose(keys_in({"keys": [first, other]}), None, "ES256") is not None
    assert choose(keys_in({"keys": [first, second]}), None, "ES256") is None


def test_a_key_without_an_id_does_not_answer_to_one() -> None:
    keys = keys_in({"keys": [jwk(kid=None)]})

    assert choose(keys, "one", "ES256") is None
    assert choose(keys, None, "ES256") is not None


# Fetching and keeping


def test_keys_are_fetched_when_first_needed_and_then_kept(issuer: Issuer, keys: FetchedKeySet) -> None:
    assert issuer.fetches == 0
    for _ in range(100):
        assert get(keys, issuer.key().kid) == issuer.key().private.public_key()
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_keys_are_asked_for_again_when_their_life_is_over(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    old = issuer.key()
    get(keys, old.kid)
    issuer.rotate()

    clock.now += 299
    assert get(keys, old.kid)
    clock.now += 1
    with pytest.raises(InvalidToken):
        get(keys, old.kid)
    assert issuer.fetches == 2


@pytest.mark.exhaustive
def test_a_new_key_is_found_as_soon_as_it_is_needed(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    new = issuer.rotate(keep=True)

    clock.now += 10
    assert get(keys, new.kid) == new.private.public_key()
    assert issuer.fetches == 2


def test_a_thousand_invented_key_ids_cost_one_fetch(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    clock.now += 10

    for number in range(1000):
        with pytest.raises(InvalidToken, match="key id"):
            get(keys, f"invented-{number}")
    assert issuer.fetches == 2
    assert get(keys, issuer.key().kid)


@pytest.mark.exhaustive
def test_invented_key_ids_cost_one_fetch_per_cooldown_however_long_they_go_on(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    for number in range(600):  # one a second, ten minutes
        with pytest.raises(InvalidToken):
            get(keys, f"invented-{number}")
        clock.now += 1
    assert issuer.fetches == 60


def test_32_threads_at_once_cost_one_fetch(issuer: Issuer, keys: FetchedKeySet) -> None:
    issuer.delay = 0.2
    start = threading.Barrier(32)

    def ask(_: int) -> PublicKey:
        start.wait()
        return get(keys, issuer.key().kid)

    with ThreadPoolExecutor(32) as threads:
        assert set(map(type, threads.map(ask, range(32)))) == {type(issuer.key().private.public_key())}
    assert issuer.fetches == 1


@pytest.mark.exhaustive
def test_in_an_outage_the_known_keys_go_on_without_a_wait_and_then_nobody_gets_in(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.status = 503

    clock.now += 300
    assert get(keys, kid)  # waits for the attempt that fails
    issuer.delay = 30
    clock.now += 10
    assert keys.refresh(kid, "ES256") is None  # the next attempt is under way, and nobody waits for it
    assert keys.find(kid, "ES256")

    clock.now += 3289
    assert keys.refresh(kid, "ES256") is None
    assert keys.find(kid, "ES256")
    clock.now += 1
    with pytest.raises(KeysUnavailable, match="Try again"):
        keys.find(kid, "ES256")


@pytest.mark.exhaustive
def test_when_the_outage_is_over_its_news_arrive(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    old = issuer.key()
    get(keys, old.kid)
    issuer.status = 500
    clock.now += 300
    get(keys, old.kid)
    issuer.reset()
    new = issuer.rotate()

    clock.now += 10
    assert get(keys, new.kid)
    with pytest.raises(InvalidToken):
        get(keys, old.kid)


def test_after_a_long_outage_the_first_to_come_gets_in(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.status = 500
    clock.now += 300
    get(keys, kid)
    issuer.reset()

    clock.now += 10_000
    assert get(keys, kid)


@pytest.mark.exhaustive
def test_an_id_that_is_new_in_an_outage_is_not_called_invalid(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    get(keys, issuer.key().kid)
    issuer.status = 503
    clock.now += 10

    with pytest.raises(KeysUnavailable):
        get(keys, "new")
    assert get(keys, issuer.key().kid)


@pytest.mark.exhaustive
def test_a_provider_that_is_down_is_left_alone(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    issuer.status = 503
    for _ in range(100):  # one in 0.3 s
        with pytest.raises(KeysUnavailable):
            get(keys, issuer.key().kid)
        clock.now += 0.3
    assert issuer.fetches == 3


def test_a_provider_that_withdraws_all_keys_is_obeyed(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.body = b'{"keys": []}'

    clock.now += 300
    with pytest.raises(KeysUnavailable):
        get(keys, kid)


@table(
    "body",
    [b"", b"<html>", b"[]", b"7", b'{"key": []}', b'{"keys": {}}', b"[" * 100_000, b"\xff\xfe", b'{"keys"'],
)
def test_an_answer_that_is_no_key_document_is_a_failed_fetch(
    issuer: Issuer, keys: FetchedKeySet, clock: Clock, body: bytes
) -> None:
    kid = issuer.key().kid
    get(keys, kid)
    issuer.body = body

    clock.now += 300
    assert get(keys, kid)
    clock.now += 3300
    with pytest.raises(KeysUnavailable):
        get(keys, kid)


@pytest.mark.exhaustive
def test_a_fetch_that_was_lost_is_made_up_for(issuer: Issuer, keys: FetchedKeySet, clock: Clock) -> None:
    kid = issuer.key().kid
    issuer.delay = 0.5
    lost = keys.refresh(kid, "ES256")  # as if by a thread that a fork left behind
    assert lost is not None
    while not issuer.fetches:
        time.sleep(0.01)
    time.sleep(0.05)
    issuer.delay = 0

    clock.now += 10
    assert keys.refresh(kid, "ES256") is lost
    with pytest.raises(KeysUnavailable):
        keys.find(kid, "ES256")
    clock.now += 0.1
    assert get(keys, kid)
    assert issuer.fetches == 2

    issuer.status = 503
    lost.result(timeout=5)  # what it brings in the end is old news
    with pytest.raises(InvalidToken):
        keys.find("new", "ES256")


def test_a_waiter_that_gives_up_does_not_take_the_fetch_from_the_others(
    issuer: Issuer, keys: FetchedKeySet
) -> None:
    issuer.delay = 0.2
    kid = issuer.key().kid

    async def ask(timeout: float) -> None:
        fetch = keys.refresh(kid, "ES256")
        assert fetch is not None
        await asyncio.wait_for(asyncio.wrap_future(fetch), timeout)

    async def both() -> tuple[BaseException | None, BaseException | None]:
        return await asyncio.gather(ask(0.01), ask(5), return_exceptions=True)

    impatient, patient = asyncio.run(both())
    assert isinstance(impatient, TimeoutError)
    assert patient is None
    assert keys.find(kid, "ES256")


def test_why_a_fetch_failed_is_logged_without_the_query(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.status = 503
    with pytest.raises(KeysUnavailable):
        get(FetchedKeySet(f"{issuer.jwks_uri}?apikey=secret", clock=clock), "any")

    assert issuer.jwks_uri in caplog.text
    assert "503" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "limits",
    [
        {"timeout": 0},
        {"cooldown": 0},
        {"cooldown": -1},
        {"cooldown": 301},
        {"lifespan": 3601},
        {"max_bytes": 0},
        {"lifespan": float("nan")},
    ],
)
def test_limits_that_limit_nothing_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="FetchLimits"):
        FetchLimits(**limits)
