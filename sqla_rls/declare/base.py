"""What all declarations have in common: where they are kept, and how they name roles and columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    Column,
    MetaData,
    Table,
    event,
)
from sqlalchemy.schema import SchemaItem

from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC, Role, RowSecurity, TableKey, listed_roles

_T = TypeVar("_T")
#: Where MetaData.info keeps the MetaDataDeclarations.
_INFO_KEY = "sqla_rls"

#: Roles that are made where they are missing (Role), or that must be there (their names).
Roles: TypeAlias = "Role | str | Collection[Role | str]"


#: The caller who has signed in, and the one who has not: names as on Neon.  Declaring the first makes the
#: second.  They are members of no role, unless a Role of the same name says ``member_of=``.
authenticated = Role("authenticated")


anonymous = Role("anonymous")


READY_MADE = {role.name: role for role in (authenticated, anonymous)}


class Declaration(SchemaItem):
    """What stands in ``__table_args__``; at home on one table."""

    table: Table | None = None
    #: Whether it enables row security, forces it on the table's owner, or disables it.
    enables = forces = disables = False

    def _set_parent(self, parent: Any, **kw: Any) -> None:
        if not isinstance(parent, Table):
            raise DeclarationError(f"{self!r} belongs on a Table, not on {parent!r}")
        if self.table is not None and self.table is not parent:
            raise DeclarationError(
                f"{self!r} is on table {self.table.fullname} already, and can't be on {parent.fullname} too. "
                "In a mixin, make __table_args__ a @declared_attr.directive, so that each class gets its own"
            )
        self.table = parent
        self.attach(TableDeclarations.of(parent, create=True))

    def attach(self, declarations: TableDeclarations) -> None:
        declarations.items.append(self)


class Columns:
    """The columns that a declaration names, found again on its table: a mixin's are copied into each."""

    def __init__(self, declaration: Declaration, columns: Iterable[Column[Any]]) -> None:
        self.declaration = declaration
        self.marks = {column: _Mark(column) for column in columns if column.table is None}

    def on(self, table: Table, column: Column[Any] | str) -> Column[Any]:
        """*column* of *table*; raises DeclarationError if there is none."""
        if isinstance(column, str) or column.table is not None:
            key = column if isinstance(column, str) else column.key
            if key in table.c:
                return table.c[key]
            raise DeclarationError(f"{self.declaration!r}: table {table.fullname} has no column {key!r}")
        mark = self.marks.get(column)
        for found in table.c:
            if mark and mark in found.dispatch.after_parent_attach:
                return found
        raise DeclarationError(
            f"{self.declaration!r} on {table.fullname} names a column of no table: {column!r}"
        )


class _Mark:
    """Travels with a column into its copies."""

    def __init__(self, column: object) -> None:
        event.listen(column, "after_parent_attach", self, propagate=True)

    def __call__(self, *_: Any) -> None:
        """Nothing: being there is all."""


class TableDeclarations:
    """What one table declares, in order.

    It hangs on the table as a listener, since that is what ``Table.to_metadata()`` takes along;
    ``Table.info`` would be rendered into migrations.
    """

    def __init__(self, table: Table, items: Iterable[Declaration] = ()) -> None:
        self.table, self.items = table, [*items]

    @classmethod
    def of(cls, table: Table, *, create: bool = False) -> TableDeclarations:
        """The declarations of *table*; an empty one, not kept, where there are none.

        A copy shares those of its source until it is declared more (*create*), which the source isn't.
        """
        for listener in reversed([*table.dispatch.after_create]):
            if isinstance(listener, cls) and (listener.table is table or not create):
                return listener
        if not create:
            return cls(table)
        found = cls(table, cls.of(table).items)
        event.listen(table, "after_create", found, propagate=True)
        return found

    def __call__(self, *_: Any, **kw: Any) -> None:
        """create_all.py emits what is declared; this listener only stays with the table."""

    def __bool__(self) -> bool:
        return bool(self.items)

    def of_type(self, kind: type[_T]) -> list[_T]:
        return [one for one in self.items if isinstance(one, kind)]

    @property
    def row_security(self) -> RowSecurity | None:
        """The flags of the table; None where nothing that it declares sets them."""
        table = TableKey(self.table.schema, self.table.name)
        enabled = any(one.enables for one in self.items)
        if not any(one.disables for one in self.items):
            forced = any(one.forces for one in self.items)
            return RowSecurity(table=table, forced=forced) if enabled else None
        if enabled:
            raise DeclarationError(
                f"{self.table.fullname} has policies beside disable_row_level_security(): take one"
            )
        return RowSecurity(table=table, enabled=False)


class MetaDataDeclarations:
    """What is declared on a MetaData rather than on one of its tables, in order."""

    def __init__(self) -> None:
        self.items: list[object] = []

    @classmethod
    def of(cls, metadata: MetaData, *, create: bool = False) -> MetaDataDeclarations:
        """The declarations of *metadata*; an empty one, kept only with *create*, where there are none."""
        if create:
            metadata.info.setdefault(_INFO_KEY, cls())
        found: MetaDataDeclarations = metadata.info.get(_INFO_KEY, cls())
        return found

    def of_type(self, kind: type[_T]) -> list[_T]:
        return [one for one in self.items if isinstance(one, kind)]


def keep_on(metadata: MetaData, *items: object) -> None:
    """Add *items* to what *metadata* declares."""
    MetaDataDeclarations.of(metadata, create=True).items.extend(items)


def kept_on(metadatas: Iterable[MetaData], kind: type[_T]) -> list[_T]:
    """The declarations of one *kind* on *metadatas*, in order."""
    return [one for metadata in metadatas for one in MetaDataDeclarations.of(metadata).of_type(kind)]


def declare_on(table: Table, *declarations: Declaration) -> None:
    """Declare on a *table* that is there already what would stand in its ``__table_args__``."""
    for one in declarations:
        one._set_parent_with_dispatch(table)


def as_roles(roles: Roles) -> list[Role | str]:
    listed = listed_roles(roles)
    if not listed:
        raise DeclarationError("no role is named: the list is empty. Name a role, or PUBLIC for all roles")
    by_name: dict[str, Role | str] = {**READY_MADE, "PUBLIC": PUBLIC}
    return [by_name.get(role, role) if isinstance(role, str) else role for role in listed]
