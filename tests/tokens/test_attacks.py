"""Who can't get in: by no known attack, by no mutated token, and without learning anything from a refusal."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import string
import traceback
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

import pytest
from jwt import get_algorithm_by_name

from sqla_rls.exc import AuthenticationError, InvalidToken, KeysUnavailable
from sqla_rls.testing.issuer import Issuer
from sqla_rls.tokens.jwks import FetchLimits
from sqla_rls.tokens.verifier import Verifier
from tests.support.base64url import decoded, part
from tests.support.forge import EDDSA, ES256, ISSUER, RS256, SECRET, STRANGER, pinned, token
from tests.tables.attacks import ATTACKS


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    return Verifier(pinned())


@pytest.fixture
def hmac_with_a_pem(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the libraries that fell for it."""
    monkeypatch.setattr("jwt.algorithms.HMACAlgorithm.prepare_key", lambda self, key: key)


@pytest.mark.usefixtures("hmac_with_a_pem")
def test_nobody_gets_in_by_an_attack(
    verifier: Verifier, runner: asyncio.Runner, subtests: pytest.Subtests
) -> None:
    for name, attack in ATTACKS.items():
        with subtests.test(name):
            forged = attack()
            with pytest.raises(InvalidToken) as refused:
                verifier.verify(forged)
            with pytest.raises(InvalidToken):
                runner.run(verifier.verify_async(forged))

            assert 10 < len(str(refused.value)) < 120


# Mutations


def mutated(good: str, chance: random.Random) -> str:
    """*good*, with some characters changed."""
    place = chance.randrange(len(good))
    character = chance.choice(string.ascii_letters + string.digits + "-_.=+/ \n\0é")
    match chance.randrange(7):
        case 0 | 1:
            return good[:place] + character + good[place + 1 :]
        case 2:
            return good[:place] + good[place + 1 :]
        case 3:
            return good[:place] + character + good[place:]
        case 4:
            return good[:place]
        case 5:
            length = chance.randrange(1, 20)
            return good[:place] + good[place : place + length] * 2 + good[place + length :]
        case _:
            return good[:-1] + character


def recombined(good: str, other: str, chance: random.Random) -> str:
    """The parts of *good*, some of them those of *other*, or in another order."""
    parts = [chance.choice(pair) for pair in zip(good.split("."), other.split("."), strict=True)]
    if chance.random() < 0.3:
        chance.shuffle(parts)
    return ".".join(parts)


VALUES: list[Any] = [None, True, False, 0, -1, 1e308, 2**70, [], {}, ["app"], {"sub": "alice"}, [[[[]]]]]
VALUES += ["", "a\0", "mallory", "JWT", "none", "HS256", "ES256", "RS256", "EdDSA", ISSUER]
VALUES += [ES256.kid, EDDSA.kid, RS256.kid]
NAMES = ["alg", "kid", "typ", "jwk", "jku", "x5u", "x5c", "crit", "b64", "cty", "zip"]
NAMES += ["iss", "sub", "aud", "exp", "nbf", "iat", "role", "note", "\0"]


def restructured(good: str, chance: random.Random) -> str:
    """*good* with a member of its header or of its claims changed, signed by nobody, or by a stranger."""
    header, claims, signature = good.split(".")
    objects = [json.loads(decoded(header)), json.loads(decoded(claims))]
    changed = chance.choice(objects)
    for _ in range(chance.randrange(1, 3)):
        name = chance.choice([*changed, *NAMES])
        match chance.randrange(4):
            case 0:
                changed.pop(name, None)
            case 1 if name in changed:
                changed[chance.choice(NAMES)] = changed[name]
            case _:
                changed[name] = chance.choice(VALUES)
    texts = [json.dumps(value) for value in objects]
    if chance.random() < 0.1:  # twice the same name
        text = chance.choice(texts)
        texts[texts.index(text)] = text[:-1] + f',"{chance.choice(NAMES)}":"none"}}'
    signed = ".".join(part(text.encode()) for text in texts)
    match chance.randrange(6):
        case 0:
            signature = ""
        case 1:
            signature = part(chance.randbytes(chance.choice([32, 64, 64, 256])))
        case 2:
            signature = part(sha256(signed.encode()).digest())
        case 3 if chance.random() < 0.3:
            signature = part(get_algorithm_by_name("ES256").sign(signed.encode(), STRANGER.private))
    return f"{signed}.{signature}"


def with_another_signature(good: str, chance: random.Random) -> str:
    signed, _, signature = good.rpartition(".")
    raw = bytearray(decoded(signature))
    match chance.randrange(4):
        case 0:
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        case 1:
            raw = raw[len(raw) // 2 :] + raw[: len(raw) // 2]
        case 2:
            del raw[chance.randrange(len(raw)) :]
        case _:
            raw.insert(chance.choice([0, len(raw)]), chance.randrange(256))
    return f"{signed}.{part(bytes(raw))}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_of_mutated_tokens_none_is_accepted(verifier: Verifier, number: int) -> None:
    seed = int(os.environ.get("SQLA_RLS_FUZZ_SEED", "20261123"))
    chance = random.Random(seed)
    shapes: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({}, {}),
        ({"x": {"y": [1, 2.5, None]}, "aud": ["app", "b"]}, {"kid": None, "typ": None}),
    )
    good = [token(*shape, key) for key in (ES256, RS256, EDDSA) for shape in shapes]
    for text in good:
        verifier.verify(text)

    ways = (mutated, mutated, restructured, restructured, with_another_signature)
    tried = 0
    while tried < number:
        chosen = chance.choice(good)
        if chance.random() < 0.1:
            text = recombined(chosen, chance.choice(good), chance)
        else:
            text = chance.choice(ways)(chosen, chance)
        if text in good:
            continue
        tried += 1
        try:
            verifier.verify(text)
        except InvalidToken:
            continue
        pytest.fail(f"accepted with seed {seed}: {text!r}")


# What a refusal tells


def told_by(error: BaseException | None) -> Iterator[str]:
    """All that a log might show of *error*, and of those that it came of."""
    if error is not None:
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        yield from traceback.format_exception(error)
        for origin in {error.__cause__, error.__context__}:
            yield from told_by(origin)


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value if isinstance(value, list) else [*value, *value.values()]:
            yield from texts_in(inner)


def secrets_of(forged: Any) -> set[str]:
    """The token, its parts, and every text of six characters that its claims hold."""
    text = forged.decode() if isinstance(forged, bytes | bytearray) else forged
    text = text if isinstance(text, str) else json.dumps(text)
    found = {text, *text.split(".")}
    for piece in text.split(".")[1:2]:
        with suppress(ValueError, RecursionError):
            found |= set(texts_in(json.loads(decoded(piece))))
    return {secret for secret in found if len(secret) >= 6} | {SECRET, "alice", "mallory", "evil.example"}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    for name in (None, "sqla_rls", "asyncio", "concurrent.futures", *logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def refusal(verifier: Verifier, forged: Any) -> BaseException:
    with pytest.raises((AuthenticationError, KeysUnavailable)) as refused:
        verifier.verify(forged)
    with pytest.raises(type(refused.value)):
        asyncio.run(verifier.verify_async(forged))
    return refused.value


def assert_nothing_is_told(error: BaseException, forged: Any, logged: str) -> None:
    told = "".join(told_by(error)) + logged
    for secret in secrets_of(forged):
        assert secret not in told


@pytest.mark.exhaustive
def test_a_refusal_tells_nothing_of_the_token(
    verifier: Verifier, everything_logged: pytest.LogCaptureFixture, subtests: pytest.Subtests
) -> None:
    for name, attack in ATTACKS.items():
        with subtests.test(name):
            everything_logged.clear()
            forged = attack()
            assert_nothing_is_told(refusal(verifier, forged), forged, everything_logged.text)


@pytest.mark.parametrize(
    "options",
    [
        {"role_claim": "note", "roles": ("reader",)},
        {"role_claim": ("note", "role"), "roles": ("reader",)},
        {"subject_claim": "external_id"},
        {"subject_claim": ("note", "id")},
        {"required_claims": {"note": ("another",)}},
        {"required_claims": {"sid": ()}},
        {"audience": "another"},
        {"algorithms": ("RS256",)},
        {"issuer": "https://another.example"},
        {"jwks": {"keys": [STRANGER.jwk()]}},
    ],
)
def test_neither_does_that_of_a_good_token_by_another_provider(
    everything_logged: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    good = token()
    assert_nothing_is_told(refusal(Verifier(pinned(**options)), good), good, everything_logged.text)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "answer", [{"status": 503}, {"body": b"no keys"}, {"body": b'{"keys":[]}'}, {"delay": 1.0}]
)
def test_neither_do_keys_that_can_not_be_had(
    everything_logged: pytest.LogCaptureFixture, answer: dict[str, Any]
) -> None:
    with Issuer(imitate=pinned()) as issuer:
        for name, value in answer.items():
            setattr(issuer, name, value)
        good = issuer.token("alice", claims={"note": SECRET})
        verifier = Verifier(issuer.provider, limits=FetchLimits(timeout=0.2))
        assert_nothing_is_told(refusal(verifier, good), good, everything_logged.text)


def test_nothing_of_a_token_is_in_a_repr(verifier: Verifier) -> None:
    good = token()
    seen = [repr(verifier._begin(good)), repr(verifier.verify(good)), repr(verifier), repr(vars(verifier))]
    for secret in secrets_of(good) - {ISSUER}:
        assert secret not in "".join(seen)
