"""HTTP: the token of a request, and what an error is answered with, for any framework."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sqla_rls.exc import AuthenticationError, IdentityRequired, InvalidToken, KeysUnavailable
from sqla_rls.jwks import FetchLimits


def bearer_token(authorization: Sequence[str] | str | None) -> str:
    """The token in header ``Authorization: Bearer <token>`` (RFC 6750, section 2.1), not verified yet.

    *authorization* is the header's value; better, the list of them, since a request may repeat the header.
    Raises IdentityRequired where there is none, or one of another scheme, and InvalidToken for several.
    """
    values = [authorization] if isinstance(authorization, str) else list(authorization or ())
    if len(values) > 1:
        # Whatever stands before this application may have looked at another one.
        raise InvalidToken("the request has several Authorization headers; send one")
    scheme, _, token = "".join(values).partition(" ")
    if scheme.lower() != "bearer":
        raise IdentityRequired("send the header Authorization: Bearer <token>")
    return token.strip(" ")


def status_and_headers(error: AuthenticationError | KeysUnavailable) -> tuple[int, dict[str, str]]:
    """The answer to *error*: 401 with WWW-Authenticate (RFC 6750, section 3), 503 with Retry-After (seconds).

    Its message may go into the body: it holds no token and no claim.
    """
    if isinstance(error, KeysUnavailable):
        # Before, they aren't asked for again.
        return error.http_status, {"Retry-After": str(math.ceil(FetchLimits().cooldown))}
    challenge = 'Bearer realm="api"'
    if isinstance(error, InvalidToken):
        # To whoever sent none, no error code (section 3.1).
        challenge += ', error="invalid_token"'
    return error.http_status, {"WWW-Authenticate": challenge}
