"""Grants: the privileges that models declare on tables, sequences, functions and schemas."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import Mapped, MappedColumn

from sqla_rls.declare.base import Declaration, Roles, as_roles, keep_on
from sqla_rls.declare.grantable import checked_privileges
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import (
    ObjectKey,
    Privilege,
    Role,
    TableKey,
)

_Column: TypeAlias = "str | Column[Any] | MappedColumn[Any] | Mapped[Any]"


class grant(Declaration):
    """Privileges on the table in addition to those that its policies imply.

    For example: ``grant("SELECT", to="reporting")``.

    Args:
        *privileges: the privileges; ALL is refused.  Without any, the roles have none, and the table is
            managed.
        to: the roles.
        columns: grant the privileges on these columns only.  A policy of the same role then doesn't imply
            these privileges on the other columns.
        grant_option: whether the roles may grant the privileges to others.
        bypasses_row_security: required for TRUNCATE, REFERENCES, TRIGGER and MAINTAIN, to which policies
            don't apply.  PUBLIC, ``authenticated``, ``anonymous`` and the roles of policies can't have them.

    Raises:
        DeclarationError: a privilege can't be declared, or *columns* is empty.

    Emits:
        ``GRANT … [(columns)] ON TABLE … TO … [WITH GRANT OPTION]``
    """

    __visit_name__ = "grant"

    def __init__(
        self,
        *privileges: str,
        to: Roles,
        columns: Collection[_Column] | None = None,
        grant_option: bool = False,
        bypasses_row_security: bool = False,
    ) -> None:
        kind = "TABLES" if columns is None else "COLUMNS"
        self.privileges = checked_privileges(privileges, kind, bypasses_row_security)
        self.roles, self.grant_option = as_roles(to), grant_option
        self.columns = None if columns is None else [_element(one) for one in columns]
        if not self.columns and columns is not None:
            raise DeclarationError(
                f"{self!r} failed: columns= names none. Leave it out to grant on the table"
            )
        if not privileges and columns is not None:
            raise DeclarationError("grant() failed: it has columns= without privileges. Name the privileges")
        self.mark(one for one in self.columns or () if not isinstance(one, str))

    def __repr__(self) -> str:
        return f"grant of {', '.join(self.privileges) or 'no privileges'}"

    def values(self, table: Table, key: TableKey) -> Iterator[Privilege]:
        """Return the privileges on *table*, whose key in the Snapshot is *key*."""
        names = [None] if self.columns is None else [self.column(table, c).name for c in self.columns]
        for role in self.roles:
            for privilege in self.privileges:
                for name in names:
                    yield Privilege("TABLE", *key, str(role), privilege, name, self.grant_option)


def grant_on(
    metadata: MetaData,
    *privileges: str,
    to: Roles,
    schema: str | None = None,
    sequence: _Column | None = None,
    function: str | None = None,
    grant_option: bool = False,
    bypasses_row_security: bool = False,
) -> None:
    """Declare privileges on a sequence, a function or a schema.

    All privileges on the sequence or function are managed, so that autogenerate revokes EXECUTE from PUBLIC.
    On a schema, only the privileges and grant options of the roles in *to* are managed.

    Args:
        metadata: the MetaData of the models.
        *privileges: the privileges; without any, the roles have none.
        to: the roles.
        schema: the schema of the sequence or function; alone, the object itself.
        sequence: the name of a sequence, or the serial or identity column that owns it: ``Note.id``.
        function: the name of a function with the types of its arguments: ``"is_member(uuid)"``.
        grant_option: whether the roles may grant the privileges to others.
        bypasses_row_security: required for CREATE on a schema.  PUBLIC, ``authenticated``, ``anonymous`` and
            the roles of policies can't have it.

    Raises:
        DeclarationError: the arguments don't name one object, or a privilege can't be declared.

    Emits:
        ``GRANT … ON SEQUENCE | FUNCTION | SCHEMA … TO …``, and ``REVOKE``
    """
    column: Column[Any] | str | None = None
    if isinstance(sequence, str) and function is None:
        found = ObjectKey("SEQUENCE", schema, sequence)
    elif sequence is not None and function is None:
        column = _element(sequence)
        if isinstance(column, str) or schema is not None or not isinstance(column.table, Table):
            raise DeclarationError(
                f"grant_on(sequence={sequence!r}) failed: it isn't a column of a table. Call grant_on() "
                "after the models, without schema="
            )
        found = ObjectKey("SEQUENCE", column.table.schema, column.table.name)
    elif function is not None and sequence is None:
        name, parenthesis, rest = function.partition("(")
        if not (name and parenthesis and rest.endswith(")")):
            raise DeclarationError(
                f"grant_on(function={function!r}) failed: it has no types of arguments. "
                "Give the name and the types, as in 'is_member(uuid)'"
            )
        found = ObjectKey("FUNCTION", schema, function)
    elif schema is not None and sequence is None:
        found = ObjectKey("SCHEMA", None, schema)
    else:
        raise DeclarationError(
            "grant_on() failed: it needs exactly one object. Give sequence=, function=, or schema= alone"
        )
    checked = checked_privileges(privileges, f"{found.object_type}S", bypasses_row_security)
    owner = column.name if isinstance(column, Column) else None
    keep_on(metadata, Grant(found, as_roles(to), checked, grant_option, owner))


class Grant(NamedTuple):
    """The arguments of one call of ``grant_on()``."""

    object: ObjectKey
    roles: Sequence[Role | str]
    privileges: list[str]
    grant_option: bool
    #: The column that owns the sequence.
    column: str | None = None

    def values(self) -> Iterator[Privilege]:
        for role in self.roles:
            for privilege in self.privileges:
                yield Privilege(*self.object, str(role), privilege, self.column, self.grant_option)


def _element(column: _Column) -> Column[Any] | str:
    attribute: Any = column
    found = column if isinstance(column, Column | str) else attribute.__clause_element__()
    if not isinstance(found, Column | str):
        raise DeclarationError(
            f"the grant failed: columns= and sequence= take columns and names of columns, not {column!r}. "
            "Give User.id or 'id', for example"
        )
    return found
