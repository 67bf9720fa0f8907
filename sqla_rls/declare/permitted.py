"""The rows that a caller may change, as a column of a query."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    and_,
    cast,
    column,
    exists,
    false,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    table,
)
from sqlalchemy.dialects import postgresql

from sqla_rls.ddl.compile import with_whole_text
from sqla_rls.declare.base import TableDeclarations, authenticated, kept_on, table_of
from sqla_rls.declare.policies import Policy
from sqla_rls.declare.roles import together_by_name
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC, Role

_COMMANDS = ("UPDATE", "DELETE")
_CALLER: ColumnElement[str] = literal_column("current_user")


def permitted(target: Any, command: str, role: Role | str = authenticated) -> ColumnElement[bool]:
    """Return an expression that is true for the rows on which the caller may run *command*.

    It stands in the SELECT list, for the buttons of a user interface::

        select(Todo, permitted(Todo, "update").label("may_update"))

    The expression repeats the USING of the declared policies for *role*, and of those for its declared groups
    if the caller inherits them.  If none is true, or for a caller with another role, it is false, and never
    NULL.  Policies for further roles of the caller don't count: the caller needs no privileges on what they
    read.  WITH CHECK isn't part of it, since the new values are unknown.  Postgres alone decides on the
    command itself.  The caller needs privileges on the tables that the policies read, as for the command.

    Args:
        target: a mapped class, or a ``Table``.
        command: "update" or "delete".
        role: the callers' own role, not a group of it.

    Raises:
        DeclarationError: the target is of another kind, or the command has no row to look at.

    Emits:
        The policies' expressions; ``pg_has_role()`` and ``has_any_column_privilege()``, or
        ``has_table_privilege()``, once for the statement.  A query of ``pg_roles`` for a policy for a
        group, once for the statement.
    """
    asked, command = _table(target), command.upper()
    if command not in _COMMANDS:
        raise DeclarationError(
            f"permitted() failed: it doesn't know the command {command}. Give 'update' or 'delete'"
        )
    declarations = TableDeclarations.of(asked)
    row_security = declarations.row_security
    if row_security is None or not row_security.enabled:
        return _has_privilege(asked, command)
    known: dict[int, ColumnElement[bool]] = {}
    permissive: list[ColumnElement[bool]] = [false()]
    restrictive: list[ColumnElement[bool]] = []
    groups: set[str] | None = None
    for policy in declarations.of_type(Policy):
        using, _ = policy.expressions(asked, known)
        named = {str(one) for one in policy.roles}
        if using is None or policy.command not in (command, "ALL"):
            continue
        # Postgres applies a policy to each role that inherits the privileges of one of its roles.
        if named & {str(role), PUBLIC}:
            (permissive if policy.permissive else restrictive).append(using)
            continue
        groups = _groups(asked, role) if groups is None else groups
        if inherited := sorted(named & groups):
            if policy.permissive:
                permissive.append(and_(_inherits(inherited), using))
            else:
                restrictive.append(or_(not_(_inherits(inherited)), using))
    has_role = _once(func.pg_catalog.pg_has_role(_CALLER, cast(str(role), Text), "USAGE"))
    allowed = and_(_has_privilege(asked, command), has_role, or_(*permissive), *restrictive)
    return func.coalesce(with_whole_text(allowed), false())


def _table(target: Any) -> Table:
    found = table_of(target)
    if found is None:
        raise DeclarationError(
            f"permitted() failed: {target!r} isn't a table. Give a mapped class or a Table"
        )
    return found


def _has_privilege(asked: Table, command: str) -> ColumnElement[bool]:
    name = postgresql.dialect().identifier_preparer.format_table(asked)  # type: ignore[no-untyped-call]
    # Postgres has no DELETE privilege on columns.
    function = "has_any_column_privilege" if command == "UPDATE" else "has_table_privilege"
    return _once(getattr(func.pg_catalog, function)(_CALLER, cast(name, Text), command))


def _groups(asked: Table, role: Role | str) -> set[str]:
    """Return the groups of *role*, at any depth, as the models of *asked* declare them."""
    declarations = map(TableDeclarations.of, asked.metadata.tables.values())
    policies = (policy for one in declarations for policy in one.of_type(Policy))
    named = [role, *kept_on([asked.metadata], Role), *(one for policy in policies for one in policy.roles)]
    declared = together_by_name(named)
    found = [str(role)]
    for one in found:  # the list grows
        groups = declared[one].member_of if one in declared else None
        found += [name for group in groups or () if (name := str(group)) not in found]
    return {*found[1:]}


def _inherits(roles: list[str]) -> ColumnElement[bool]:
    """Return whether the caller inherits the privileges of one of *roles*; a missing role is no error."""
    pg_roles = table("pg_roles", column("oid"), column("rolname", Text), schema="pg_catalog")
    held = select(pg_roles.c.oid).where(
        pg_roles.c.rolname.in_([literal(one, Text) for one in roles]),
        func.pg_catalog.pg_has_role(_CALLER, pg_roles.c.oid, "USAGE"),
    )
    return exists(held)


def _once(call: Any) -> ColumnElement[bool]:
    """Return *call* as a scalar subquery, which Postgres evaluates once for the statement."""
    return select(call).scalar_subquery()
