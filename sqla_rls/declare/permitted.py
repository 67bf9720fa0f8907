"""The rows that a caller may change, as a column of a query."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    and_,
    cast,
    false,
    func,
    inspect,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from sqla_rls.declare.base import TableDeclarations, authenticated
from sqla_rls.declare.policies import Policy
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC, Role

_COMMANDS = ("UPDATE", "DELETE")
_CALLER: ColumnElement[str] = literal_column("current_user")


def permitted(target: Any, command: str, role: Role | str = authenticated) -> ColumnElement[bool]:
    """Return an expression that is true for the rows on which the caller may run *command*.

    It stands in the SELECT list, for the buttons of a user interface::

        select(Todo, permitted(Todo, "update").label("may_update"))

    The expression repeats the USING of the declared policies for *role*.  If none is true, or for a caller
    with another role, it is false, and never NULL.  WITH CHECK isn't part of it, since the new values are
    unknown.  Postgres alone decides on the command itself.  The caller needs privileges on the tables that
    the policies read, as for the command.

    Args:
        target: a mapped class, or a ``Table``.
        command: "update" or "delete".
        role: the callers' role.

    Raises:
        DeclarationError: the target is of another kind, or the command has no row to look at.

    Emits:
        The policies' expressions; ``pg_has_role()`` and ``has_any_column_privilege()``, or
        ``has_table_privilege()``, once for the statement.
    """
    table, command = _table(target), command.upper()
    if command not in _COMMANDS:
        raise DeclarationError(
            f"permitted() failed: it doesn't know the command {command}. Give 'update' or 'delete'"
        )
    declarations = TableDeclarations.of(table)
    row_security = declarations.row_security
    if row_security is None or not row_security.enabled:
        return _has_privilege(table, command)
    known: dict[int, ColumnElement[bool]] = {}
    permissive: list[ColumnElement[bool]] = [false()]
    restrictive: list[ColumnElement[bool]] = []
    for policy in declarations.of_type(Policy):
        using, _ = policy.expressions(table, known)
        named = {str(one) for one in policy.roles}
        if using is None or policy.command not in (command, "ALL") or not named & {str(role), PUBLIC}:
            continue
        (permissive if policy.permissive else restrictive).append(using)
    has_role = _once(func.pg_catalog.pg_has_role(_CALLER, cast(str(role), Text), "USAGE"))
    allowed = and_(_has_privilege(table, command), has_role, or_(*permissive), *restrictive)
    return func.coalesce(allowed, false())


def _table(target: Any) -> Table:
    try:
        found = inspect(target)
    except NoInspectionAvailable:
        found = None
    table = found.local_table if isinstance(found, Mapper) else found
    if not isinstance(table, Table):
        raise DeclarationError(
            f"permitted() failed: {target!r} isn't a table. Give a mapped class or a Table"
        )
    return table


def _has_privilege(table: Table, command: str) -> ColumnElement[bool]:
    name = postgresql.dialect().identifier_preparer.format_table(table)  # type: ignore[no-untyped-call]
    # Postgres has no DELETE privilege on columns.
    asked = "has_any_column_privilege" if command == "UPDATE" else "has_table_privilege"
    return _once(getattr(func.pg_catalog, asked)(_CALLER, cast(name, Text), command))


def _once(call: Any) -> ColumnElement[bool]:
    """Return *call* as a scalar subquery, which Postgres evaluates once for the statement."""
    return select(call).scalar_subquery()
