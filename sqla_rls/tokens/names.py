"""The names of roles and claims that callers and providers share.

This module imports no cryptography, since an app may make its callers itself.
"""

from __future__ import annotations

from typing import Final

#: The claim that holds the ``sub`` of the provider, where ``subject_claim`` replaces it.
PROVIDER_SUBJECT: Final = "provider_sub"


def check_role(role: object) -> None:
    """Raise ValueError unless *role* can be the name of a role."""
    if not is_text(role) or not 0 < len(str(role).encode()) <= 63 or role in ("none", "public"):
        # SET ROLE none returns to the login role.  Postgres cuts a longer name, perhaps to another role's.
        raise ValueError(
            "the role isn't a name of 1 to 63 bytes, or is 'none' or 'public'. Give the name of a role"
        )


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine."""
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
