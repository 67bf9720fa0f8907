"""``sqla-rls matrix``: the rows that each role reaches."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

import click

from sqla_rls.cli.base import Unanswered
from sqla_rls.cli.progress import Progress
from sqla_rls.cli.sides import in_one_line, side_options

_FORMATS: Final = ("text", "json", "csv", "markdown")
_FILE: Final = click.Path(dir_okay=False, path_type=Path)


@click.command("matrix")
@click.argument("target", required=False)
@click.option(
    "--diff", nargs=2, metavar="BEFORE AFTER", help="Two sides: show the entries that open or close."
)
@side_options
@click.option(
    "--role", "roles", multiple=True, help="A role of the matrix; without it, those with privileges."
)
@click.option("--schema", "schemas", multiple=True, help="A schema of the matrix; without it, all.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option("--html", type=_FILE, help="Write a page for a browser, which needs no network.")
@click.option("--write", type=_FILE, help="Write one sorted line for each entry, to be committed.")
@click.option("--check", type=_FILE, help="Compare the lines of the file. The exit code is 1 if they differ.")
@click.option("--worlds", type=click.IntRange(min=1), help="The most worlds for each object and role.")
@click.pass_context
def command(
    context: click.Context,
    target: str | None,
    diff: tuple[str, str] | None,
    models: tuple[str, ...],
    alembic_config: tuple[str, ...],
    owner: str | None,
    roles: tuple[str, ...],
    schemas: tuple[str, ...],
    format_: str,
    html: Path | None,
    write: Path | None,
    check: Path | None,
    worlds: int | None,
) -> None:
    """Show the rows of each table and view of TARGET that each role reaches.

    TARGET is a side, as of sqla-rls diff: a database URL, `models`, `rev:REVISION` of Alembic, or a file of
    sqla-rls snapshot.  A database is only read: real statements run in a scratch server on this machine.

    \b
    $ sqla-rls matrix "$DATABASE_URL" --html access.html
    $ sqla-rls matrix models --models app.models:Base --write access.txt
    $ sqla-rls matrix --diff "$DATABASE_URL" rev:head --html change.html
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.matrix import read_matrix
    from sqla_rls.analyze.matrix.difference import diff_matrices
    from sqla_rls.analyze.matrix.entry import Matrix
    from sqla_rls.analyze.matrix.formats import FORMATS, html_, listing
    from sqla_rls.analyze.sides import Side
    from sqla_rls.analyze.verdict import Budget

    if (target is None) == (diff is None):
        raise click.UsageError("give either TARGET or --diff BEFORE AFTER")
    if diff is not None and (write is not None or check is not None):
        raise click.UsageError("--write and --check need TARGET, not --diff")
    if write is not None and check is not None:
        raise click.UsageError("give either --write or --check")
    with in_one_line():
        # First: a wrong file needs no matrix.
        known, changes = None if check is None else _read(check), ""
        options: dict[str, Any] = {"models": models, "alembic_config": alembic_config, "owner": owner}
        budget = Budget() if worlds is None else Budget(worlds=worlds)
        with Progress("Trying") as progress:
            limits: dict[str, Any] = {
                "roles": roles,
                "schemas": schemas,
                "budget": budget,
                "progress": progress,
            }
            if diff is not None:
                first, second = (Side.parse(one, **options) for one in diff)
                found: Any = diff_matrices(first, second, **limits)
            else:
                assert target is not None
                # A file that is reviewed has all tables.
                is_partial = write is None and check is None
                found = read_matrix(Side.parse(target, **options, partial=is_partial), **limits)
        if html is not None:
            html.write_text(html_(found), encoding="utf-8")
        if isinstance(found, Matrix) and write is not None:
            write.write_text(listing(found), encoding="utf-8")
        if isinstance(found, Matrix) and known is not None:
            changes = _changes(known, listing(found), str(check))
            click.echo(changes or f"{check}: no change of access.\n", nl=False)
        elif html is None and write is None:
            click.echo(FORMATS[format_](found), nl=False)
    context.exit(1 if changes else 0)


def _read(path: Path) -> str:
    if not path.exists():
        raise Unanswered(
            f"the matrix can't be compared: there is no file {path}. Write it with --write {path}"
        )
    return path.read_text(encoding="utf-8")


def _changes(known: str, found: str, name: str) -> str:
    lines = unified_diff(known.splitlines(), found.splitlines(), name, "now", lineterm="", n=0)
    return "".join(f"{line}\n" for line in lines)
