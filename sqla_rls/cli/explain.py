"""``sqla-rls explain``: how fast a query is under the policies, and why."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from sqla_rls.cli.base import engine, shown
from sqla_rls.cli.sides import in_one_line


@click.command("explain")
@click.argument("url", envvar="DATABASE_URL")
@click.argument("query")
@click.option("--as", "subject", metavar="SUBJECT", help="The subject of the caller; none without it.")
@click.option("--role", help="The role of the caller, if not authenticated, or anonymous without SUBJECT.")
@click.option("--claims", metavar="JSON", help="More claims of the caller, as a JSON object.")
@click.option("--where", metavar="SQL", help="A hand-written condition that does the same as the policies.")
@click.option("--advice/--no-advice", default=True, help="Measure changes in a scratch server, or don't.")
@click.option(
    "--rows",
    type=click.IntRange(min=100, max=10_000_000),
    default=20_000,
    show_default=True,
    help="The generated rows of each table in the scratch database.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The most seconds that the query runs.",
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    url: str,
    query: str,
    subject: str | None,
    role: str | None,
    claims: str | None,
    where: str | None,
    advice: bool,
    rows: int,
    timeout: float,
    format_: str,
) -> None:
    """Show the plan of QUERY under the policies, beside the plan without row security.

    Connect as the owner of the tables, as a superuser or with BYPASSRLS.  The transaction is read only and
    rolled back.  A SELECT runs; of other statements, the plan is made only.  The advice is measured on
    generated rows in a scratch server on this machine.

    \b
    $ sqla-rls explain "$DATABASE_URL" "SELECT * FROM todos" --as alice
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze.plans import advised, explain_query
    from sqla_rls.tokens.caller import Caller

    given = _object(claims)
    with in_one_line():
        caller = Caller(
            role=role or ("anonymous" if subject is None else "authenticated"), subject=subject, claims=given
        )
        connecting = engine(url)
        with connecting.connect() as connection:
            explained = explain_query(
                connection,
                caller,
                query,
                where=where,
                signing_key=os.environ.get("SQLA_RLS_SIGNING_KEY") or None,
                timeout=timeout,
            )
        if advice:
            explained = advised(explained, connecting.url, query, claims=given, rows=rows)
    if format_ == "json":
        click.echo(json.dumps(explained.as_dict(), indent=2))
    else:
        click.echo(shown(str(explained)))


def _object(value: str | None) -> dict[str, Any]:
    try:
        found = {} if value is None else json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("give a JSON object", param_hint="--claims")
    return found
