"""``sqla-rls prove``: whether a database does as the models intend."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

import click

from sqla_rls.cli.base import Unanswered, shown
from sqla_rls.cli.progress import Progress
from sqla_rls.cli.sides import in_one_line, side_options


@click.command("prove")
@click.argument("side", default="models")
@side_options
@click.option(
    "--intents",
    multiple=True,
    metavar="PACKAGE.MODULE",
    help="A module that calls intends(); it is imported.",
)
@click.option("--schema", "schemas", multiple=True, help="A schema to try; without it, all.")
@click.option("--mutants", is_flag=True, help="Weaken each policy, and count the mutants that are found.")
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--worlds", type=click.IntRange(min=1), help="The most worlds for each table or view.")
@click.option("--rows", type=click.IntRange(min=1), help="The most rows that a world has in one table.")
@click.option("--seconds", type=click.FloatRange(min=0), help="The most seconds for all worlds.")
@click.pass_context
def command(
    context: click.Context,
    side: str,
    models: tuple[str, ...],
    alembic_config: tuple[str, ...],
    owner: str | None,
    intents: tuple[str, ...],
    schemas: tuple[str, ...],
    mutants: bool,
    format_: str,
    worlds: int | None,
    rows: int | None,
    seconds: float | None,
) -> None:
    """Try every command of every role, and compare the result with the intent of the models.

    SIDE is `models`, a database URL, `rev:REVISION` of Alembic, or a file of sqla-rls snapshot.  A database
    is only read: the statements run in a scratch server on this machine.  The intent is that of the
    declarations, and of intends().  Exit code 1 means a violation or a surviving mutant, and 2 that there is
    no answer.

    \b
    $ sqla-rls prove --models app.models:Base
    $ sqla-rls prove rev:head --models app.models:Base --mutants
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.prove.prove import Prover
    from sqla_rls.analyze.prove.report import as_text
    from sqla_rls.analyze.prove.score import score
    from sqla_rls.analyze.sides import Side
    from sqla_rls.analyze.sides.models import load_metadata
    from sqla_rls.analyze.verdict import Budget

    if not models:
        raise click.UsageError("the intents are those of the models. Give --models package.module:Base")
    with in_one_line():
        metadatas = [load_metadata(one) for one in models]
        for module in intents:
            _import(module)
        built_of = Side.parse(side, models=metadatas, alembic_config=alembic_config, owner=owner)
        given: dict[str, Any] = {"worlds": worlds, "rows": rows, "seconds": seconds}
        budget = Budget(**{name: value for name, value in given.items() if value is not None})
        with built_of.build() as built:
            prover = Prover.of(built.connection, metadatas, budget, incomplete=frozenset(built.incomplete))
            with Progress("Proving") as progress:
                proof = prover.run(schemas, built.left_out, progress)
            if not (proof.violations or proof.not_stated or proof.kept):
                raise Unanswered(
                    "nothing was proved: the models declare no policies on the tables in question. Give the "
                    "module that declares them, such as one that calls declare_row_security(Base.metadata)"
                )
            scored = None
            if mutants:
                with Progress("Trying mutants") as progress:
                    scored = score(prover, proof, schemas=schemas, progress=progress)
        if format_ == "json":
            found = proof.as_dict()
            if scored is not None:
                found["mutants"] = scored.as_dict()
            click.echo(json.dumps(found, indent=2, default=str))
        else:
            click.echo(shown(as_text(proof, scored)), nl=False)
    is_failing = bool(proof.violations) or (scored is not None and bool(scored.survivors))
    context.exit(1 if is_failing else 0)


def _import(module: str) -> None:
    try:
        import_module(module)
    except Exception as error:
        raise Unanswered(
            f"the intents of {module!r} can't be imported: {type(error).__name__}: {error}. "
            "Give package.module, and set PYTHONPATH to the directory of the package"
        ) from error
