"""Shared by the commands: an engine of a URL, an error without an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

_FORM = "Give postgresql://user@host/database"


def shown(words: str) -> str:
    """Return *words* without control characters: names, values and errors of the database may have them."""
    return "".join(one if one.isprintable() or one == "\n" else " " for one in words)


class Unanswered(click.ClickException):
    """A question without an answer: exit code 2, since 1 can be an answer."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(shown(message))


def engine(url: str) -> Engine:
    """Return an engine for *url* with psycopg, which an app's asynchronous driver isn't.

    The engine keeps no connection.
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.sides.url import engine_of, with_psycopg

    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password, as a host with an @ does.
        raise click.ClickException(f"the database can't be reached: its URL is malformed. {_FORM}") from None
    if found.get_backend_name() not in ("postgres", "postgresql"):
        raise click.ClickException(
            f"the database can't be reached: its URL is of {found.drivername}. {_FORM}"
        )
    if "@" in (found.host or ""):
        raise click.ClickException(
            "the database can't be reached: its URL has several @. Write %40 for an @ in the password"
        )
    return engine_of(with_psycopg(found))


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect to *url*, and end the command with the server's reason if that fails."""
    try:
        connection = engine(url).connect()
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise click.ClickException(shown(f"the database can't be reached: {reason}. Check its URL")) from None
    with connection:
        yield connection
