"""The declarations of policies and of the flags of row security.

Each is a SchemaItem for ``__table_args__`` or a Core Table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    ColumnExpressionArgument,
    Table,
    false,
    literal_column,
    true,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.coercions import expect
from sqlalchemy.sql.elements import False_
from sqlalchemy.sql.roles import WhereHavingRole

from sqla_rls import snapshot as objects
from sqla_rls.ddl.compile import with_whole_text
from sqla_rls.declare.base import Declaration, Roles, TableDeclarations, as_roles
from sqla_rls.declare.expressions import Condition, OwnColumn, auth_uid
from sqla_rls.declare.membership import member_of
from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import COMMAND_PRIVILEGES, MAX_NAME_BYTES, PUBLIC, TableKey

#: An argument of ``where()``, SQL text, or a bool.  A function without arguments may return one of these: it
#: is called when the models are complete, for expressions that name tables declared later.
Expression: TypeAlias = (
    "ColumnExpressionArgument[bool] | str | bool | Callable[[], ColumnExpressionArgument[bool] | str | bool]"
)


_FALSE_OR_NONE = (False_, type(None))


class Policy(Declaration):
    """A policy, as in ``CREATE POLICY``.

    See https://www.postgresql.org/docs/current/sql-createpolicy.html.

    Args:
        name: the name.
        command: ALL, SELECT, INSERT, UPDATE or DELETE.
        roles: Role objects, which a migration creates if they are missing, or names.
        using: selects the rows that the roles can read, update or delete: a SQLAlchemy expression, SQL text
            or a bool.
        with_check: selects the new rows that the roles can write.
        permissive: False for a restrictive policy.
        imply_privileges: whether the roles get the privileges that *command* needs.  A restrictive policy
            implies none, and neither does one whose expressions are all False or ``false()``.

    Raises:
        DeclarationError: Postgres refuses such a policy.

    Emits:
        ``CREATE POLICY``, ``ENABLE ROW LEVEL SECURITY``, and ``GRANT`` for the implied privileges
    """

    __visit_name__ = "policy"
    enables = True

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
        # A list is refused in _check().
        self.command = command.upper() if isinstance(command, str) else str(command)
        self.name, self.permissive = name, permissive
        self.imply_privileges = imply_privileges
        self.roles = as_roles(roles)
        self.using, self.with_check = using, with_check
        self._check()
        others = () if with_check is using else _columns_in(with_check)
        self.mark([*_columns_in(using), *others])

    def __repr__(self) -> str:
        return f"policy {self.name!r}"

    def _check(self) -> None:
        if not self.name or len(self.name.encode()) > MAX_NAME_BYTES:
            raise DeclarationError(
                f"{self!r} can't be declared: Postgres would cut its name, or it is empty. "
                f"Give a name of 1 to {MAX_NAME_BYTES} bytes"
            )
        if self.command not in COMMAND_PRIVILEGES:
            raise DeclarationError(
                f"{self!r} can't be declared: {self.command} isn't a command of a policy. "
                f"Give one of {', '.join(COMMAND_PRIVILEGES)}"
            )
        if self.using is None and self.with_check is None:
            raise DeclarationError(
                f"{self!r} can't be declared: it has no expression. Give using= or with_check="
            )
        if self.command == "INSERT" and self.using is not None:
            raise DeclarationError(
                f"{self!r} can't be declared: INSERT reads no row. Give with_check=, not using="
            )
        if self.command in ("SELECT", "DELETE") and self.with_check is not None:
            raise DeclarationError(
                f"{self!r} can't be declared: {self.command} writes no row. Give using=, not with_check="
            )

    def attach(self, declarations: TableDeclarations) -> None:
        if any(other.name == self.name for other in declarations.items if isinstance(other, Policy)):
            raise DeclarationError(
                f"{self!r} is declared twice on table {declarations.table.fullname}: a name is unique. "
                "Give one of them another name"
            )
        super().attach(declarations)

    def expressions(
        self, table: Table, known: dict[int, ColumnElement[bool]]
    ) -> tuple[ColumnElement[bool] | None, ColumnElement[bool] | None]:
        """Return *using* and *with_check* with the columns of *table*.

        Args:
            table: the table of the policy, or a copy of it.
            known: a cache of expressions by the id of the declared one, since many policies share theirs.
        """

        for one in (self.using, self.with_check):
            if one is not None and id(one) not in known:
                whole = _element(one() if callable(one) and _is_made_later(one) else one)
                assert whole is not None
                known[id(one)] = self._at_home(whole, table)
        return known.get(id(self.using)), known.get(id(self.with_check))

    def _at_home(self, expression: ColumnElement[bool], table: Table) -> ColumnElement[bool]:
        def own(element: Any, **kw: Any) -> Any:
            if isinstance(element, OwnColumn):
                return self.column(table, element.name)
            if not isinstance(element, Column):
                return None
            copied = element.table is self.table and table is not self.table
            return self.column(table, element) if copied or element.table is None else None

        if type(expression) is auth_uid and isinstance(expression.column, Column | OwnColumn):
            # The most frequent condition, without the visits of its elements.
            column = own(expression.column)
            return expression if column is None else auth_uid(column)
        moved: ColumnElement[bool] = visitors.replacement_traverse(with_whole_text(expression), {}, own)
        for element in visitors.iterate(moved):
            if isinstance(element, member_of):
                # Both the copy and its source must pass the check.
                for home in (table, self.table):
                    if home is not None:
                        element.check(home)
        return moved

    def value(self, table: TableKey, using: str | None, with_check: str | None) -> objects.Policy:
        """Return the policy as a value, with SQL text for expressions."""
        return objects.Policy(
            table=table,
            name=self.name,
            permissive=self.permissive,
            command=self.command,
            roles=self.roles.names,
            using=using,
            with_check=with_check,
            imply_privileges=self.imply_privileges,
        )


def is_false(using: ColumnElement[bool] | None, with_check: ColumnElement[bool] | None) -> bool:
    """Return whether all expressions of a policy are the constant false; SQL text isn't parsed."""
    return isinstance(using, _FALSE_OR_NONE) and isinstance(with_check, _FALSE_OR_NONE)


class crud_policy(Declaration):
    """The policies of a table for one or more roles, as drizzle-orm's ``crudPolicy`` makes them.

    Args:
        role: the role or roles.
        read: selects the rows for SELECT: an expression, True for every row, or False for none.  None makes
            no policy for SELECT.
        modify: selects the rows for INSERT, UPDATE and DELETE, like *read*.  False makes drizzle's policies,
            which imply no privileges.  Use None unless you share the database with drizzle.

    Raises:
        DeclarationError: *read* and *modify* are both None.

    Emits:
        The policies ``crud-{role}-policy-select``, ``-insert``, ``-update`` and ``-delete``, and the other
        statements of ``Policy``.  ``-`` joins the names of several roles.
    """

    __visit_name__ = "crud_policy"

    def __init__(self, role: Roles, *, read: Expression | None, modify: Expression | None) -> None:
        role = as_roles(role)
        name = f"crud-{'-'.join(map(str, role))}-policy"
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
            raise DeclarationError(
                f"{name} can't be declared: read= and modify= are both None. Give one of them"
            )

    def __repr__(self) -> str:
        return f"crud_policy of {self.policies[0]!r}"

    def attach(self, declarations: TableDeclarations) -> None:
        for policy in self.policies:
            policy.take(declarations.table)
            policy.attach(declarations)


class enable_row_level_security(Declaration):
    """Row security for a table without policies: only its owner has access.

    A table with a policy doesn't need it.

    Emits:
        ``ENABLE ROW LEVEL SECURITY``
    """

    __visit_name__ = "enable_row_level_security"
    enables = True

    def __repr__(self) -> str:
        return "enable_row_level_security()"


class force_row_level_security(Declaration):
    """Policies that hold for the table's owner, too.

    Emits:
        ``FORCE ROW LEVEL SECURITY``
    """

    __visit_name__ = "force_row_level_security"
    enables = forces = True

    def __repr__(self) -> str:
        return "force_row_level_security()"


class disable_row_level_security(Declaration):
    """The explicit declaration that disables row security, and drops the table's policies.

    Without it, a table that loses its last declaration doesn't change in the database.

    Emits:
        ``DISABLE ROW LEVEL SECURITY``, and ``DROP POLICY`` for each policy
    """

    __visit_name__ = "disable_row_level_security"
    disables = True

    def __repr__(self) -> str:
        return "disable_row_level_security()"


def _element(expression: Expression | None) -> ColumnElement[bool] | None:
    """Return a SQLAlchemy expression; None for a function, which returns its expression later."""
    if isinstance(expression, Condition):
        return expression
    if isinstance(expression, bool):
        return true() if expression else false()
    if isinstance(expression, str):
        # In text(), a colon would start a parameter.
        return literal_column(expression.strip(), Boolean())
    if expression is None or _is_made_later(expression):
        return None
    return expect(WhereHavingRole, expression)


def _columns_in(expression: Expression | None) -> list[Column[Any]]:
    whole = _element(expression)
    if whole is None or (type(whole) is auth_uid and isinstance(whole.column, OwnColumn)):
        return []
    return [element for element in visitors.iterate(whole) if isinstance(element, Column)]


def _is_made_later(expression: Any) -> bool:
    return callable(expression) and not hasattr(expression, "__clause_element__")
