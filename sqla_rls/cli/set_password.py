"""``sqla-rls set-password``: the password of a login role."""

from __future__ import annotations

import sys
from typing import Any

import click
import psycopg
from psycopg.sql import SQL, Identifier, Literal

from sqla_rls.cli.base import connected


@click.command("set-password")
@click.argument("role")
@click.argument("url", envvar="DATABASE_URL")
def command(role: str, url: str) -> None:
    """Set the password of ROLE, a login role.

    It asks for the password, or reads the first line of stdin.  The server, its log and its history of
    statements get a SCRAM verifier, never the password.  Connect as a role that may alter ROLE.

    \b
    $ sqla-rls set-password app "$DATABASE_URL"
    $ pass show app | sqla-rls set-password app "$DATABASE_URL"
    """
    if sys.stdin.isatty():
        password = click.prompt(f"New password of {role}", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.ClickException("the password is empty: no login would work with it. Give one on stdin")
    with connected(url) as connection:
        raw: Any = connection.connection.driver_connection
        verifier = raw.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        statement = SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier))
        try:
            raw.execute(statement)
        except psycopg.Error as error:
            # Without the statement, which has the verifier.
            reason = error.diag.message_primary or "the server refused it"
            raise click.ClickException(
                f"the password can't be set: {reason}. Check the name of the role, and your privileges"
            ) from None
        raw.commit()
    click.echo(f"{role} has a new password.", err=True)
