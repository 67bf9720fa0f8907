"""What the application signs for the database with the database's own key."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest

from sqla_rls.tokens.signing import KEPT, LIFETIME, RENEWAL, HS256Signer

KEY = "A" * 43


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, b"\0" * 32, ["HS256"])


def token(signer: HS256Signer, subject: str = "alice", expires_at: float | None = None) -> str:
    return signer.token({"sub": subject}, f'{{"sub":"{subject}"}}', expires_at)


def test_people_who_take_turns_keep_their_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, later = HS256Signer(KEY, 7), time.time() + 2
    tokens = {name: token(signer, name) for name in ("alice", "bob")}
    # In the same second another would be the same, to the letter.
    monkeypatch.setattr(time, "time", lambda: later)
    assert {name: token(signer, name) for name in ("alice", "bob")} == tokens
    assert claims_of(tokens["bob"]).items() >= {"sub": "bob", "pid": 7}.items()


def test_a_token_is_made_anew_long_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, began = HS256Signer(KEY, None), time.time()
    ends = []
    for later in (0, RENEWAL - 1, RENEWAL + 1):
        monkeypatch.setattr(time, "time", lambda later=later: began + later)
        ends.append(claims_of(token(signer))["exp"])
    assert ends == [int(began + LIFETIME), int(began + LIFETIME), int(began + RENEWAL + 1 + LIFETIME)]


def test_a_token_ends_with_its_caller() -> None:
    signer, now = HS256Signer(KEY, None), time.time()
    assert claims_of(token(signer))["exp"] >= int(now + LIFETIME)
    assert claims_of(token(signer, expires_at=now + 10))["exp"] == int(now + 10)


def test_another_key_makes_other_tokens() -> None:
    keys = [KEY, KEY, "B" * 42 + "A"]
    signer = HS256Signer(lambda: keys.pop(0), None)
    first, again, other = (token(signer) for _ in range(3))
    assert first == again != other


def test_no_more_tokens_are_kept_than_that() -> None:
    signer = HS256Signer(KEY, None)
    for number in range(3 * KEPT):
        token(signer, f"person {number}")
        assert len(signer._kept) <= KEPT
