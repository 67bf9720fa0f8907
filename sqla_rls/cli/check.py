"""``sqla-rls check``: lint, the committed matrix and ``alembic check``, with one exit code."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from sqla_rls.cli import lint, matrix
from sqla_rls.cli.sides import side_options

_CHECKS: Final = ("lint", "matrix", "alembic")
_WORDS: Final = ("ok", "fails", "no answer")
#: The most characters of a line of the summary.
_WIDTH: Final = 160


@dataclass(frozen=True, slots=True)
class _Done:
    """A check that ran: exit code, its output, and the output in one line."""

    name: str
    code: int
    output: str
    line: str


@click.command("check")
@click.argument("target", envvar="DATABASE_URL")
@side_options
@click.option(
    "--access",
    type=click.Path(dir_okay=False, path_type=Path),
    default="access.txt",
    show_default=True,
    help="The file of sqla-rls matrix --write.",
)
@click.option("--skip", multiple=True, type=click.Choice(_CHECKS), help="A check to leave out.")
@click.option(
    "--fail-on",
    type=click.Choice(lint.FAIL_ON),
    help="The findings of lint that fail, as of sqla-rls lint --fail-on.",
)
@click.option("--details", is_flag=True, help="Print the whole output of the checks that aren't ok, too.")
@click.pass_context
def command(
    context: click.Context,
    target: str,
    models: tuple[str, ...],
    alembic_config: tuple[str, ...],
    owner: str | None,
    access: Path,
    skip: tuple[str, ...],
    fail_on: str | None,
    details: bool,
) -> None:
    """Run lint, matrix --check and alembic check, and print a summary of at most ten lines.

    TARGET is a side, as of sqla-rls diff.  `alembic check` compares the database of your env.py with its
    models.  Exit code 0 means that all are ok, 1 that one fails, and 2 that one has no answer.  Lint also
    fails where it can't decide.

    \b
    $ sqla-rls check "$DATABASE_URL" --models app.models:Base
    $ sqla-rls check models --models app.models:Base --skip alembic
    """
    sides = [word for one in models for word in ("--models", one)]
    sides += [word for one in alembic_config for word in ("--alembic-config", one)]
    sides += [] if owner is None else ["--owner", owner]
    levels = [] if fail_on is None else ["--fail-on", fail_on]
    run: dict[str, Callable[[], _Done]] = {
        "lint": lambda: _called("lint", lint.command, [target, *sides, *levels]),
        "matrix": lambda: _called("matrix", matrix.command, [target, *sides, "--check", str(access)]),
        "alembic": lambda: _alembic(alembic_config),
    }
    chosen = [name for name in _CHECKS if name not in skip]
    if not chosen:
        raise click.UsageError("--skip leaves no check. Skip fewer")
    done = [run[name]() for name in chosen]
    for one in done:
        if details and one.code:
            click.echo(f"{one.name}:\n{one.output}")
    for one in done:
        click.echo(f"{one.name:<8}{_WORDS[one.code]:<11}{one.line[:_WIDTH]}".rstrip())
    code = max(one.code for one in done)
    if code and not details:
        click.echo("Add --details to see more.")
    context.exit(code)


def _called(name: str, command: click.Command, arguments: Sequence[str]) -> _Done:
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            code = command.main(list(arguments), prog_name=f"sqla-rls {name}", standalone_mode=False)
    except click.ClickException as error:
        return _Done(name, 2, error.format_message() + "\n", _line(error.format_message()))
    shown = output.getvalue()
    if name == "matrix" and code:
        lines = [one for one in shown.splitlines() if one.startswith(("+", "-"))]
        changed = len(lines) - 2  # the names of the files
        return _Done(name, 1, shown, f"{changed} line{'' if changed == 1 else 's'} differ from the file")
    return _Done(name, min(int(code or 0), 2), shown, _line(shown, place=-1))


def _alembic(configs: Sequence[str]) -> _Done:
    arguments = [word for path in configs for word in ("-c", path)]
    done = subprocess.run(  # noqa: S603 - the program is this Python
        [sys.executable, "-m", "sqla_rls.cli.alembic_check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    code = done.returncode if done.returncode in (0, 1) else 2
    return _Done(
        "alembic",
        code,
        done.stdout + (done.stderr if code else ""),
        _line(done.stdout or done.stderr, place=-1),
    )


def _line(output: str, place: int = 0) -> str:
    lines = [" ".join(one.split()) for one in output.splitlines() if one.strip()]
    return lines[place] if lines else ""
