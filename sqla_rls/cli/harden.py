"""``sqla-rls harden``: SQL for statements that only a superuser can run."""

from __future__ import annotations

from importlib import resources

import click


@click.command("harden")
@click.option("--print", "is_printed", is_flag=True, required=True, help="Required: the command only prints.")
def command(is_printed: bool) -> None:
    """Print SQL that hardens one database, for statements that only a superuser can run.

    Its comments explain each statement.  Read it before you run it.

    \b
    $ sqla-rls harden --print > harden.sql
    $ psql --single-transaction "$SUPERUSER_URL" < harden.sql
    """
    click.echo((resources.files("sqla_rls.ddl") / "sql" / "harden.sql").read_text(encoding="utf-8"), nl=False)
