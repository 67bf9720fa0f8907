"""``sqla-rls snapshot``: the schema and the roles of a side, as a file for reviews."""

from __future__ import annotations

import click

from sqla_rls.cli.base import shown
from sqla_rls.cli.sides import in_one_line, side_options


@click.command("snapshot")
@click.argument("side")
@side_options
def command(side: str, models: tuple[str, ...], alembic_config: tuple[str, ...], owner: str | None) -> None:
    """Print the schema and the roles of SIDE as JSON, for sqla-rls diff.

    SIDE is a database URL, `models`, or `rev:REVISION` of Alembic.  The snapshot holds no rows, no passwords
    and no values of custom settings.  A database is only read.

    \b
    $ sqla-rls snapshot "$DATABASE_URL" > row_security.json
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.sides import Side

    with in_one_line():
        found = Side.parse(side, models=models, alembic_config=alembic_config, owner=owner)
        dump = found.dump()
    click.echo(dump.to_json(), nl=False)
    for sentence in dump.left_out:
        click.echo(shown(sentence), err=True)
