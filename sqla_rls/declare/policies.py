"""What tables declare: policies, roles, the flags of row security; privileges are in grants.py.

Each is a SchemaItem for ``__table_args__`` or a Core Table; collect.py makes values of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    ColumnExpressionArgument,
    Table,
    event,
    false,
    literal_column,
    true,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql import visitors
from sqlalchemy.sql.coercions import expect
from sqlalchemy.sql.roles import WhereHavingRole

from sqla_rls import snapshot as objects
from sqla_rls.declare.expressions import OwnColumn
from sqla_rls.declare.membership import member_of
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import COMMAND_PRIVILEGES, MAX_NAME_BYTES, PUBLIC, Role, RowSecurity, TableKey

if TYPE_CHECKING:
    from sqla_rls.declare.grants import grant

#: What ``where()`` takes, SQL text, or a bool; a function without arguments that returns one is called
#: when the models are complete, for expressions that name tables declared later.
Expression: TypeAlias = (
    "ColumnExpressionArgument[bool] | str | bool | Callable[[], ColumnExpressionArgument[bool] | str | bool]"
)
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
        raise NotImplementedError


class Policy(Declaration):
    """A policy, as in ``CREATE POLICY``.

    *command* is ALL, SELECT, INSERT, UPDATE or DELETE; *roles* Role objects, which are made where they
    are missing, or names; *using* and *with_check* SQLAlchemy expressions, SQL text or bool.
    Emitted: ``CREATE POLICY``, ``ENABLE ROW LEVEL SECURITY`` and, unless *permissive* or
    *imply_privileges* is false, the privileges that *command* needs.  Raises DeclarationError for a
    shape that Postgres refuses.
    Source: https://www.postgresql.org/docs/current/sql-createpolicy.html
    """

    __visit_name__ = "policy"

    def __init__(
        self,
        name: str,
        command: str = "ALL",
        roles: Roles = PUBLIC,
        using: Expression | None = None,
        with_check: Expression | None = None,
        *,
        permissive: bool = True,
        imply_privileges: bool = True,
    ) -> None:
        self.name, self.command, self.permissive = name, command.upper(), permissive
        self.imply_privileges = imply_privileges
        self.roles = as_roles(roles)
        self.using, self.with_check = using, with_check
        self._check()
        self._columns = Columns(
            self,
            (
                element
                for expression in (using, with_check)
                if (whole := _element(expression)) is not None
                for element in visitors.iterate(whole)
                if isinstance(element, Column)
            ),
        )

    def __repr__(self) -> str:
        return f"policy {self.name!r}"

    def _check(self) -> None:
        if not self.name or len(self.name.encode()) > MAX_NAME_BYTES:
            raise DeclarationError(f"{self!r}: a name has 1 to {MAX_NAME_BYTES} bytes; Postgres would cut it")
        if self.command not in COMMAND_PRIVILEGES:
            raise DeclarationError(
                f"{self!r}: {self.command} is no command of a policy; "
                f"take one of {', '.join(COMMAND_PRIVILEGES)}"
            )
        if self.using is None and self.with_check is None:
            raise DeclarationError(f"{self!r} has no expression: give using= or with_check=")
        if self.command == "INSERT" and self.using is not None:
            raise DeclarationError(
                f"{self!r}: INSERT has no row to look at yet: give with_check=, not using="
            )
        if self.command in ("SELECT", "DELETE") and self.with_check is not None:
            raise DeclarationError(f"{self!r}: {self.command} writes no row: give using=, not with_check=")

    def attach(self, declarations: TableDeclarations) -> None:
        if any(other.name == self.name for other in declarations.policies):
            raise DeclarationError(f"{self!r} is declared twice on table {declarations.table.fullname}")
        declarations.policies.append(self)

    def expressions(
        self, table: Table, known: dict[int, ColumnElement[bool]]
    ) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
        """*using* and *with_check* with the columns of *table*, which may be a copy of its own.

        *known* are those of its other policies, by the id of what was declared: many share theirs.
        """

        def resolved(expression: Expression | None) -> ColumnElement[bool] | None:
            if expression is None:
                return None
            if id(expression) not in known:
                whole = _element(
                    expression() if callable(expression) and _is_made_later(expression) else expression
                )
                assert whole is not None
                known[id(expression)] = self._at_home(whole, table)
            return known[id(expression)]

        return resolved(self.using), resolved(self.with_check)

    def _at_home(self, expression: ColumnElement[bool], table: Table) -> ColumnElement[bool]:
        def own(element: Any, **kw: Any) -> Any:
            if isinstance(element, OwnColumn):
                return self._columns.on(table, element.name)
            if not isinstance(element, Column):
                return None
            copied = element.table is self.table and table is not self.table
            return self._columns.on(table, element) if copied or element.table is None else None

        moved: ColumnElement[bool] = visitors.replacement_traverse(expression, {}, own)
        for element in visitors.iterate(moved):
            if isinstance(element, member_of):
                # What the source reads by its own name, the copy reads by its own.
                for home in (table, self.table):
                    if home is not None:
                        element.check(home)
        return moved

    def value(self, table: TableKey, using: str | None, with_check: str | None) -> objects.Policy:
        """The policy as a value, with SQL text for expressions."""
        names = frozenset(str(role) for role in self.roles)
        return objects.Policy(
            table=table,
            name=self.name,
            permissive=self.permissive,
            command=self.command,
            # TO PUBLIC swallows other roles.
            roles=frozenset({PUBLIC}) if PUBLIC in names else names,
            using=using,
            with_check=with_check,
            imply_privileges=self.imply_privileges,
        )


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


class crud_policy(Declaration):
    """The policies of a table for one role, or several, as drizzle-orm's ``crudPolicy`` makes them.

    *read* decides on SELECT, *modify* on INSERT, UPDATE and DELETE: an expression, True for every row,
    False for none, None to leave the commands out.
    Emitted: policies ``crud-{role}-policy-select``, ``-insert``, ``-update``, ``-delete`` (several
    roles are joined by ``-``), and what ``Policy`` emits beside each.
    """

    __visit_name__ = "crud_policy"

    def __init__(self, role: Roles, *, read: Expression | None, modify: Expression | None) -> None:
        name = f"crud-{'-'.join(str(one) for one in as_roles(role))}-policy"
        self.policies: list[Policy] = []
        if read is not None:
            self.policies.append(Policy(f"{name}-select", "SELECT", role, using=read))
        if modify is not None:
            self.policies += [
                Policy(f"{name}-insert", "INSERT", role, with_check=modify),
                Policy(f"{name}-update", "UPDATE", role, using=modify, with_check=modify),
                Policy(f"{name}-delete", "DELETE", role, using=modify),
            ]
        if not self.policies:
            raise DeclarationError(f"{name}: read= and modify= are both None, so there is nothing to declare")

    def __repr__(self) -> str:
        return f"crud_policy of {self.policies[0]!r}"

    def attach(self, declarations: TableDeclarations) -> None:
        for policy in self.policies:
            policy._set_parent_with_dispatch(declarations.table)


class enable_row_level_security(Declaration):
    """A table without policies, closed for all but its owner.  Emitted: ``ENABLE ROW LEVEL SECURITY``.

    A policy says as much.
    """

    __visit_name__ = "enable_row_level_security"

    def __repr__(self) -> str:
        return "enable_row_level_security()"

    def attach(self, declarations: TableDeclarations) -> None:
        declarations.enabled = True


class force_row_level_security(Declaration):
    """The policies hold for the table's owner, too.  Emitted: ``FORCE ROW LEVEL SECURITY``."""

    __visit_name__ = "force_row_level_security"

    def __repr__(self) -> str:
        return "force_row_level_security()"

    def attach(self, declarations: TableDeclarations) -> None:
        declarations.forced = True


class disable_row_level_security(Declaration):
    """The explicit word that opens a table: its policies go, and ``DISABLE ROW LEVEL SECURITY`` is emitted.

    Without it a table that lost its last declaration stays as it is in the database.
    """

    __visit_name__ = "disable_row_level_security"

    def __repr__(self) -> str:
        return "disable_row_level_security()"

    def attach(self, declarations: TableDeclarations) -> None:
        declarations.disabled = True


class TableDeclarations:
    """What one table declares.

    It hangs on the table as a listener, since that is what ``Table.to_metadata()`` takes along;
    ``Table.info`` would be rendered into migrations.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.policies: list[Policy] = []
        self.grants: list[grant] = []
        self.enabled = False
        self.forced = False
        self.disabled = False

    @classmethod
    def of(cls, table: Table, *, create: bool = False) -> TableDeclarations:
        """The declarations of *table*; an empty one, not kept, where there are none.

        A copy shares those of its source until it is declared more (*create*), which the source isn't.
        """
        for listener in reversed([*table.dispatch.after_create]):
            if isinstance(listener, cls) and (listener.table is table or not create):
                return listener
        found = cls(table)
        if create:
            found._begin_with(cls.of(table))
            event.listen(table, "after_create", found, propagate=True)
        return found

    def _begin_with(self, other: TableDeclarations) -> None:
        self.policies, self.grants = [*other.policies], [*other.grants]
        self.enabled, self.forced, self.disabled = other.enabled, other.forced, other.disabled

    def __call__(self, *_: Any, **kw: Any) -> None:
        """create_all.py emits what is declared; this listener only stays with the table."""

    @property
    def row_security(self) -> RowSecurity | None:
        """The flags of the table; None where they are nobody's business."""
        table = TableKey(self.table.schema, self.table.name)
        closed = self.policies or self.enabled or self.forced
        if not self.disabled:
            return RowSecurity(table=table, forced=self.forced) if closed else None
        if closed:
            raise DeclarationError(
                f"{self.table.fullname} has policies beside disable_row_level_security(): take one"
            )
        return RowSecurity(table=table, enabled=False)

    def __bool__(self) -> bool:
        return bool(self.policies or self.grants or self.enabled or self.forced or self.disabled)


def declare_on(table: Table, *declarations: Declaration) -> None:
    """Declare on a *table* that is there already what would stand in its ``__table_args__``."""
    for one in declarations:
        one._set_parent_with_dispatch(table)


def _element(expression: Expression | None) -> ColumnElement[bool] | None:
    """An expression as SQLAlchemy has it; None for one that is made later, by a function."""
    if isinstance(expression, bool):
        return true() if expression else false()
    if isinstance(expression, str):
        # Not text(): there a colon would be a parameter.
        return literal_column(expression.strip(), Boolean())
    if expression is None or _is_made_later(expression):
        return None
    return expect(WhereHavingRole, expression)


def _is_made_later(expression: Any) -> bool:
    return callable(expression) and not hasattr(expression, "__clause_element__")


def as_roles(roles: Roles) -> list[Role | str]:
    listed = [roles] if isinstance(roles, str | Role) else list(roles)
    if not listed:
        raise DeclarationError("name at least one role, or PUBLIC for everybody")
    by_name: dict[str, Role | str] = {**READY_MADE, "PUBLIC": PUBLIC}
    return [by_name.get(role, role) if isinstance(role, str) else role for role in listed]
