"""``sqla-rls mutate``: whether your own tests notice a weakened database."""

from __future__ import annotations

import json
import signal

import click

from sqla_rls.cli.base import Unanswered, engine
from sqla_rls.cli.sides import in_one_line


@click.command("mutate", context_settings={"ignore_unknown_options": True})
@click.argument("url", envvar="DATABASE_URL")
@click.argument("test_command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--this-is-a-test-database",
    "is_confirmed",
    is_flag=True,
    help="Required: the command changes the database at URL, and changes it back.",
)
@click.option("--schema", "schemas", multiple=True, help="A schema to weaken; without it, all.")
@click.option("--limit", type=click.IntRange(min=1), help="The most mutants, spread over all tables.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def command(
    context: click.Context,
    url: str,
    test_command: tuple[str, ...],
    is_confirmed: bool,
    schemas: tuple[str, ...],
    limit: int | None,
    format_: str,
) -> None:
    """Weaken the test database at URL in one place at a time, and run TEST_COMMAND: it must fail.

    Connect as a superuser, or as the owner of all tables.  The tests must use this database as it is, and
    not create its tables again.  Exit code 1 means that a mutant survives, and 2 that there is no answer.

    \b
    $ sqla-rls mutate --this-is-a-test-database "$DATABASE_URL" -- pytest -x tests/access
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.prove.mutate import mutate

    if not is_confirmed:
        raise click.UsageError(
            "the command changes the database at URL, for the time of each run. Give "
            "--this-is-a-test-database, if nothing else uses it"
        )

    def said(sentence: str) -> None:
        click.echo(sentence, err=True)

    # Both raise KeyboardInterrupt, so that the database is restored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with in_one_line():
            found = mutate(engine(url), list(test_command), schemas=schemas, limit=limit, said=said)
    except KeyboardInterrupt:
        raise Unanswered("interrupted: the database is as before") from None
    click.echo(json.dumps(found.as_dict(), indent=2) if format_ == "json" else str(found))
    context.exit(1 if found.survivors else 0)
