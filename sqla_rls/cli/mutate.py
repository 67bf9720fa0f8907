"""``sqla-rls mutate``: whether your own tests notice a weakened database."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from sqla_rls.cli.base import Unanswered, engine, shown
from sqla_rls.cli.sides import in_one_line

if TYPE_CHECKING:
    from sqla_rls.analyze.prove.proof import Score


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
        click.echo(shown(sentence), err=True)

    # Both raise KeyboardInterrupt, so that the database is restored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with in_one_line():
            found = mutate(engine(url), list(test_command), schemas=schemas, limit=limit, said=said)
            if found.survivors:
                said("The surviving mutants are tried in a scratch server: some may have no effect.")
                found = _without_equivalent(found, url, said)
    except KeyboardInterrupt:
        raise Unanswered("interrupted: the database is as before") from None
    click.echo(json.dumps(found.as_dict(), indent=2) if format_ == "json" else shown(str(found)))
    context.exit(1 if found.survivors else 0)


def _without_equivalent(found: Score, url: str, said: Callable[[str], None]) -> Score:
    """Return *found* with the survivors apart that permit the same as before, in all worlds tried."""
    from sqla_rls.analyze.prove.prove import Prover
    from sqla_rls.analyze.prove.score import is_equivalent
    from sqla_rls.analyze.sides import Side
    from sqla_rls.analyze.verdict import Budget
    from sqla_rls.exc import AnalysisError

    try:
        with Side.parse(url).build() as built:
            prover = Prover.of(built.connection, [], Budget(), incomplete=frozenset(built.incomplete))
            equivalent = {one.name for one in found.survivors if is_equivalent(prover, one)}
    except AnalysisError as error:
        said(f"Mutants without an effect aren't known: {error}")
        return found
    return replace(
        found,
        equivalent=tuple(one for one in found.survivors if one.name in equivalent),
        survivors=tuple(one for one in found.survivors if one.name not in equivalent),
    )
