"""HTTP: the token of a request, and what an error is answered with, for any framework."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from sqla_rls.exc import (
    AccessDenied,
    AuthenticationError,
    CallerRequired,
    InvalidToken,
    KeysUnavailable,
    RowSecurityError,
)
from sqla_rls.tokens.jwks import FetchLimits

_log = logging.getLogger(__name__)


def bearer_token(authorization: Sequence[str] | str | None) -> str:
    """The token in header ``Authorization: Bearer <token>`` (RFC 6750, section 2.1), not verified yet.

    *authorization* is the header's value; better, the list of them, since a request may repeat the header.
    Raises CallerRequired where there is none, or one of another scheme, and InvalidToken for several.
    """
    values = [authorization] if isinstance(authorization, str) else list(authorization or ())
    if len(values) > 1:
        # Whatever stands before this application may have looked at another one.
        raise InvalidToken("the request has several Authorization headers; send one")
    scheme, _, token = "".join(values).partition(" ")
    if scheme.lower() != "bearer":
        raise CallerRequired("send the header Authorization: Bearer <token>")
    return token.strip(" ")


def status_and_headers(error: Exception) -> tuple[int, dict[str, str]]:
    """The answer to *error*: 401 with WWW-Authenticate (RFC 6750, section 3), 503 with Retry-After (seconds).

    403 if ``is_denied(error)``; then Postgres's message is logged at WARNING, since a missing GRANT is the
    server's fault.  ``detail(error)`` is the text for the body.  Raises *error* itself if it is another: that
    is a 500.
    """
    if isinstance(error, KeysUnavailable):
        # Before, they aren't asked for again.
        return error.http_status, {"Retry-After": str(math.ceil(FetchLimits().cooldown))}
    if isinstance(error, AuthenticationError):
        challenge = 'Bearer realm="api"'
        if isinstance(error, InvalidToken):
            # To whoever sent none, no error code (section 3.1).
            challenge += ', error="invalid_token"'
        return error.http_status, {"WWW-Authenticate": challenge}
    if (denial := _denial(error)) is None:
        raise error
    # One line, and not SQLAlchemy's message: that quotes the statement and its parameters.
    _log.warning("the database denied a request (SQLSTATE 42501): %s", str(denial).partition("\n")[0])
    return 403, {}


def detail(error: Exception) -> str:
    """A text about *error* for the body of the answer: it holds no token, claim, SQL or data.

    Raises *error* itself if it is none that ``status_and_headers()`` answers.
    """
    if isinstance(error, AuthenticationError | KeysUnavailable):
        return str(error)
    if not is_denied(error):
        raise error
    return "the request was denied: its caller may not read or write this"


def is_denied(error: BaseException) -> bool:
    """Whether Postgres denied it to the caller: *error*, or one that caused it, has SQLSTATE 42501.

    So have rows that a policy's WITH CHECK refuses, and privileges that are missing.  It isn't the caller's
    fault if the role can't be bound: that is a BindingError.
    """
    return _denial(error) is not None


def _denial(error: BaseException | None) -> BaseException | None:
    """The driver's error with SQLSTATE 42501 that *error* is, or was raised from."""
    while error is not None and (isinstance(error, AccessDenied) or not isinstance(error, RowSecurityError)):
        original = error.orig if isinstance(error, DBAPIError) else error
        # pgcode: psycopg2.
        if (getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)) == "42501":
            return original
        error = error.__cause__
    return None
