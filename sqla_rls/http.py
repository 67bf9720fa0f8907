"""HTTP for any framework: the token of a request, and the answer to an error."""

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
    """Return the unverified token of the header ``Authorization: Bearer <token>`` (RFC 6750, section 2.1).

    Args:
        authorization: the values of the header, or its only value.  Pass all values, since a request may
            repeat the header.

    Raises:
        CallerRequired: the request has no such header, or one of another scheme.
        InvalidToken: the request has several.
    """
    values = [authorization] if isinstance(authorization, str) else list(authorization or ())
    if len(values) > 1:
        # A proxy in front of the application may have checked another one.
        raise InvalidToken("the token can't be read: the request has several Authorization headers. Send one")
    scheme, _, token = "".join(values).partition(" ")
    if scheme.lower() != "bearer":
        raise CallerRequired("the request has no token. Send the header Authorization: Bearer <token>")
    return token.strip(" ")


def status_and_headers(error: Exception) -> tuple[int, dict[str, str]]:
    """Return the HTTP status and headers of the answer to *error*.

    ``detail(error)`` is the text for the body.  An AuthenticationError gets 401 with WWW-Authenticate
    (RFC 6750, section 3).  KeysUnavailable gets 503 with Retry-After, in seconds.  If ``is_denied(error)``,
    the status is 403, and Postgres's message is logged at WARNING: a missing GRANT is a fault of the server.

    Raises:
        Exception: *error* itself, if it is another one.  Your framework then answers 500.
    """
    if isinstance(error, KeysUnavailable):
        # Earlier than that, the keys aren't fetched again.
        return error.http_status, {"Retry-After": str(math.ceil(FetchLimits().cooldown))}
    if isinstance(error, AuthenticationError):
        challenge = 'Bearer realm="api"'
        if isinstance(error, InvalidToken):
            # A request without a token gets no error code (section 3.1).
            challenge += ', error="invalid_token"'
        return error.http_status, {"WWW-Authenticate": challenge}
    if (denial := _denial(error)) is None:
        raise error
    # One line of the driver's message: SQLAlchemy's message quotes the statement and its parameters.
    _log.warning("the database denied a request (SQLSTATE 42501): %s", str(denial).partition("\n")[0])
    return 403, {}


def detail(error: Exception) -> str:
    """Return a text about *error* for the body of the answer, without a token, claim, SQL or data.

    Raises:
        Exception: *error* itself, if ``status_and_headers()`` raises it, too.
    """
    if isinstance(error, AuthenticationError | KeysUnavailable):
        return str(error)
    if not is_denied(error):
        raise error
    return "the request was denied: its caller may not read or write these rows"


def is_denied(error: BaseException) -> bool:
    """Return whether *error*, or one that caused it, has SQLSTATE 42501: Postgres denied access.

    Postgres raises this for a row that a policy's WITH CHECK refuses, and for a missing privilege.  A
    BindingError isn't a denial, since the caller isn't at fault.
    """
    return _denial(error) is not None


def _denial(error: BaseException | None) -> BaseException | None:
    """Return the driver's error with SQLSTATE 42501: *error* itself, or one that caused it."""
    while error is not None and (isinstance(error, AccessDenied) or not isinstance(error, RowSecurityError)):
        original = error.orig if isinstance(error, DBAPIError) else error
        # psycopg2 has pgcode.
        if (getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)) == "42501":
            return original
        error = error.__cause__
    return None
