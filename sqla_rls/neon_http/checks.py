"""Checks how far the SQL of a caller reaches, when an endpoint binds its role for the first time."""

from __future__ import annotations

import logging
from importlib import resources
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from sqla_rls.exc import UnsafeRole

_REACH: Final = text(
    (resources.files("sqla_rls.neon_http") / "sql" / "reach_of_callers.sql").read_text(encoding="utf-8")
)

_log = logging.getLogger(__name__)


async def require_separate_callers(session: AsyncSession) -> None:
    """Check that SQL in a bound transaction gains nothing when it leaves its role.

    No statement can be kept from ``RESET ROLE`` and ``SET ROLE``: a function of it may call
    ``set_config('role', …)``.  The rights that Postgres gives to PUBLIC are logged at WARNING, with the
    statements of a superuser that end them.

    Raises:
        UnsafeRole: the login role can become another role, or has privileges of its own.  Or one caller can
            create objects that other callers use, truncate their tables, or drop a restrictive policy.

    Emits:
        One SELECT over the roles and privileges of the caller.
    """
    warnings: list[str] = []
    for found in await session.execute(_REACH):
        if found.is_fatal:
            raise UnsafeRole(
                f"the SQL of callers can't run: {found.what}, and all their SQL can use that. "
                f"Run as a superuser: {found.hint}; or set check_login_role=False"
            )
        warnings.append(f"{found.hint};")
    if warnings:
        _log.warning(
            "SQL of one caller can end or read the statements of another, or share large objects with it. "
            "Run as a superuser:\n%s",
            "\n".join(warnings),
        )
