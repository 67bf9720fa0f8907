"""Shared by the commands: an engine of a URL, an error without an answer."""

from __future__ import annotations

import click
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool


class Unanswered(click.ClickException):
    """A question without an answer: exit code 2, since 1 can be an answer."""

    exit_code = 2


def engine(url: str, driver: str | None = None) -> Engine:
    """*url* with *driver*, or with psycopg where it names no driver.  The engine keeps no connection."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password, as a host with an @ does.
        raise click.ClickException(
            "the database can't be reached: its URL is malformed. Give postgresql://user@host/database"
        ) from None
    if "@" in (found.host or ""):
        raise click.ClickException(
            "the database can't be reached: its URL has several @. Write %40 for an @ in the password"
        )
    if driver is not None:
        found = found.set(drivername=driver)
    elif found.drivername in ("postgres", "postgresql"):
        found = found.set(drivername="postgresql+psycopg")
    return create_engine(found, poolclass=NullPool)
