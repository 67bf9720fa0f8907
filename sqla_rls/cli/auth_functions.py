"""``sqla-rls auth-functions``: the SQL of ``op.create_auth_functions()``."""

from __future__ import annotations

import click
from sqlalchemy.dialects import postgresql

from sqla_rls.ddl.auth_functions import CreateAuthFunctions, DropAuthFunctions
from sqla_rls.ddl.roles import DropRole
from sqla_rls.snapshot import KEYHOLDER


@click.command("auth-functions")
@click.option("--signed", is_flag=True, help="Functions that verify the caller.")
@click.option("--drop", is_flag=True, help="Print the SQL that drops the functions.")
def command(signed: bool, drop: bool) -> None:
    """Print the SQL of op.create_auth_functions(), for a role that must run it by hand.

    \b
    $ sqla-rls auth-functions | psql "$SUPERUSER_URL"
    """
    statements = [DropAuthFunctions(), DropRole(KEYHOLDER)] if drop else [CreateAuthFunctions(signed=signed)]
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    for statement in statements:
        click.echo(f"{str(statement.compile(dialect=dialect)).strip()};")
