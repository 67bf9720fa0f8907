"""The token of a request, and what an error is answered with."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import BindingError, CallerRequired, ExpiredToken, InvalidToken, KeysUnavailable
from sqla_rls.http import bearer_token, detail, is_denied, status_and_headers


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc ", ["Bearer abc"]])
def test_the_token_follows_the_scheme(header: str | list[str]) -> None:
    assert bearer_token(header) == "abc"


def test_what_is_no_token_is_left_to_the_verifier_to_refuse() -> None:
    assert bearer_token("Bearer") == bearer_token("Bearer ") == ""
    assert bearer_token("Bearer a, Bearer b") == "a, Bearer b"


@pytest.mark.parametrize("header", [None, [], (), "", [""], "abc", "Bearer\tabc", "Basic abc", " Bearer a"])
def test_without_a_bearer_token_nobody_is_calling(header: str | list[str] | None) -> None:
    with pytest.raises(CallerRequired, match="Authorization: Bearer"):
        bearer_token(header)


@pytest.mark.parametrize("headers", [["Bearer a", "Bearer a"], ["", "Bearer a"], ("Bearer a", "Basic b")])
def test_of_several_headers_none_is_taken(headers: list[str]) -> None:
    with pytest.raises(InvalidToken, match="several"):
        bearer_token(headers)


def test_errors_have_their_status() -> None:
    assert status_and_headers(CallerRequired()) == (401, {"WWW-Authenticate": 'Bearer realm="api"'})
    for error in (InvalidToken(), ExpiredToken()):
        challenge = 'Bearer realm="api", error="invalid_token"'
        assert status_and_headers(error) == (401, {"WWW-Authenticate": challenge})
    assert status_and_headers(KeysUnavailable()) == (503, {"Retry-After": "10"})


class _Denied(Exception):
    """As asyncpg has it, by way of SQLAlchemy, with what a function of the application's own says."""

    sqlstate = "42501"


def _as_sqlalchemy_raises(cause: Exception) -> DBAPIError:
    return DBAPIError("INSERT INTO todos (task) VALUES (:task)", {"task": "secret"}, cause)


def _raised_from(cause: Exception) -> Exception:
    error = RuntimeError("a repository's own")
    error.__cause__ = cause
    return error


DENIED = _Denied("permission denied for table todos\nDETAIL:  secret")


@pytest.mark.parametrize(
    "error", [DENIED, _as_sqlalchemy_raises(DENIED), _raised_from(_as_sqlalchemy_raises(DENIED))]
)
def test_what_postgres_denies_is_403_and_in_the_log(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_denied(error)
    assert status_and_headers(error) == (403, {})
    assert "todos" not in detail(error)
    assert "permission denied for table todos" in caplog.text
    assert "secret" not in caplog.text + detail(error)


def _binding_failed() -> Exception:
    error = BindingError("role 'authenticated' can't be bound")
    error.__cause__ = DENIED
    return error


@pytest.mark.parametrize(
    "error", [ValueError(), DBAPIError("SELECT 1", {}, ValueError()), _binding_failed(), BindingError()]
)
def test_other_errors_are_the_servers(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    assert not is_denied(error)
    for answer in (status_and_headers, detail):
        with pytest.raises(type(error)) as raised:
            answer(error)
        assert raised.value is error
    assert caplog.text == ""


def test_the_messages_of_our_own_errors_may_be_shown() -> None:
    assert detail(CallerRequired("send a token")) == "send a token"
