"""What the application signs for the database with the database's own key."""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import jwt
import pytest

import sqla_rls
from sqla_rls.exc import SigningKeyRejected
from sqla_rls.session.options import SessionOptions
from sqla_rls.tokens.signing import KEPT, LIFETIME, RENEWAL, HS256Signer
from tests.support.suite import table

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


@table("around", ["{}\n", "{}\r\n", " {}\t", "{}="])
def test_a_key_may_have_whitespace_and_padding_around_it(around: str) -> None:
    keys = [KEY, around.format(KEY)]
    signer = HS256Signer(lambda: keys.pop(0), None)
    tokens = [claims_of(token(signer)) for _ in range(2)]
    assert tokens[0]["sub"] == tokens[1]["sub"] == "alice"


@table(
    "key",
    [
        *("", "\n", KEY[:-1], f"{KEY}AAAA", f"{KEY}$$", 7),
        *(f"{KEY[:20]}\n{KEY[20:]}", f"{KEY}\N{NO-BREAK SPACE}"),
    ],
    ids=range(8),
)
def test_another_text_is_no_key(key: Any) -> None:
    with pytest.raises(SigningKeyRejected, match="isn't 32 bytes in base64url") as refused:
        token(HS256Signer(lambda: key, None))
    assert KEY[:20] not in str(refused.value)


def _classes() -> Iterator[type]:
    """The dataclasses of the package."""
    for module in pkgutil.walk_packages(sqla_rls.__path__, "sqla_rls."):
        if not module.name.endswith("__main__"):
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and found.__module__ == module.name and is_dataclass(found):
                    yield found


def test_no_representation_shows_a_key() -> None:
    keys = [
        (found.__name__, field.repr)
        for found in _classes()
        for field in fields(found)
        if "SigningKey" in str(field.type)
    ]
    assert {name for name, _ in keys} >= {"SessionOptions", "DeniedStatement", "Rows"}
    assert [name for name, is_shown in keys if is_shown] == []
    assert KEY not in repr(SessionOptions(signing_key=KEY))


def test_no_more_tokens_are_kept_than_that() -> None:
    signer = HS256Signer(KEY, None)
    for number in range(3 * KEPT):
        token(signer, f"person {number}")
        assert len(signer._kept) <= KEPT
