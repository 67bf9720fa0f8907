"""The tables that the policies of a copied table read: copies, like the targets of its foreign keys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from sqlalchemy import MetaData, Table
from sqlalchemy.exc import NoReferenceError

from sqla_rls.declare.base import TableDeclarations
from sqla_rls.exc import DeclarationError


def copies(
    source: Table | None, copy: Table, metadata: MetaData, views: Collection[Table]
) -> Callable[[Table], Table] | None:
    """Return a function that maps the tables of *source* to those of its *copy*; None without a copy.

    The copy of a table in the source's schema is in the copy's schema.  Other tables keep their schema, as
    ``Table.to_metadata()`` does with foreign keys.  If a foreign key refers to the table, its
    ``referred_schema_fn`` decides.

    Raises:
        DeclarationError: the returned function raises it for a table that is neither in *metadata* nor among
            its *views*.  The source's table would show the rows of another tenant.
    """
    if source is None or source is copy:
        return None

    def copied(table: Table) -> Table:
        if table in (source, copy):
            return copy
        if (referred := _referred(source, copy, table)) is not None:
            return referred
        schema = copy.schema if table.schema == source.schema else table.schema
        if (found := _find(table, [*metadata.tables.values(), *views], schema)) is not None:
            return found
        if schema == table.schema:
            return table
        raise DeclarationError(
            f"a policy or view of {copy.fullname} can't follow {table.fullname}: the MetaData of "
            f"{copy.fullname}, which is a copy of {source.fullname}, has no table "
            f"{f'{schema}.{table.name}' if schema else table.name}. Copy {table.fullname} there by "
            "to_metadata(), too; or give a table that all copies share a schema of its own"
        )

    return copied


def _find(table: Table, known: Collection[Table], schema: str | None) -> Table | None:
    """Return the copy of *table* in *schema*, by its name or, if it has another name, its declarations."""
    there = [one for one in known if one.schema == schema]
    declarations = TableDeclarations.of(table)
    named = [one for one in there if one.name == table.name]
    renamed = [one for one in there if declarations and TableDeclarations.of(one) is declarations]
    return next(iter(named + renamed), None)


def _referred(source: Table, copy: Table, table: Table) -> Table | None:
    """Return the target of the foreign key of *copy* whose original in *source* refers to *table*."""
    for key in source.foreign_keys:
        if key.parent.key not in copy.c:
            continue
        # A foreign key to a missing table has no target.
        with suppress(NoReferenceError):
            if key.column.table is table:
                for copied in copy.c[key.parent.key].foreign_keys:
                    if copied.column.key == key.column.key:
                        return copied.column.table
    return None
