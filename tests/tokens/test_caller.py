"""What a caller is: who is one person, and what can't be one."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.caller import Caller
from tests.support.forge import SECRET

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
        {"expires_at": float("nan")},
        {"expires_at": float("inf")},
        {"expires_at": True},
        {"expires_at": "9"},
        {"expires_at": Decimal(9)},
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
