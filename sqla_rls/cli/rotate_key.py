"""``sqla-rls rotate-key``: a new signing key."""

from __future__ import annotations

import click
from sqlalchemy import Interval, cast, select
from sqlalchemy.exc import DataError

from sqla_rls.cli.base import connected
from sqla_rls.exc import RowSecurityError


@click.command("rotate-key")
@click.argument("url", envvar="DATABASE_URL")
@click.option(
    "--grace", default="1 hour", show_default=True, help="Time for which the previous key stays valid."
)
def command(url: str, grace: str) -> None:
    """Make a new signing key and print it, for SQLA_RLS_SIGNING_KEY of your app.

    The database at URL must have signed functions.  Connect as the role that made them.  GRACE is an
    interval of Postgres.

    \b
    $ export SQLA_RLS_SIGNING_KEY=$(sqla-rls rotate-key "$DATABASE_URL")
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.rotation import rotate_signing_key

    with connected(url) as connection:
        try:
            good_for = connection.execute(select(cast(grace, Interval))).scalar_one()
            key = rotate_signing_key(connection, grace=good_for)
        except DataError as error:
            reason = str(error.orig).partition("\n")[0]
            raise click.ClickException(
                f"the key can't be rotated: {reason}. Give an interval, such as '1 hour'"
            ) from error
        except (RowSecurityError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        connection.commit()
    click.echo(key)
