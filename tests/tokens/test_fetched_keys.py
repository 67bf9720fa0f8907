"""What callers wait for while keys are fetched, and who gets in meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sqla_rls.exc import InvalidToken, KeysUnavailable
from sqla_rls.provider import Provider
from sqla_rls.testing.issuer import Issuer
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.jwks import FetchedKeySet, FetchLimits
from sqla_rls.tokens.verifier import Verifier
from tests.support.clocks import Clocks


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
        assert time.monotonic() - started_at < 20


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
