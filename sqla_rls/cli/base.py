"""Shared by the commands: an engine of a URL, an error without an answer."""

from __future__ import annotations

import click
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.pool import NullPool


class Unanswered(click.ClickException):
    """A question without an answer: exit code 2, since 1 can be an answer."""

    exit_code = 2


def engine(url: str, driver: str | None = None) -> Engine:
    """*url* with *driver*, or with psycopg where it names no driver.  The engine keeps no connection."""
    found = make_url(url)
    if driver is not None:
        found = found.set(drivername=driver)
    elif found.drivername in ("postgres", "postgresql"):
        found = found.set(drivername="postgresql+psycopg")
    return create_engine(found, poolclass=NullPool)
