"""Checks of the arguments of providers."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.provider_checks import check_uri

Names: TypeAlias = str | tuple[str, ...]

_SEGMENT: Final = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


def checked_id(what: str, value: object) -> str:
    """Return *value*, after a check that it is one segment of a URL."""
    if not isinstance(value, str) or not re.fullmatch(_SEGMENT, value):
        raise DeclarationError(
            f"the provider can't be made: {what} isn't an id. "
            "Give letters, digits, '-', '_' and single dots only"
        )
    return value


def checked_url(what: str, value: object, *, path: bool = False) -> str:
    """Return the URL of *value*, a host or a URL, without a slash at its end."""
    url = value.removesuffix("/") if isinstance(value, str) else ""
    if "://" not in url:
        url = f"https://{url}"
    if not re.fullmatch(rf"[a-z]+://[A-Za-z0-9.:\[\]-]+{f'(/{_SEGMENT})*' if path else ''}", url):
        raise DeclarationError(
            f"the provider can't be made: {what} isn't a URL. "
            f"Give a host, or https:// and a host{' and a path' if path else ''}"
        )
    try:
        check_uri(what, url)
    except ValueError as problem:
        raise DeclarationError(f"the provider can't be made: {problem}") from None
    return url


def required(what: str, names: Names | None) -> Names:
    """Return *names*, which must not be empty."""
    if not names:
        raise DeclarationError(
            f"the provider can't be made: {what} is required, since the same keys sign for other "
            f"applications, too. Give {what}="
        )
    return names


def one_of(claim: str, names: Names | None) -> dict[str, tuple[str | None, ...]]:
    """Return the ``required_claims`` for *claim*; empty if *names* is None."""
    if names is None:
        return {}
    if not names:
        raise DeclarationError(
            f"the provider can't be made: no value of claim {claim!r} is accepted. "
            "Give values, or None to skip the check"
        )
    return {claim: (names,) if isinstance(names, str) else names}
