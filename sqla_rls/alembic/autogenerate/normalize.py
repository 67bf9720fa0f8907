"""The second step: Postgres decides which expressions are equal, and finds missing functions."""

from __future__ import annotations

from typing import NamedTuple

from sqla_rls.alembic.autogenerate.auth_functions import (
    calls_of_missing_functions,
    refuse_missing_auth_functions,
)
from sqla_rls.alembic.autogenerate.read import Context, Read
from sqla_rls.catalog.auth_functions import auth_in_use
from sqla_rls.catalog.dependencies import policies_on_every_column
from sqla_rls.catalog.normalize import normalize as normalize_declared
from sqla_rls.catalog.read import DatabaseSnapshot
from sqla_rls.snapshot import AUTH_SCHEMA, PolicyKey, Snapshot


class Normalized(NamedTuple):
    """Both Snapshots with equal text for equal expressions, and without ignored objects."""

    live: DatabaseSnapshot
    declared: Snapshot
    #: Whether every database that has run the revisions has the functions of schema ``auth``.
    auth_is_made: bool


def normalize(context: Context, read: Read) -> Normalized:
    """Return both Snapshots in a comparable form.

    Raises:
        DeclarationError: a declaration calls a function of schema ``auth`` that is missing and can't be
            created.
    """
    connection, default_schema = context.connection, context.default_schema
    live = context.ignored.without(read.live, keep=context.tables.dropped)
    wanted = read.declared
    expanded = {
        key
        for key in policies_on_every_column(
            connection, default_schema=default_schema, tables=context.tables.grown
        )
        if key in wanted.policies and wanted.policies[key].has_star
    }
    declared = normalize_declared(
        connection,
        live,
        context.ignored.without(wanted),
        recreated=read.dependents.keys | expanded,
        new_defaults=context.tables.new_defaults,
    )
    auth = read.live.auth
    if context.ignored.schema(AUTH_SCHEMA):
        auth = auth._replace(may_create=False)
    calls = calls_of_missing_functions(connection, auth, declared, context.operations)
    past = context.past
    auth_is_made = (
        past is None
        or past.auth_functions
        or not declared.auth_functions
        or auth_in_use(
            connection,
            default_schema=default_schema,
            tables=[*declared.managed, *declared.views],
            functions=declared.functions,
        )
    )
    refuse_missing_auth_functions(auth, declared, read.tables, calls)
    return Normalized(live=live, declared=declared, auth_is_made=auth_is_made)


def undeclared_dependents(context: Context, read: Read, normalized: Normalized) -> set[PolicyKey]:
    """Return the undeclared policies that depend on dropped or altered objects, and that stay."""
    return {
        key
        for key in read.dependents.keys
        if key.table not in context.tables.dropped
        and (key.table not in normalized.declared.row_security or key not in normalized.live.policies)
    }
