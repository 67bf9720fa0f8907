"""The URL of an app, and the engine for the connections of this package's own commands."""

from __future__ import annotations

from typing import Any

from psycopg.pq import Conninfo
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool


def engine_of(url: URL, **options: Any) -> Engine:
    """Return an engine of *url*, a URL with psycopg, that keeps no connection.

    The commands run as an owner or a superuser.  SQLAlchemy's search for the type hstore would call an
    operator that a caller has created in schema public.
    """
    return create_engine(url, poolclass=NullPool, use_native_hstore=False, **options)


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
