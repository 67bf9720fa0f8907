"""The command ``sqla-rls``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import resources
from typing import Any

import click
import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import Engine, Interval, cast, create_engine, make_url, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.pool import NullPool

from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropAuthFunctions
from sqla_rls.ddl.roles import DropRole
from sqla_rls.exc import RowSecurityError
from sqla_rls.snapshot import KEYHOLDER


@click.group()
@click.version_option(package_name="sqla-rls")
def main() -> None:
    """Postgres row-level security for SQLAlchemy."""


@main.command()
@click.option("--signed", is_flag=True, help="Functions that verify the caller.")
@click.option("--drop", is_flag=True, help="Print the SQL that drops the functions.")
def auth_functions(signed: bool, drop: bool) -> None:
    """Print the SQL of op.create_auth_functions(), for a role that must run it by hand.

    \b
    $ sqla-rls auth-functions | psql "$SUPERUSER_URL"
    """
    statements = [DropAuthFunctions(), DropRole(KEYHOLDER)] if drop else [CreateAuthFunctions(signed=signed)]
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    for statement in statements:
        click.echo(f"{str(statement.compile(dialect=dialect)).strip()};")


@main.command()
@click.option("--print", "is_printed", is_flag=True, required=True, help="Required: the command only prints.")
def harden(is_printed: bool) -> None:
    """Print SQL that hardens one database, for statements that only a superuser can run.

    Its comments explain each statement.  Read it before you run it.

    \b
    $ sqla-rls harden --print > harden.sql
    $ psql --single-transaction "$SUPERUSER_URL" < harden.sql
    """
    click.echo((resources.files("sqla_rls.ddl") / "sql" / "harden.sql").read_text(encoding="utf-8"), nl=False)


@main.command()
@click.argument("url", envvar="DATABASE_URL")
@click.option(
    "--grace", default="1 hour", show_default=True, help="Time for which the previous key stays valid."
)
def rotate_key(url: str, grace: str) -> None:
    """Make a new signing key and print it, for SQLA_RLS_SIGNING_KEY of your app.

    The database at URL must have signed functions.  Connect as the role that made them.  GRACE is an
    interval of Postgres.

    \b
    $ export SQLA_RLS_SIGNING_KEY=$(sqla-rls rotate-key "$DATABASE_URL")
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.rotation import rotate_signing_key

    with _engine(url).connect() as connection:
        try:
            good_for = connection.execute(select(cast(grace, Interval))).scalar_one()
            key = rotate_signing_key(connection, grace=good_for)
        except (DataError, RowSecurityError, ValueError) as error:
            raise click.ClickException(str(getattr(error, "orig", error))) from error
        connection.commit()
    click.echo(key)


@main.command()
@click.argument("role")
@click.argument("url", envvar="DATABASE_URL")
def set_password(role: str, url: str) -> None:
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
    with _engine(url, "postgresql+psycopg").connect() as connection:
        raw: Any = connection.connection.driver_connection
        verifier = raw.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        statement = SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(role), Literal(verifier))
        try:
            raw.execute(statement)
        except psycopg.Error as error:
            # Without the statement, which has the verifier.
            raise click.ClickException(f"{error.diag.message_primary or 'the server refused it'}") from None
        raw.commit()
    click.echo(f"{role} has a new password.", err=True)


@main.command("import")
@click.argument("url", envvar="DATABASE_URL")
@click.option("--schema", "schemas", multiple=True, help="A schema to read; without it, the default schema.")
def import_(url: str, schemas: tuple[str, ...]) -> None:
    """Print Python declarations of the row security in the database at URL.

    Connect as the role that runs the migrations: the output has the default privileges of that role.

    \b
    $ sqla-rls import "$DATABASE_URL" > row_security.py
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.introspect.declarations import declarations

    with _engine(url).connect() as connection:
        click.echo(declarations(connection, schemas), nl=False)


@main.command()
@click.argument("url", envvar="DATABASE_URL")
@click.argument("table")
@click.argument("key", required=False)
@click.option("--as", "subject", metavar="SUBJECT", help="The subject of the caller; none without it.")
@click.option("--role", help="The role of the caller, if not authenticated, or anonymous without SUBJECT.")
@click.option("--claims", metavar="JSON", help="More claims of the caller, as a JSON object.")
@click.option(
    "--command",
    type=click.Choice(["SELECT", "INSERT", "UPDATE", "DELETE"], case_sensitive=False),
    default="SELECT",
    show_default=True,
)
@click.option("--row", metavar="JSON", help="The new values by their columns, for INSERT and UPDATE.")
@click.option("--no-returning", is_flag=True, help="INSERT doesn't read its row back, as the ORM does.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def why(
    url: str,
    table: str,
    key: str | None,
    subject: str | None,
    role: str | None,
    claims: str | None,
    command: str,
    row: str | None,
    no_returning: bool,
    format_: str,
) -> None:
    """Explain why a caller may, or may not, read or write a row.

    Connect as the owner of TABLE: the answer tells of rows that the caller can't see.  It writes nothing.
    KEY is the value of the primary key, or JSON: an array of values, or an object of columns.

    \b
    $ sqla-rls why "$DATABASE_URL" todos 42 --as alice
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze import explain_access
    from sqla_rls.tokens.caller import Caller

    try:
        caller = Caller(
            role=role or ("anonymous" if subject is None else "authenticated"),
            subject=subject,
            claims=_object("--claims", claims),
        )
        with _engine(url).connect() as connection:
            explained = explain_access(
                connection,
                caller,
                table,
                command.upper(),  # type: ignore[arg-type] # click has checked it
                key=_key(key),
                row=_object("--row", row),
                returning=not no_returning,
                signing_key=os.environ.get("SQLA_RLS_SIGNING_KEY"),
            )
    except (DBAPIError, RowSecurityError) as error:
        raise _Unanswered(str(getattr(error, "orig", error)).strip()) from error
    click.echo(json.dumps(explained.as_dict(), indent=2) if format_ == "json" else str(explained))


class _Unanswered(click.ClickException):
    exit_code = 2


def _object(option: str, value: str | None) -> dict[str, Any]:
    found = _json(value) if value is not None else {}
    if not isinstance(found, dict):
        raise click.BadParameter("give a JSON object", param_hint=option)
    return found


def _key(value: str | None) -> Any:
    is_json = value is not None and value.startswith(("{", "["))
    return _json(value) if is_json and value is not None else value


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} isn't JSON: {error}") from None


@main.command()
@click.option("--token", "subjects", multiple=True, metavar="SUBJECT", help="Print a token for SUBJECT, too.")
def dev(subjects: tuple[str, ...]) -> None:
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


def _engine(url: str, driver: str | None = None) -> Engine:
    found = make_url(url)
    if driver is not None:
        found = found.set(drivername=driver)
    elif found.drivername in ("postgres", "postgresql"):
        found = found.set(drivername="postgresql+psycopg")
    return create_engine(found, poolclass=NullPool)
