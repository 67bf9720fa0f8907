"""What a server has reported to a connection of the application's own class."""

from __future__ import annotations

from typing import Any

from sqla_rls.driver.base import MARK


def reported_mark(driver_connection: Any) -> str | None:
    """Return the value of MARK that the server has reported last; None if the driver doesn't expose it."""
    if (status := getattr(getattr(driver_connection, "info", None), "parameter_status", None)) is not None:
        value: str | None = status(MARK)  # psycopg, psycopg2
        return value
    if (settings := getattr(driver_connection, "get_settings", None)) is not None:
        return getattr(settings(), MARK, None)  # asyncpg
    return None
