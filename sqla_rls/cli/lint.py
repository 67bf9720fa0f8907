"""``sqla-rls lint``: openings, dead ends and slow policies of a target, with evidence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from sqla_rls.cli.base import Unanswered
from sqla_rls.cli.progress import Progress
from sqla_rls.cli.sides import in_one_line, side_options

if TYPE_CHECKING:
    from sqla_rls.analyze.lint.database import Database
    from sqla_rls.analyze.lint.run import Baseline, Report

_FORMATS: Final = ("text", "json", "sarif", "github", "junit")
#: For ``sqla-rls check``, too.
FAIL_ON: Final = ("error", "warning", "info", "unknown", "never")


@click.command("lint")
@click.argument("target", envvar="DATABASE_URL")
@side_options
@click.option("--schema", "schemas", multiple=True, help="A schema to look at; without it, all.")
@click.option("--select", multiple=True, metavar="RULE", help="A rule or group to run; without it, all.")
@click.option("--ignore", multiple=True, metavar="RULE", help="A rule or group to leave out.")
@click.option("--speed", is_flag=True, help="Run the rules of speed, too: they measure policies.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="The most seconds for the rules of speed.",
)
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="text", show_default=True)
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    help=(
        "The lowest level that makes the exit code 1: `warning`, if pyproject.toml doesn't say. `unknown` is "
        "`warning`, and parts without an answer at each level."
    ),
)
@click.option(
    "--baseline", type=click.Path(dir_okay=False, path_type=Path), help="A file of reviewed findings."
)
@click.option("--write-baseline", is_flag=True, help="Write all present findings to the baseline.")
@click.option(
    "--with",
    "with_",
    metavar="PROGRAMS",
    default="",
    help="Other programs whose findings are shown, too: pgrls, splinter, or both with a comma.",
)
@click.option(
    "--splinter",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file splinter.sql of github.com/supabase/splinter, for --with splinter.",
)
@click.option(
    "--export",
    type=click.Choice(("pgrls",)),
    help="Write pgrls.toml: the functions, columns and roles of the target, and what its rules may pass.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default="pyproject.toml",
    show_default=True,
    help="The file with [tool.sqla_rls.lint]: options, and exemptions with their reasons.",
)
@click.pass_context
def command(
    context: click.Context,
    target: str,
    models: tuple[str, ...],
    alembic_config: tuple[str, ...],
    owner: str | None,
    schemas: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    speed: bool,
    seconds: float,
    format_: str,
    fail_on: str | None,
    baseline: Path | None,
    write_baseline: bool,
    with_: str,
    splinter: Path | None,
    export: str | None,
    config: Path,
) -> None:
    """Look for openings, dead ends and slow policies in TARGET.

    TARGET is a database URL, `models`, `rev:REVISION` of Alembic, or a file of sqla-rls snapshot.  A database
    is only read.  With --models, each finding has the file and the line of its model.  Exit code 1 means that
    there is a finding, and 2 that there is no answer.  A part that can't be decided is a finding of the rule
    `unknown`.

    \b
    $ sqla-rls lint "$DATABASE_URL" --models app.models:Base
    $ sqla-rls lint models --models app.models:Base --select openings
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.lint.exemptions import read_settings
    from sqla_rls.analyze.lint.formats import FORMATS
    from sqla_rls.analyze.lint.others import check_names, others
    from sqla_rls.analyze.lint.run import Baseline, lint, selected
    from sqla_rls.analyze.lint.source import Sources
    from sqla_rls.analyze.lint.target import open_target
    from sqla_rls.analyze.sides import Side
    from sqla_rls.analyze.sides.models import load_metadata

    if write_baseline and baseline is None:
        raise click.UsageError("--write-baseline needs --baseline")
    with in_one_line():
        # First: a wrong file, or a wrong name, needs no database.
        settings = read_settings(config)
        chosen, left = select or settings.select, (*ignore, *settings.ignore)
        selected(chosen, left)
        programs = [one.strip() for one in with_.split(",") if one.strip()]
        check_names(programs)
        reviewed = _read(baseline) if baseline is not None and not write_baseline else None
        side = Side.parse(target, models=models, alembic_config=alembic_config, owner=owner, partial=True)
        found = [load_metadata(one) for one in models]
        with (
            Progress("Looking") as progress,
            open_target(
                target,
                side,
                schemas=schemas or settings.schemas,
                anonymous_roles=settings.anonymous_roles,
                models=found,
                trusted_owners=settings.trusted_owners,
            ) as database,
        ):
            database.seconds = seconds
            report = lint(
                database,
                target=side.name,
                select=chosen,
                ignore=left,
                speed=speed,
                exemptions=settings.exemptions,
                baseline=reviewed,
                locate=Sources(found).locate,
                progress=progress,
                others=lambda found: others(found, programs, splinter=splinter),
            )
            if export is not None:
                _export(database, report)
        report = replace(report, path=side.path or (str(config) if config.is_file() else None))
        if baseline is not None and write_baseline:
            baseline.write_text(Baseline.of(report.findings).to_json(), encoding="utf-8")
        click.echo(FORMATS[format_](report), nl=False)
        is_failing = report.fails(fail_on or settings.fail_on or "warning")  # type: ignore[arg-type] # both are checked
    context.exit(1 if is_failing and not write_baseline else 0)


def _export(database: Database, report: Report) -> None:
    """Write pgrls.toml, unless a person wrote it."""
    from sqla_rls.analyze.lint.pgrls_config import HEADER, pgrls_config

    path = Path("pgrls.toml")
    if path.exists() and not path.read_text(encoding="utf-8").startswith(HEADER):
        raise Unanswered(
            "pgrls.toml can't be written: it exists, and sqla-rls didn't write it. Move it away, and put "
            '`extends = "…"` into your own file'
        )
    rules = [rule.name for rule in report.rules]
    path.write_text(pgrls_config(database, report.findings, rules), encoding="utf-8")
    click.echo("wrote pgrls.toml", err=True)


def _read(path: Path) -> Baseline:
    from sqla_rls.analyze.lint.run import Baseline

    if not path.exists():
        raise Unanswered(f"the baseline {path} can't be read: there is no such file. Add --write-baseline")
    return Baseline.from_json(path.read_text(encoding="utf-8"), str(path))
