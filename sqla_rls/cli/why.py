"""``sqla-rls why``: the reason why a caller reaches a row, or doesn't."""

from __future__ import annotations

import json
import os
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from sqla_rls.cli.base import Unanswered, engine, shown
from sqla_rls.exc import RowSecurityError


@click.command("why")
@click.argument("url", envvar="DATABASE_URL")
@click.argument("table")
@click.argument("key", required=False)
@click.option("--as", "subject", metavar="SUBJECT", help="The subject of the caller; none without it.")
@click.option("--role", help="The role of the caller, if not authenticated, or anonymous without SUBJECT.")
@click.option("--claims", metavar="JSON", help="More claims of the caller, as a JSON object.")
@click.option(
    "--command",
    type=click.Choice(["SELECT", "INSERT", "UPDATE", "DELETE"], case_sensitive=False),
    default="SELECT",
    show_default=True,
)
@click.option("--row", metavar="JSON", help="The new values by their columns, for INSERT and UPDATE.")
@click.option("--no-returning", is_flag=True, help="INSERT doesn't read its row back, as the ORM does.")
@click.option("--on-conflict", type=click.Choice(["nothing", "update"]), help="INSERT … ON CONFLICT DO … .")
@click.option(
    "--conflict-column",
    "conflict_columns",
    multiple=True,
    metavar="NAME",
    help="A column of the conflict target, if not the primary key.",
)
@click.option("--format", "format_", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    url: str,
    table: str,
    key: str | None,
    subject: str | None,
    role: str | None,
    claims: str | None,
    command: str,
    row: str | None,
    no_returning: bool,
    on_conflict: str | None,
    conflict_columns: tuple[str, ...],
    format_: str,
) -> None:
    """Explain why a caller may, or may not, read or write a row.

    Connect as the owner of TABLE: the answer tells of rows that the caller can't see.  It writes nothing.
    KEY is the value of the primary key, or JSON: an array of values, or an object of columns.

    \b
    $ sqla-rls why "$DATABASE_URL" todos 42 --as alice
    """
    # Imported here, since commands that print SQL need no database.
    from sqla_rls.analyze import OnConflict, explain_access
    from sqla_rls.tokens.caller import Caller

    if conflict_columns and on_conflict is None:
        raise click.UsageError("--conflict-column needs --on-conflict")
    try:
        caller = Caller(
            role=role or ("anonymous" if subject is None else "authenticated"),
            subject=subject,
            claims=_object("--claims", claims),
        )
        with engine(url).connect() as connection:
            explained = explain_access(
                connection,
                caller,
                table,
                command.upper(),  # type: ignore[arg-type] # click has checked it
                key=_key(key),
                row=_object("--row", row),
                returning=not no_returning,
                on_conflict=(
                    None if on_conflict is None else OnConflict(on_conflict, conflict_columns)  # type: ignore[arg-type] # click has checked it
                ),
                signing_key=os.environ.get("SQLA_RLS_SIGNING_KEY") or None,
            )
    except (DBAPIError, RowSecurityError) as error:
        raise Unanswered(str(getattr(error, "orig", error)).strip()) from error
    click.echo(json.dumps(explained.as_dict(), indent=2) if format_ == "json" else shown(str(explained)))


def _object(option: str, value: str | None) -> dict[str, Any]:
    found = _json(value) if value is not None else {}
    if not isinstance(found, dict):
        raise click.BadParameter("give a JSON object", param_hint=option)
    return found


def _key(value: str | None) -> Any:
    is_json = value is not None and value.startswith(("{", "["))
    return _json(value) if is_json and value is not None else value


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} isn't JSON: {error}") from None
