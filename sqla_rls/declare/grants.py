"""The privileges that models declare, on tables, on other objects, and as default privileges."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import Mapped, MappedColumn
from sqlalchemy.sql.schema import SchemaConst

from sqla_rls.declare.base import Columns, Declaration, Roles, as_roles, keep_on
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import (
    DEFAULT_SCHEMA,
    DefaultPrivilege,
    ObjectKey,
    Privilege,
    Role,
    TableKey,
    callers,
)

#: The table privileges to which policies apply.
_TABLE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
GRANTABLE = {
    "TABLES": _TABLE,
    "SEQUENCES": {"USAGE", "SELECT", "UPDATE"},
    "FUNCTIONS": {"EXECUTE"},
    "TYPES": {"USAGE"},
    "SCHEMAS": {"USAGE"},
    "COLUMNS": {"SELECT", "INSERT", "UPDATE"},
}
# Policies don't apply to these privileges.
_BEYOND_ROW_SECURITY = {
    "TABLES": {"TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"},
    "SCHEMAS": {"CREATE"},
    "COLUMNS": {"REFERENCES"},
}
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
        self.privileges = _checked(privileges, kind, bypasses_row_security) if privileges else []
        self.roles, self.grant_option = as_roles(to), grant_option
        self.columns = None if columns is None else [_element(one) for one in columns]
        if not self.columns and columns is not None:
            raise DeclarationError(
                f"{self!r} failed: columns= names none. Leave it out to grant on the table"
            )
        if not privileges and columns is not None:
            raise DeclarationError("grant() failed: it has columns= without privileges. Name the privileges")
        self._columns = Columns(self, (one for one in self.columns or () if not isinstance(one, str)))

    def __repr__(self) -> str:
        return f"grant of {', '.join(self.privileges) or 'no privileges'}"

    def values(self, table: Table, key: TableKey) -> Iterator[Privilege]:
        """Return the privileges on *table*, whose key in the Snapshot is *key*."""
        names = [None] if self.columns is None else [self._columns.on(table, c).name for c in self.columns]
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
    On a schema, only the privileges of the roles in *to* are managed.

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
    checked = _checked(privileges, f"{found.object_type}S", bypasses_row_security) if privileges else []
    owner = column.name if isinstance(column, Column) else None
    keep_on(metadata, Grant(found, as_roles(to), checked, grant_option, owner))


def declare_roles(metadata: MetaData, *roles: Role) -> None:
    """Declare roles that no table names: ``Role("app", login=True, member_of=[authenticated])``.

    Args:
        metadata: the MetaData of the models.
        *roles: the roles.

    Raises:
        DeclarationError: an argument isn't a Role.

    Emits:
        The statements of ``Role``.
    """
    for role in roles:
        if not isinstance(role, Role):
            fix = f"Role({str.__str__(role)!r})" if isinstance(role, str) else "Role('name')"
            raise DeclarationError(
                f"the role can't be declared: declare_roles() takes Role objects. Write {fix}"
            )
    keep_on(metadata, *roles)


class Grant(NamedTuple):
    """The arguments of one call of ``grant_on()``."""

    object: ObjectKey
    roles: list[Role | str]
    privileges: list[str]
    grant_option: bool
    #: The column that owns the sequence.
    column: str | None = None

    def values(self) -> Iterator[Privilege]:
        for role in self.roles:
            for privilege in self.privileges:
                yield Privilege(*self.object, str(role), privilege, self.column, self.grant_option)


def default_privileges(
    metadata: MetaData,
    *privileges: str,
    on: str = "TABLES",
    to: Roles,
    schema: str | SchemaConst | None = None,
    bypasses_row_security: bool = False,
) -> None:
    """Declare default privileges for objects that the migrating role creates later.

    All default privileges of the roles in *to* on this kind of object are managed: autogenerate revokes the
    undeclared ones.

    Args:
        metadata: the MetaData of the models.
        *privileges: the privileges; without any, the roles have none.
        on: TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS.
        to: the roles.
        schema: the schema of the objects; None for every schema.  SQLAlchemy's ``BLANK_SCHEMA`` stands for
            the default schema, which may differ for each tenant.
        bypasses_row_security: as in ``grant``.

    Raises:
        DeclarationError: *on* is unknown, or a privilege can't be declared.

    Emits:
        ``ALTER DEFAULT PRIVILEGES [IN SCHEMA …] GRANT … ON … TO …``, and ``REVOKE``
    """
    on = on.upper()
    if on not in GRANTABLE or on == "COLUMNS":
        raise DeclarationError(
            f"default_privileges(on={on!r}) failed: there is no such kind of object. "
            "Give TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS"
        )
    checked = _checked(privileges, on, bypasses_row_security) if privileges else []
    name = DEFAULT_SCHEMA if isinstance(schema, SchemaConst) else schema
    keep_on(metadata, DefaultPrivileges(on, name, as_roles(to), checked))


def revoke_public_privileges(metadata: MetaData) -> None:
    """Revoke the privileges of PUBLIC with which one caller can trick another.

    With TEMPORARY on the database, a caller can create a temporary table or type.  It hides the real one from
    the next caller on the connection.  With CREATE on schema public, a caller can create a function that
    hides one of Postgres; databases of PostgreSQL 15 and later don't grant it.  All roles of the database
    lose both, unless they hold them by name.  If you remove this call later, the privileges stay revoked.

    The owners of the database and of the schema must run the statements.  Autogenerate needs TEMPORARY: the
    owner of the database keeps it, and you must grant it to another migrating role by name.

    Args:
        metadata: the MetaData of the models.

    Emits:
        ``REVOKE TEMPORARY ON DATABASE … FROM PUBLIC`` and ``REVOKE CREATE ON SCHEMA public FROM PUBLIC``
    """
    keep_on(metadata, RevokesPublicPrivileges())


class RevokesPublicPrivileges(NamedTuple):
    """The declaration of ``revoke_public_privileges()``."""


class DefaultPrivileges(NamedTuple):
    """The arguments of one call of ``default_privileges()``."""

    object_type: str
    schema: str | None
    roles: list[Role | str]
    privileges: list[str]

    def values(self, default_schema: str | None) -> Iterator[DefaultPrivilege]:
        """Return the default privileges, with the name of the default schema if *default_schema* is known."""
        schema = default_schema or self.schema if self.schema == DEFAULT_SCHEMA else self.schema
        for role in self.roles:
            for privilege in self.privileges:
                yield DefaultPrivilege(self.object_type, schema, str(role), privilege)


def is_beyond_row_security(one: Privilege | DefaultPrivilege) -> bool:
    """Return whether policies don't apply to the privilege."""
    if isinstance(one, DefaultPrivilege):
        kind = one.object_type
    else:
        kind = "COLUMNS" if one.object_type == "TABLE" and one.column is not None else f"{one.object_type}S"
    return one.privilege in _BEYOND_ROW_SECURITY.get(kind, ())


def refuse_beyond_row_security(
    privileges: Iterable[Privilege | DefaultPrivilege], named: Iterable[Role | str]
) -> None:
    """Check that no caller gets a privilege to which policies don't apply.

    Args:
        privileges: the declared privileges.
        named: the roles that policies name.

    Raises:
        DeclarationError: a role of callers gets such a privilege.
    """
    beyond = [one for one in privileges if is_beyond_row_security(one)]
    refused = callers(named) if beyond else set()
    for one in beyond:
        if one.grantee in refused:
            on = one.name if isinstance(one, Privilege) else one.object_type
            raise DeclarationError(
                f"{one.privilege} on {on} can't be granted to {one.grantee}, a role of callers: policies "
                "don't apply to it, and with a trigger, for example, one caller could read the rows of "
                "others. Grant it to a role that no policy names"
            )


def _checked(privileges: Iterable[str], kind: str, bypasses_row_security: bool) -> list[str]:
    allowed, beyond = GRANTABLE[kind], _BEYOND_ROW_SECURITY.get(kind, set())
    listed = [privilege.upper() for privilege in privileges]
    if listed and (allowed | (beyond if bypasses_row_security else set())).issuperset(listed):
        return listed
    if beyond.intersection(listed) and (allowed | beyond).issuperset(listed):
        raise DeclarationError(
            f"the privileges can't be declared: policies don't apply to {', '.join(listed)} on {kind}. "
            "Set bypasses_row_security=True if you want this"
        )
    raise DeclarationError(
        f"the privileges can't be declared: policies don't apply to {', '.join(listed) or 'none'} on "
        f"{kind}, or there is no such privilege. Give some of {', '.join(sorted(allowed))}"
    )


def _element(column: _Column) -> Column[Any] | str:
    attribute: Any = column
    found = column if isinstance(column, Column | str) else attribute.__clause_element__()
    if not isinstance(found, Column | str):
        raise DeclarationError(
            f"the grant failed: columns= and sequence= take columns and names of columns, not {column!r}. "
            "Give User.id or 'id', for example"
        )
    return found
