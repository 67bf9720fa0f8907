"""Refuses calls of functions of schema ``auth`` that are missing and can't be created."""

from __future__ import annotations

from collections.abc import Iterable

from alembic.operations import MigrateOperation, ops
from sqlalchemy import Connection, Table

from sqla_rls.catalog.auth_functions import AuthFunctions
from sqla_rls.exc import DeclarationError
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import (
    AUTH_SCHEMA,
    Snapshot,
)

log = autogenerate_log(__name__)


def calls_of_missing_functions(
    connection: Connection,
    auth: AuthFunctions,
    models: Snapshot,
    operations: Iterable[MigrateOperation],
) -> list[tuple[str, str]]:
    if not (auth.settled and auth.missing):
        return []
    from sqla_rls.catalog.missing_calls import missing_calls  # most databases have all functions

    new_tables = [one.to_table() for one in operations if isinstance(one, ops.CreateTableOp)]
    return list(missing_calls(connection, models, auth.missing, new_tables))


def refuse_missing_auth_functions(
    auth: AuthFunctions,
    models: Snapshot,
    tables: Iterable[Table],
    calls: Iterable[tuple[str, str]],
) -> None:
    """Refuse calls of functions of schema ``auth`` that are missing and can't be created.

    Args:
        auth: the functions of the database.
        models: the declarations.
        tables: the tables of the models, for their defaults.
        calls: the calls that Postgres has found in views and functions.

    Raises:
        DeclarationError: there is such a call.
    """
    if not (auth.settled and auth.missing):
        return
    texts = [
        (f"policy {policy.name!r} on {policy.table.name}", sql)
        for policy in models.policies.values()
        for sql in (policy.using, policy.with_check)
    ]
    texts += [
        (f"the default of {column}", str(getattr(column.server_default, "arg", "")))
        for table in tables
        for column in table.columns
    ]
    found = [(what, name) for what, sql in texts for name in _named(auth.missing, sql)]
    for what, name in (*found, *calls):
        if auth.extension:
            hint = "Update the extension: ALTER EXTENSION pg_session_jwt UPDATE"
        elif "jwt" in auth.missing:
            hint = "Create it first, by the program that has the schema; or take 'auth' out of ignore()"
        else:
            hint = (
                "Call auth.jwt() or auth.uid(), which every provider has: jwt_claim('sub') in a policy or "
                "view, auth.jwt()['sub'].astext in a default"
            )
        raise DeclarationError(
            f"{what} can't be created: it calls auth.{name}(), which this database lacks, and the "
            f"migrating role may not create it there, or ignore() leaves schema auth alone. {hint}"
        )
    for function in models.functions.values():
        for name in _named(auth.missing, function.body) if function.language != "sql" else ():
            log.warning(
                "function %s will fail: its body names auth.%s(), which this database lacks. "
                "Call auth.jwt() or auth.uid(), which every provider has",
                function.name,
                name,
            )


def _named(functions: Iterable[str], sql: str | None) -> list[str]:
    return [name for name in sorted(functions) if f"{AUTH_SCHEMA}.{name}(" in (sql or "")]
