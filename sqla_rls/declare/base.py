"""The common part of all declarations: their storage, and the names of roles and columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import (
    Column,
    FromClause,
    MetaData,
    Table,
    event,
    inspect,
)
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.schema import SchemaItem

from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import PUBLIC, Role, RowSecurity, TableKey, listed_roles

_T = TypeVar("_T")
#: The key of the MetaDataDeclarations in MetaData.info.
_INFO_KEY = "sqla_rls"

#: A migration creates a missing Role; a role that is given by its name must exist.
Roles: TypeAlias = "Role | str | Collection[Role | str]"


#: The roles of callers with and without a token, with Neon's names.  A declaration of the first role also
#: declares the second.  They are members of no role, unless a Role of the same name has member_of=.
authenticated = Role("authenticated")


anonymous = Role("anonymous")


READY_MADE = {role.name: role for role in (authenticated, anonymous)}
_BY_NAME: dict[str, Role | str] = {**READY_MADE, "PUBLIC": PUBLIC}


class Declaration(SchemaItem):
    """An item of ``__table_args__``; it belongs to one table."""

    table: Table | None = None
    #: Whether it enables row security, forces it on the table's owner, or disables it.
    enables = forces = disables = False
    #: Most declarations mark no column, and share this.
    _marks: Mapping[Column[Any], _Mark] = MappingProxyType({})

    def _set_parent(self, parent: Any, **kw: Any) -> None:
        if not isinstance(parent, Table):
            raise DeclarationError(
                f"{self!r} can't be declared on {parent!r}: it belongs on a Table. Use __table_args__"
            )
        self.take(parent)
        self.attach(TableDeclarations.of(parent, create=True))

    def take(self, table: Table) -> None:
        """Make *table* the table of this declaration.

        Raises:
            DeclarationError: it has another one.
        """
        if self.table is not None and self.table is not table:
            raise DeclarationError(
                f"{self!r} can't be declared on {table.fullname}: it is on table {self.table.fullname} "
                "already. In a mixin, make __table_args__ a @declared_attr.directive, so that each class "
                "gets its own"
            )
        self.table = table

    def attach(self, declarations: TableDeclarations) -> None:
        declarations.items.append(self)

    def mark(self, columns: Iterable[Column[Any]]) -> None:
        """Mark those of *columns* without a table: SQLAlchemy copies a column of a mixin into each table."""
        if unattached := [column for column in columns if column.table is None]:
            self._marks = {column: _Mark(column) for column in unattached}

    def column(self, table: Table, column: Column[Any] | str) -> Column[Any]:
        """Return *column* of *table*.

        Raises:
            DeclarationError: the table has no such column.
        """
        if isinstance(column, str) or column.table is not None:
            key = column if isinstance(column, str) else column.key
            if (named := table.c.get(key)) is not None:
                return named
            raise DeclarationError(
                f"{self!r} failed: table {table.fullname} has no column {key!r}. Name a column of the table"
            )
        mark = self._marks.get(column)
        for found in table.c:
            if mark and mark in found.dispatch.after_parent_attach:
                return found
        raise DeclarationError(
            f"{self!r} on {table.fullname} failed: column {column!r} belongs to no table. "
            "Name a column of the table"
        )


class _Mark:
    """A mark that SQLAlchemy copies with a column."""

    def __init__(self, column: object) -> None:
        event.listen(column, "after_parent_attach", self, propagate=True)

    def __call__(self, *_: Any) -> None:
        """Do nothing; only the presence of the listener counts."""


class TableDeclarations:
    """The declarations of one table, in order.

    They are a listener of the table, since ``Table.to_metadata()`` copies listeners.  Alembic would render
    ``Table.info`` into migrations.
    """

    def __init__(self, table: Table, items: Iterable[Declaration] = ()) -> None:
        self.table, self.items = table, [*items]

    @classmethod
    def of(cls, table: Table, *, create: bool = False) -> TableDeclarations:
        """Return the declarations of *table*.

        A copy of a table shares the declarations of its source, until the copy gets more of them.

        Args:
            table: the table.
            create: store the returned object on the table, if it has none of its own.
        """
        listeners = [one for one in table.dispatch.after_create if isinstance(one, cls)]
        for listener in reversed(listeners):
            if listener.table is table or not create:
                return listener
        found = cls(table, listeners[-1].items if listeners else ())
        if create:
            # As event.listen(propagate=True) does, which also makes six objects for event.remove().
            of_table = table.dispatch.after_create.for_modify(table.dispatch)
            of_table.listeners.append(found)
            of_table.propagate.add(found)
        return found

    def __call__(self, *_: Any, **kw: Any) -> None:
        """Do nothing, since create_all.py emits the declarations."""

    def __bool__(self) -> bool:
        return bool(self.items)

    def of_type(self, kind: type[_T]) -> list[_T]:
        return [one for one in self.items if isinstance(one, kind)]

    @property
    def row_security(self) -> RowSecurity | None:
        """The flags of the table; None if no declaration sets them."""
        return self.row_security_of(TableKey(self.table.schema, self.table.name))

    def row_security_of(self, table: TableKey) -> RowSecurity | None:
        """Return the flags, as those of *table*: a copy shares the declarations of its source."""
        enabled = any(one.enables for one in self.items)
        if not any(one.disables for one in self.items):
            forced = any(one.forces for one in self.items)
            return RowSecurity(table=table, forced=forced) if enabled else None
        if enabled:
            raise DeclarationError(
                f"row security of {self.table.fullname} can't be declared: the table has policies and "
                "disable_row_level_security(). Remove one of them"
            )
        return RowSecurity(table=table, enabled=False)


class MetaDataDeclarations:
    """The declarations on a MetaData itself, in order."""

    def __init__(self) -> None:
        self.items: list[object] = []

    @classmethod
    def of(cls, metadata: MetaData, *, create: bool = False) -> MetaDataDeclarations:
        """Return the declarations of *metadata*; *create* stores the object if there is none."""
        if create:
            metadata.info.setdefault(_INFO_KEY, cls())
        found: MetaDataDeclarations = metadata.info.get(_INFO_KEY, cls())
        return found

    def of_type(self, kind: type[_T]) -> list[_T]:
        return [one for one in self.items if isinstance(one, kind)]


def keep_on(metadata: MetaData, *items: object) -> None:
    """Add *items* to the declarations of *metadata*."""
    MetaDataDeclarations.of(metadata, create=True).items.extend(items)


def kept_on(metadatas: Iterable[MetaData], kind: type[_T]) -> list[_T]:
    """Return the declarations of one *kind* on *metadatas*, in order."""
    return [one for metadata in metadatas for one in MetaDataDeclarations.of(metadata).of_type(kind)]


def table_of(target: Any) -> Table | None:
    """Return the table of a mapped class, or *target* itself if it is a table; None for anything else."""
    try:
        found = inspect(target)
    except NoInspectionAvailable:
        return None
    table = found.local_table if isinstance(found, Mapper) else found
    return table if isinstance(table, Table) else None


def declare_on(table: FromClause | type[Any], *declarations: Declaration) -> None:
    """Add *declarations* to an existing *table*, as if they were in its ``__table_args__``.

    Args:
        table: a Table, or a mapped class.
        declarations: policies, flags and grants.

    Raises:
        DeclarationError: *table* is neither.
    """
    found = table_of(table)
    parent: Any = table if found is None else found
    for one in declarations:
        one._set_parent_with_dispatch(parent)


class RoleTuple(tuple[Role | str, ...]):
    """One role or several, without another type; the declarations of one role share it."""

    @cached_property
    def names(self) -> frozenset[str]:
        """The names as a policy has them: for Postgres, TO PUBLIC replaces the other roles."""
        found = frozenset(map(str, self))
        return frozenset({PUBLIC}) if PUBLIC in found else found


def as_roles(roles: Roles | RoleTuple) -> RoleTuple:
    if isinstance(roles, RoleTuple):
        return roles
    return _one_role(roles) if isinstance(roles, Role | str) else _several_roles(roles)


def _several_roles(roles: Roles) -> RoleTuple:
    listed = listed_roles(roles)
    if not listed:
        raise DeclarationError(
            "the declaration can't be made: its list of roles is empty. Name a role, or PUBLIC for all roles"
        )
    return RoleTuple(_BY_NAME.get(role, role) if isinstance(role, str) else role for role in listed)


_one_role = cache(_several_roles)
