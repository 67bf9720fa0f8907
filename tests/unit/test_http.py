"""The token of a request, and what an error is answered with."""

from __future__ import annotations

import pytest

from sqla_rls.exc import ExpiredToken, IdentityRequired, InvalidToken, KeysUnavailable
from sqla_rls.http import bearer_token, status_and_headers


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc ", ["Bearer abc"]])
def test_the_token_follows_the_scheme(header: str | list[str]) -> None:
    assert bearer_token(header) == "abc"


def test_what_is_no_token_is_left_to_the_verifier_to_refuse() -> None:
    assert bearer_token("Bearer") == bearer_token("Bearer ") == ""
    assert bearer_token("Bearer a, Bearer b") == "a, Bearer b"


@pytest.mark.parametrize("header", [None, [], (), "", [""], "abc", "Bearer\tabc", "Basic abc", " Bearer a"])
def test_without_a_bearer_token_nobody_is_calling(header: str | list[str] | None) -> None:
    with pytest.raises(IdentityRequired, match="Authorization: Bearer"):
        bearer_token(header)


@pytest.mark.parametrize("headers", [["Bearer a", "Bearer a"], ["", "Bearer a"], ("Bearer a", "Basic b")])
def test_of_several_headers_none_is_taken(headers: list[str]) -> None:
    with pytest.raises(InvalidToken, match="several"):
        bearer_token(headers)


def test_errors_have_their_status() -> None:
    assert status_and_headers(IdentityRequired()) == (401, {"WWW-Authenticate": 'Bearer realm="api"'})
    for error in (InvalidToken(), ExpiredToken()):
        challenge = 'Bearer realm="api", error="invalid_token"'
        assert status_and_headers(error) == (401, {"WWW-Authenticate": challenge})
    assert status_and_headers(KeysUnavailable()) == (503, {"Retry-After": "10"})
