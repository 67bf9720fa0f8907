"""The URL of an app, for the connections of this package's own commands."""

from __future__ import annotations

from psycopg.pq import Conninfo
from sqlalchemy import URL


def with_psycopg(url: URL) -> URL:
    """Return *url* with psycopg as its driver, and without the parameters of another driver."""
    query = dict(url.query)
    if "ssl" in query:
        # asyncpg's name of libpq's sslmode.
        query.setdefault("sslmode", query.pop("ssl"))
    if url.drivername.partition("+")[2] not in ("", "psycopg", "psycopg_async"):
        known = {default.keyword.decode() for default in Conninfo.get_defaults()}
        query = {name: value for name, value in query.items() if name in known}
    return url.set(drivername="postgresql+psycopg", query=query)
