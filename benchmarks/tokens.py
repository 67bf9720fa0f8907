"""What a token check costs, beside PyJWT: ``python -m benchmarks.tokens``.

All are interleaved in one run, each in turn on a token of its own; times are medians in microseconds.
PyJWT's ``decode`` has the key at hand; ``PyJWKClient`` looks it up among those that it fetched before.
The storms are of tokens with invented key ids, sent from several threads to a program that has just
started: what counts is how often the provider is asked, healthy or down.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import jwt

from sqla_rls import Verifier
from sqla_rls.exc import InvalidToken, KeysUnavailable
from sqla_rls.testing.issuer import ALGORITHMS, Issuer


def checks(issuer: Issuer, algorithm: str) -> dict[str, Callable[[str], object]]:
    """The ways to check a token, by name; the first is what the others are compared with."""
    provider = replace(issuer.provider, algorithms=(algorithm,))
    key, verifier = issuer.key(algorithm), Verifier(provider, cache_size=0)
    remembering, client = Verifier(provider), jwt.PyJWKClient(issuer.jwks_uri)
    expected: dict[str, Any] = {
        "algorithms": [algorithm],
        "audience": issuer.project_id,
        "issuer": issuer.issuer,
        "leeway": 30,
        "options": {"require": ["exp", "iss", "sub"]},
    }
    public = key.private.public_key()

    def by_client(token: str) -> object:
        return jwt.decode(token, client.get_signing_key_from_jwt(token), **expected)

    def again(token: str) -> object:
        return remembering.verify(token)

    return {
        "PyJWT": lambda token: jwt.decode(token, public, **expected),
        "PyJWKClient": by_client,
        "Verifier": verifier.verify,
        "Verifier, seen before": again,
    }


def seconds(check: Callable[[str], object], token: str) -> float:
    begin = time.perf_counter()
    check(token)
    return time.perf_counter() - begin


def compare(issuer: Issuer, algorithm: str, rounds: int) -> None:
    ways = checks(issuer, algorithm)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        token = issuer.token(f"user-{number}", algorithm=algorithm)
        ways["Verifier, seen before"](token)
        for name, check in ways.items():
            times[name].append(seconds(check, token))
    alone, *_ = times.values()
    for name, measured in times.items():
        ratio = statistics.median(one / other for one, other in zip(measured, alone, strict=True))
        print(f"{algorithm:9}  {name:22}{statistics.median(measured) * 1e6:9.1f}{ratio:9.2f}")


def storm(tokens: list[str], threads: int, check: Callable[[str], object]) -> float:
    """The seconds until all are refused."""

    def refuse(token: str) -> None:
        try:
            check(token)
        except (InvalidToken, KeysUnavailable, jwt.PyJWTError):
            return
        raise SystemExit("a token with an invented key id was accepted")

    begin = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(refuse, tokens))
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--storm", type=int, default=10_000, help="tokens with invented key ids")
    parser.add_argument("--threads", type=int, default=8)
    arguments = parser.parse_args()
    logging.disable()  # of the provider that is down
    with Issuer() as issuer:
        for algorithm in ALGORITHMS:
            issuer.key(algorithm)
        print("algorithm  check                        µs    ratio")
        for algorithm in ALGORITHMS:
            compare(issuer, algorithm, arguments.rounds)

        print(f"\n{arguments.storm} tokens with invented key ids, from {arguments.threads} threads")
        print("provider  check        fetches  seconds")
        forged = [issuer.token("m", headers={"kid": f"invented-{n}"}) for n in range(arguments.storm)]
        for status, state in ((200, "healthy"), (503, "down")):
            for name in ("Verifier", "PyJWKClient"):
                issuer.reset()
                issuer.status = status
                took = storm(forged, arguments.threads, checks(issuer, "ES256")[name])
                print(f"{state:10}{name:12}{issuer.fetches:8}{took:9.1f}")


if __name__ == "__main__":
    main()
