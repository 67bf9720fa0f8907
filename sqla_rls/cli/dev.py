"""``sqla-rls dev``: a Postgres and an identity provider for development."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress

import click


@click.command("dev")
@click.option("--token", "subjects", multiple=True, metavar="SUBJECT", help="Print a token for SUBJECT, too.")
def command(subjects: tuple[str, ...]) -> None:
    """Run an empty Postgres and an identity provider until interrupted.

    Prints lines for an .env file.  DATABASE_URL is the owner's, for Alembic.  DATABASE_AUTHENTICATED_URL is
    the login role's, for the app.  SUPERUSER_URL is for psql.  A server that this command starts needs no
    passwords.
    """
    # Imported here, since commands that print SQL need no server.
    from sqla_rls.testing.development import development_database
    from sqla_rls.testing.issuer import Issuer
    from sqla_rls.testing.postgres import find_server

    # Either signal raises KeyboardInterrupt, also while a server starts.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with find_server() as server, development_database(server) as database, Issuer() as issuer:
        # psql refuses a URL with a driver.
        superuser = database.superuser.set(drivername="postgresql")
        for variable, url in (
            ("DATABASE_URL", database.owner),
            ("DATABASE_AUTHENTICATED_URL", database.app),
            ("SUPERUSER_URL", superuser),
        ):
            click.echo(f"{variable}={url.render_as_string(hide_password=False)}")
        click.echo(f"STACK_BASE_URL={issuer.base_url}")
        click.echo(f"STACK_PROJECT_ID={issuer.project_id}")
        for subject in subjects:
            click.echo(f"TOKEN_{subject}={issuer.token(subject)}")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
