"""``sqla-rls import``: declarations of the row security in a database."""

from __future__ import annotations

import click

from sqla_rls.cli.base import connected


@click.command("import")
@click.argument("url", envvar="DATABASE_URL")
@click.option("--schema", "schemas", multiple=True, help="A schema to read; without it, the default schema.")
def command(url: str, schemas: tuple[str, ...]) -> None:
    """Print Python declarations of the row security in the database at URL.

    Connect as the role that runs the migrations: the output has the default privileges of that role.

    \b
    $ sqla-rls import "$DATABASE_URL" > row_security.py
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.introspect.declarations import declarations

    with connected(url) as connection:
        click.echo(declarations(connection, schemas), nl=False)
