"""The privileges that models declare: on tables, on other objects, and on future objects."""

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

#: What row security reaches.
_TABLE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
GRANTABLE = {
    "TABLES": _TABLE,
    "SEQUENCES": {"USAGE", "SELECT", "UPDATE"},
    "FUNCTIONS": {"EXECUTE"},
    "TYPES": {"USAGE"},
    "SCHEMAS": {"USAGE"},
    "COLUMNS": {"SELECT", "INSERT", "UPDATE"},
}
# What these allow, they allow past every policy.
_BEYOND_ROW_SECURITY = {
    "TABLES": {"TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"},
    "SCHEMAS": {"CREATE"},
    "COLUMNS": {"REFERENCES"},
}
_Column: TypeAlias = "str | Column[Any] | MappedColumn[Any] | Mapped[Any]"


class grant(Declaration):
    """Privileges on the table beyond those that its policies imply: ``grant("SELECT", to="reporting")``.

    Without any *privileges* the roles hold none: a table that declares nothing else is managed, too.
    With *columns* only on these, and a policy of the same role then doesn't imply the privilege on the
    others.  TRUNCATE, REFERENCES, TRIGGER and MAINTAIN need ``bypasses_row_security=True``, since they
    hold for the whole table, whatever its policies; a role that a policy names can't have them, nor can
    PUBLIC, ``authenticated`` and ``anonymous``.  ALL is refused.
    With *grant_option* the roles may pass them on.
    Emitted: ``GRANT … [(columns)] ON TABLE … TO … [WITH GRANT OPTION]``.
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
            raise DeclarationError(f"{self!r}: columns= names none; leave it out to grant on the table")
        if not privileges and columns is not None:
            raise DeclarationError("grant() failed: it has columns= without privileges. Name the privileges")
        self._columns = Columns(self, (one for one in self.columns or () if not isinstance(one, str)))

    def __repr__(self) -> str:
        return f"grant of {', '.join(self.privileges) or 'no privileges'}"

    def values(self, table: Table, key: TableKey) -> Iterator[Privilege]:
        """Yield the privileges on *table*, whose key in the Snapshot is *key*."""
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
    """Privileges on a sequence, on a function or on a schema itself.

    *sequence* is its name, or the serial or identity column that owns it: ``Note.id``.  *function* is its
    name and the types of its arguments, ``"is_member(uuid)"``; *schema* alone is the schema, beside the
    others where they are.  A sequence or function is managed whole, so that everybody's EXECUTE is
    revoked; on a schema, which others share, what the roles in *to* hold is.  Without any *privileges*
    they have none.  CREATE on a schema needs ``bypasses_row_security=True``, and is refused for whom
    ``grant`` refuses TRIGGER.
    Emitted: ``GRANT … ON SEQUENCE | FUNCTION | SCHEMA … TO …``, and ``REVOKE``.
    """
    column: Column[Any] | str | None = None
    if isinstance(sequence, str) and function is None:
        found = ObjectKey("SEQUENCE", schema, sequence)
    elif sequence is not None and function is None:
        column = _element(sequence)
        if isinstance(column, str) or schema is not None or not isinstance(column.table, Table):
            raise DeclarationError(
                f"grant_on(sequence={sequence!r}) failed: that is no column of a table. Call grant_on() "
                "after the models, without schema="
            )
        found = ObjectKey("SEQUENCE", column.table.schema, column.table.name)
    elif function is not None and sequence is None:
        name, parenthesis, rest = function.partition("(")
        if not (name and parenthesis and rest.endswith(")")):
            raise DeclarationError(
                f"function {function!r}: give its name and types of arguments, as in 'is_member(uuid)'"
            )
        found = ObjectKey("FUNCTION", schema, function)
    elif schema is not None and sequence is None:
        found = ObjectKey("SCHEMA", None, schema)
    else:
        raise DeclarationError("grant_on() is about one thing: give sequence=, function=, or schema= alone")
    checked = _checked(privileges, f"{found.object_type}S", bypasses_row_security) if privileges else []
    owner = column.name if isinstance(column, Column) else None
    keep_on(metadata, Grant(found, as_roles(to), checked, grant_option, owner))


def declare_roles(metadata: MetaData, *roles: Role) -> None:
    """Declare roles that no table names: ``Role("app", login=True, member_of=[authenticated])``.

    Raises: DeclarationError for anything but a Role.
    """
    for role in roles:
        if not isinstance(role, Role):
            fix = f"Role({str.__str__(role)!r})" if isinstance(role, str) else "Role('name')"
            raise DeclarationError(f"declare_roles() takes Role objects. Write {fix}")
    keep_on(metadata, *roles)


class Grant(NamedTuple):
    """A call of ``grant_on()``."""

    object: ObjectKey
    roles: list[Role | str]
    privileges: list[str]
    grant_option: bool
    #: That owns the sequence.
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
    """Privileges on the objects that the migrating role will create, in *schema* or in all schemas.

    SQLAlchemy's ``BLANK_SCHEMA`` stands for the default schema, which each tenant may have another of.
    *on* is TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS.  Those of the roles in *to* on it are managed
    whole: what isn't declared is revoked.  Without any *privileges* they have none.
    Emitted: ``ALTER DEFAULT PRIVILEGES [IN SCHEMA …] GRANT … ON … TO …``, and ``REVOKE``.
    """
    on = on.upper()
    if on not in GRANTABLE or on == "COLUMNS":
        raise DeclarationError(
            f"default_privileges(on={on!r}): take TABLES, SEQUENCES, FUNCTIONS, TYPES or SCHEMAS"
        )
    checked = _checked(privileges, on, bypasses_row_security) if privileges else []
    name = DEFAULT_SCHEMA if isinstance(schema, SchemaConst) else schema
    keep_on(metadata, DefaultPrivileges(on, name, as_roles(to), checked))


def revoke_public_privileges(metadata: MetaData) -> None:
    """Revoke the privileges of PUBLIC by which one caller can trap the next.

    With TEMPORARY on the database, a caller hides a table or type from the next caller on the connection.
    With CREATE on schema public, a caller makes a function that Postgres finds before its own; databases made
    since PostgreSQL 15 don't grant it.  All roles without these privileges by name lose them.  If you remove
    the call later, they stay revoked.

    The owners of the database and of the schema must run the statements.  Autogenerate needs TEMPORARY: the
    owner of the database keeps it, and any other migrating role needs it by name.

    Emits: ``REVOKE TEMPORARY ON DATABASE … FROM PUBLIC``, ``REVOKE CREATE ON SCHEMA public FROM PUBLIC``.
    """
    keep_on(metadata, RevokesPublicPrivileges())


class RevokesPublicPrivileges(NamedTuple):
    """That ``revoke_public_privileges()`` was called."""


class DefaultPrivileges(NamedTuple):
    """A call of ``default_privileges()``."""

    object_type: str
    schema: str | None
    roles: list[Role | str]
    privileges: list[str]

    def values(self, default_schema: str | None) -> Iterator[DefaultPrivilege]:
        """With the name of the default schema, if *default_schema* is known."""
        schema = default_schema or self.schema if self.schema == DEFAULT_SCHEMA else self.schema
        for role in self.roles:
            for privilege in self.privileges:
                yield DefaultPrivilege(self.object_type, schema, str(role), privilege)


def is_beyond_row_security(one: Privilege | DefaultPrivilege) -> bool:
    """Whether what it allows it allows past every policy."""
    if isinstance(one, DefaultPrivilege):
        kind = one.object_type
    else:
        kind = "COLUMNS" if one.object_type == "TABLE" and one.column is not None else f"{one.object_type}S"
    return one.privilege in _BEYOND_ROW_SECURITY.get(kind, ())


def refuse_beyond_row_security(
    privileges: Iterable[Privilege | DefaultPrivilege], named: Iterable[Role | str]
) -> None:
    """Raise DeclarationError for what row security doesn't reach and callers get; policies name *named*."""
    beyond = [one for one in privileges if is_beyond_row_security(one)]
    refused = callers(named) if beyond else set()
    for one in beyond:
        if one.grantee in refused:
            on = one.name if isinstance(one, Privilege) else one.object_type
            raise DeclarationError(
                f"{one.privilege} on {on} can't be granted to {one.grantee}, as which callers run: row "
                "security doesn't reach it, and by a trigger, say, one caller could take the rows of others. "
                "Grant it to a role that no policy names"
            )


def _checked(privileges: Iterable[str], kind: str, bypasses_row_security: bool) -> list[str]:
    allowed, beyond = GRANTABLE[kind], _BEYOND_ROW_SECURITY.get(kind, set())
    listed = [privilege.upper() for privilege in privileges]
    if listed and (allowed | (beyond if bypasses_row_security else set())).issuperset(listed):
        return listed
    if beyond.intersection(listed) and (allowed | beyond).issuperset(listed):
        raise DeclarationError(
            f"row security doesn't reach what {', '.join(listed)} on {kind} allow: "
            "say bypasses_row_security=True if you mean it"
        )
    raise DeclarationError(
        f"privileges on {kind} to declare are {', '.join(sorted(allowed))}, not "
        f"{', '.join(listed) or 'none'}: row security doesn't reach what others allow"
    )


def _element(column: _Column) -> Column[Any] | str:
    attribute: Any = column
    found = column if isinstance(column, Column | str) else attribute.__clause_element__()
    if not isinstance(found, Column | str):
        raise DeclarationError(f"columns= and sequence= take columns and names of columns, not {column!r}")
    return found
