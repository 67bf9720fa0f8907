"""``sqla-rls diff``: who can do what on one side and not on the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sqla_rls.cli.base import Unanswered
from sqla_rls.cli.progress import Progress
from sqla_rls.cli.sides import in_one_line, side_options

if TYPE_CHECKING:
    from sqla_rls.analyze.report import Baseline

_FORMATS: Final = ("text", "json", "markdown", "sarif", "github")
_FAIL_ON: Final = ("opens", "unknown", "any", "never")


@click.command("diff")
@click.argument("before")
@click.argument("after")
@side_options
@click.option("--schema", "schemas", multiple=True, help="A schema to compare; without it, all.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option(
    "--fail-on",
    type=click.Choice(_FAIL_ON),
    default="opens",
    show_default=True,
    help="The results that make the exit code 1. `unknown` adds unknown results, and `any` all changes.",
)
@click.option(
    "--baseline", type=click.Path(dir_okay=False, path_type=Path), help="A file of reviewed changes."
)
@click.option("--write-baseline", is_flag=True, help="Write all present changes to the baseline.")
@click.option("--worlds", type=click.IntRange(min=1), help="The most worlds for each table or view.")
@click.option("--rows", type=click.IntRange(min=1), help="The most rows that a world has in one table.")
@click.option("--seconds", type=click.FloatRange(min=0), help="The most seconds for all worlds.")
@click.pass_context
def command(
    context: click.Context,
    before: str,
    after: str,
    models: tuple[str, ...],
    alembic_config: tuple[str, ...],
    owner: str | None,
    schemas: tuple[str, ...],
    format_: str,
    fail_on: str,
    baseline: Path | None,
    write_baseline: bool,
    worlds: int | None,
    rows: int | None,
    seconds: float | None,
) -> None:
    """Compare who can do what on the sides BEFORE and AFTER.

    A side is a database URL, `models`, `rev:REVISION` of Alembic, or a file of sqla-rls snapshot.  A database
    is only read: the comparison runs in two scratch servers on this machine.  Exit code 1 means that a change
    opens something, and 2 that there is no answer.

    \b
    $ sqla-rls diff "$DATABASE_URL" models --models app.models:Base
    $ sqla-rls diff row_security.json rev:head --format github
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.report import FORMATS, Baseline, Report, is_closed
    from sqla_rls.analyze.sides import Side, compare_sides
    from sqla_rls.analyze.verdict import Budget

    if write_baseline and baseline is None:
        raise click.UsageError("--write-baseline needs --baseline")
    with in_one_line():
        # First: a wrong file needs no comparison.
        reviewed = _read(baseline) if baseline is not None and not write_baseline else None
        options: Any = {"models": models, "alembic_config": alembic_config, "owner": owner}
        first, second = Side.parse(before, **options), Side.parse(after, **options)
        given: dict[str, Any] = {"worlds": worlds, "rows": rows, "seconds": seconds}
        budget = Budget(**{name: value for name, value in given.items() if value is not None})
        with Progress("Comparing") as progress:
            found = compare_sides(first, second, budget=budget, schemas=schemas, progress=progress)
        if baseline is not None and write_baseline:
            reviewed = Baseline.of(found)
            baseline.write_text(reviewed.to_json(), encoding="utf-8")
        report = Report(
            comparison=found,
            before=first.name,
            after=second.name,
            baseline=reviewed,
            path=second.path or first.path,
        )
        click.echo(FORMATS[format_](report), nl=False)
        is_failing = is_closed(report, fail_on)  # type: ignore[arg-type] # click has checked it
    context.exit(1 if is_failing else 0)


def _read(path: Path) -> Baseline:
    from sqla_rls.analyze.report import Baseline

    if not path.exists():
        raise Unanswered(f"the baseline {path} can't be read: there is no such file. Add --write-baseline")
    return Baseline.from_json(path.read_text(encoding="utf-8"), str(path))
