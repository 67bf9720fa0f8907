"""``sqla-rls dev``: a Postgres and an identity provider for development."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sqla_rls.provider import Provider

_DAY: Final = 86_400


@click.command("dev")
@click.option("--token", "subjects", multiple=True, metavar="SUBJECT", help="Print a token for SUBJECT, too.")
@click.option(
    "--cors-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of ORIGIN read SQL over HTTP, such as http://localhost:3000.",
)
def command(subjects: tuple[str, ...], origins: tuple[str, ...]) -> None:
    """Run an empty Postgres, an identity provider, and SQL over HTTP until interrupted.

    Prints lines for an .env file.  DATABASE_URL is the owner's, for Alembic.  DATABASE_AUTHENTICATED_URL is
    the login role's, for the app.  SUPERUSER_URL is for psql.  A server that this command starts needs no
    passwords.  A token is valid for one day.

    SQL_HTTP_URL is the URL of SQL over HTTP, for Neon's serverless driver.  SQL_HTTP_CONNECTION_STRING is
    its connection string.  They need the extra neon-http.
    """
    # Imported here, since commands that print SQL need no server.
    from sqla_rls.testing.development import development_database
    from sqla_rls.testing.issuer import Issuer
    from sqla_rls.testing.postgres import find_server

    # Each signal raises KeyboardInterrupt, also while a server starts.  Windows has no SIGHUP.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    with ExitStack() as stack:
        server = stack.enter_context(find_server())
        database = stack.enter_context(development_database(server))
        issuer = stack.enter_context(Issuer())
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
        http = stack.enter_context(_sql_over_http(database.app, issuer.provider, origins))
        if http is None:
            click.echo(
                "SQL over HTTP isn't served: a package of the extra neon-http is missing. "
                "Run: pip install 'sqla-rls[neon-http]'",
                err=True,
            )
        else:
            click.echo(f"SQL_HTTP_URL={http}")
            click.echo(f"SQL_HTTP_CONNECTION_STRING=postgresql://{issuer.provider.role}@localhost/app")
        for subject in subjects:
            click.echo(f"TOKEN_{subject}={issuer.token(subject, expires_in=_DAY)}")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


@contextmanager
def _sql_over_http(app: URL, provider: Provider, origins: Sequence[str]) -> Iterator[str | None]:
    """Serve SQL over HTTP; yield its URL, or None if a package is missing."""
    try:
        import uvicorn
        from sqlalchemy.ext.asyncio import create_async_engine

        from sqla_rls.neon_http import sql_endpoint
    except ImportError:
        yield None
        return
    engine = create_async_engine(app.set(drivername="postgresql+psycopg"))
    # A new database verifies no signatures.  After a migration it may, and then callers are signed.
    endpoint = sql_endpoint(engine, provider, signing="auto", cors_origins=origins)
    server = uvicorn.Server(uvicorn.Config(endpoint, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # In a thread, uvicorn leaves the signals alone.
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/sql"
        finally:
            server.should_exit = True
            thread.join()
