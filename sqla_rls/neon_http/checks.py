"""Checks the login role of an endpoint, since the SQL of a caller can act as it."""

from __future__ import annotations

from importlib import resources
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from sqla_rls.exc import UnsafeRole

_OTHER_ROLES: Final = text(
    (resources.files("sqla_rls.neon_http") / "sql" / "other_roles.sql").read_text(encoding="utf-8")
)


async def require_own_role(session: AsyncSession) -> None:
    """Check that SQL in a bound transaction gains nothing when it leaves its role.

    No statement can be kept from ``RESET ROLE`` and ``SET ROLE``: a function of it may call
    ``set_config('role', …)``.

    Raises:
        UnsafeRole: the login role can become another role, or has privileges of its own.

    Emits:
        One SELECT over pg_roles and pg_shdepend.
    """
    found = (await session.execute(_OTHER_ROLES)).one_or_none()
    if found is None:
        return
    raise UnsafeRole(
        f"SQL of callers can't run: login role {found.login!r} {found.what}, and their SQL can act as the "
        f"login role. Log in as a role that can become {found.role!r} alone: {found.hint}"
    )
