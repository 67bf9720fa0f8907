"""The command ``sqla-rls``: one module for each of its commands."""

from __future__ import annotations

import click

from sqla_rls.cli import (
    auth_functions,
    check,
    dev,
    diff,
    explain,
    harden,
    import_,
    lint,
    matrix,
    mutate,
    prove,
    rotate_key,
    set_password,
    snapshot,
    why,
)


@click.group()
@click.version_option(package_name="sqla-rls")
def main() -> None:
    """Postgres row-level security for SQLAlchemy."""


for module in (
    auth_functions,
    check,
    dev,
    diff,
    explain,
    harden,
    import_,
    lint,
    matrix,
    mutate,
    prove,
    rotate_key,
    set_password,
    snapshot,
    why,
):
    main.add_command(module.command)
