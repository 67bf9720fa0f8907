"""What an HTTP client sends, and the two challenges that it gets."""

from __future__ import annotations

from typing import Any, Final

from sqla_rls.testing.issuer import Issuer

INVALID: Final = 'Bearer realm="api", error="invalid_token"'
MISSING: Final = 'Bearer realm="api"'


def sent_by(issuer: Issuer, subject: str, **kw: Any) -> dict[str, str]:
    """The header of a request with a token for *subject*."""
    return {"Authorization": f"Bearer {issuer.token(subject, **kw)}"}
