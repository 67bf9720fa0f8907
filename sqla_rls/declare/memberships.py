"""The groups of the caller, by a function that bypasses row security: ``memberships(…)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, MetaData, Select, Table, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.sqltypes import String
from sqlalchemy.sql.visitors import InternalTraversal

from sqla_rls.ddl.compile import literally
from sqla_rls.declare.base import Roles, TableDeclarations, as_roles
from sqla_rls.declare.expressions import auth_uid, family_of
from sqla_rls.declare.functions import DeclaredFunction, keep, made_function
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import CURRENT_SCHEMA, SQLFunction, TableKey

#: No list is given; None is a list that is wrong.
_EVERY_ROLE: Final[Any] = object()
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


class _Call(ColumnElement[Any]):
    """A call of the function; its name follows copied tables and translated schemas like a table's name."""

    _traverse_internals = [("roles", InternalTraversal.dp_plain_obj)]  # noqa: RUF012
    inherit_cache = False

    def __init__(self, function: Table, roles: tuple[str, ...]) -> None:
        self.function, self.roles = function, roles


@compiles(_Call)
def _call(call: _Call, compiler: SQLCompiler, **kw: Any) -> str:
    name = compiler.process(call.function, asfrom=True)
    roles = ", ".join(compiler.render_literal_value(role, String()) for role in call.roles)
    return f"{name}({roles})"


class memberships:
    """The groups of the caller, such as teams, for ``member_of()``: ``memberships("my_teams", metadata, …)``.

    It declares a function that reads the memberships as its owner, bypasses their row security, and returns
    only those of the caller.  The policies of the memberships themselves may call it, so that members see
    each other.  Without the function, Postgres refuses such a circle (42P17)::

        my_teams = memberships(
            "my_teams",
            Base.metadata,
            group="members.team_id",
            user="members.user_id",
            role="members.role",
            to=authenticated,
        )
        member_of(team_id, my_teams())
        member_of(team_id, my_teams("owner", "admin"))
        member_of(team_id, my_teams(roles=EDITORS))

    The migrating role owns the function, and must own the table, too.

    Args:
        name: the name of the function, which must be unique in the schema.
        metadata: the MetaData of the table of memberships.
        group, user, role: columns as in a ForeignKey, ``"table.column"`` or ``"schema.table.column"``, so
            that the table may be declared later.  Calls with names of roles need *role*.
        to: the only roles that may call it.
        schema: the schema of the function.

    Raises:
        DeclarationError: when it is compiled, for a missing column, or for a table with
            ``force_row_level_security()``, which also binds the function's owner.  Also for a call with
            names of roles without *role*, or with an empty list, ``my_teams(roles=[])``.

    Emits:
        ``CREATE FUNCTION … RETURNS SETOF … STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp``,
        ``REVOKE EXECUTE … FROM PUBLIC`` and ``GRANT EXECUTE``.  In a policy,
        ``todos.team_id = ANY (ARRAY(SELECT my_teams()))``, which runs once per statement.
    """

    def __init__(
        self,
        name: str,
        metadata: MetaData,
        *,
        group: str,
        user: str,
        role: str | None = None,
        to: Roles,
        schema: str | None = None,
    ) -> None:
        self.metadata, self.group, self.user, self.role = metadata, group, user, role
        self.function = Table(name, MetaData(), schema=schema)
        keep(metadata, DeclaredFunction(TableKey(schema, name), as_roles(to), self.value, self.function))

    def __call__(self, *names: str, roles: Sequence[str] = _EVERY_ROLE) -> Select[Any]:
        """Return a ``select()`` of the caller's groups.

        Args:
            names: the roles; only groups where the caller has one of them count.  Without a name, all do.
            roles: a list of roles, in the place of names.  An empty list is an error.  Python can't tell
                ``my_teams(*[])`` from ``my_teams()``, so give a list from elsewhere as *roles*.

        Raises:
            DeclarationError: the roles aren't names, or the list has none.
        """
        name, given = self.function.name, names if roles is _EVERY_ROLE else roles
        if given and self.role is None:
            raise DeclarationError(
                f"{name}() can't select by role: it has no column of roles. Name it, memberships(…, role=…)"
            )
        if roles is not _EVERY_ROLE and names:
            raise DeclarationError(
                f"{name}() can't select by role: roles= is beside names. Give one of them, {name}(roles=[…])"
            )
        if (
            isinstance(given, str)
            or not isinstance(given, Sequence)
            or (not given and roles is not _EVERY_ROLE)
            or not all(isinstance(one, str) and one for one in given)
        ):
            raise DeclarationError(
                f"{name}() can't select by role: {given!r} isn't a list of names. Give names, "
                f'{name}("owner"), or a list that has one, {name}(roles=["owner"])'
            )
        return select(_Call(self.function, tuple(given)))

    def value(self, schema_translate_map: Mapping[str | None, str | None] | None = None) -> SQLFunction:
        """Return the function as a value."""
        group, user = self._column(self.group), self._column(self.user)
        role = None if self.role is None else self._column(self.role)
        if len({one.table for one in (group, user, role) if one is not None}) > 1:
            raise DeclarationError(
                f"{self.function.name}() can't be declared: its columns belong to several tables. "
                "Give columns of one table"
            )
        self._check(group.table, user)
        translate = {None: CURRENT_SCHEMA, **(schema_translate_map or {})}
        body = str(select(group).where(auth_uid(user)).compile(**literally(translate)))
        if role is not None:
            name = str(role.compile(**literally(translate)))
            body += f" AND (cardinality($1) = 0 OR CAST({name} AS TEXT) = ANY ($1))"
        return made_function(
            self.function.name,
            schema=self.function.schema,
            arguments="" if role is None else "VARIADIC roles text[] DEFAULT '{}'",
            returns=f"SETOF {group.type.compile(_DIALECT)}",
            body=body,
            security_definer=True,
        )

    def _column(self, name: str) -> Column[Any]:
        table, _, column = name.rpartition(".")
        if (found := self.metadata.tables.get(table)) is None or column not in found.c:
            raise DeclarationError(
                f"{self.function.name}() can't be declared: no column {name!r} is in its MetaData. "
                "Name it as in a ForeignKey"
            )
        return found.c[column]

    def _check(self, table: Any, user: Column[Any]) -> None:
        flags = TableDeclarations.of(table).row_security
        if flags is not None and flags.forced:
            raise DeclarationError(
                f"{self.function.name}() would return nothing: row security of {table.fullname} is forced, "
                "and the function reads it as its owner. Remove force_row_level_security() from that table"
            )
        if family_of(user) == "citext":
            raise DeclarationError(
                f"{self.function.name}() can't be declared: it searches only pg_catalog, which has no "
                f"citext. Make {user} text"
            )
