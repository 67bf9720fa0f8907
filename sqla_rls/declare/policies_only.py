"""Tables of another program, on which only the policies are declared."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import MetaData, Table

from sqla_rls.declare.base import TableDeclarations, keep_on, kept_on
from sqla_rls.declare.policies import Policy, crud_policy
from sqla_rls.exc import DeclarationError


class _PoliciesOnly(NamedTuple):
    table: Table


def keep_policies_only(metadata: MetaData, table: Table) -> Table:
    """Let migrations of *metadata* manage the policies that are declared on *table*, and nothing else of it.

    Args:
        metadata: the MetaData of the models.
        table: a Table in a MetaData of its own, so that neither Alembic nor ``create_all()`` creates it.

    Returns:
        The table; an earlier one of the same schema and name, if there is one.
    """
    for one in tables_with_policies_only([metadata]):
        if (one.schema, one.name) == (table.schema, table.name):
            return one
    keep_on(metadata, _PoliciesOnly(table))
    return table


def tables_with_policies_only(metadatas: Iterable[MetaData]) -> list[Table]:
    """Return the tables of other programs on which *metadatas* declare policies."""
    return [one.table for one in kept_on(metadatas, _PoliciesOnly)]


def check_policies_only(declarations: TableDeclarations) -> None:
    """Raise DeclarationError if *declarations* have anything but policies."""
    for one in declarations.items:
        if not isinstance(one, Policy | crud_policy):
            raise DeclarationError(
                f"{one!r} can't be declared on {declarations.table.fullname}: the table belongs to another "
                "program, and migrations manage only policies there. Remove the declaration"
            )
