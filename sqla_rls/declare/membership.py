"""Who may see a row because of a group that it belongs to: the fast form of membership."""

from __future__ import annotations

from typing import Any, overload

from sqlalchemy import Select, Table, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import SelectBase
from sqlalchemy.sql.visitors import InternalTraversal

from sqla_rls.declare.expressions import ColumnArgument, Condition, auth_uid, column_of, family_of
from sqla_rls.exc import DeclarationError


class member_of(Condition):
    """Whether the row belongs to a group, say an organization, that the caller is a member of.

    *column* holds the group of the row, as it stands in a class body, or its name.  Which groups are
    the caller's say *groups* and *user*, two columns of the table of memberships, or a ``select()`` of
    one column::

        member_of(org_id, Membership.org_id, Membership.user_id)
        member_of(org_id, select(Membership.org_id).where(auth_uid(Membership.user_id), Membership.is_admin))

    A table that is declared later is named in a function: ``read=lambda: member_of(Todo.org_id, …)``.
    Emitted::

        todos.org_id = ANY (ARRAY(
            SELECT members.org_id FROM members WHERE (SELECT auth.uid()) = members.user_id))

    The groups are read once per statement, and the index of *column* is searched for them.  Neither
    holds for ``IN (SELECT …)`` and EXISTS in a policy, which read every row of the table.  Who is a
    member of nothing sees nothing, nor does anybody see a row whose group is NULL.

    The memberships are read as the caller: their table needs a policy that shows callers their own,
    such as ``auth_uid(user_id)``.  A policy can't read its own table, for Postgres refuses the query then
    (42P17, infinite recursion): who may see colleagues, or add some, is for ``memberships()`` to say, whose
    function reads them past row security, or for a claim.

    Raises DeclarationError for that, for columns of types that can't be compared, and for memberships
    that name the row's own columns, since they are read before any row is.
    """

    __visit_name__ = "member_of"
    _traverse_internals = [  # noqa: RUF012
        ("column", InternalTraversal.dp_clauseelement),
        ("groups", InternalTraversal.dp_clauseelement),
    ]
    inherit_cache = True

    @overload
    def __init__(self, column_: ColumnArgument, groups: SelectBase) -> None: ...
    @overload
    def __init__(self, column_: ColumnArgument, groups: ColumnArgument, user: ColumnArgument) -> None: ...
    def __init__(self, column_: ColumnArgument, groups: Any, user: ColumnArgument | None = None) -> None:
        self.column = column_of(column_, "member_of")
        self.groups: SelectBase = groups if user is None else _groups_of_caller(groups, user)
        if not isinstance(self.groups, SelectBase) or len(self.groups.selected_columns) != 1:
            raise DeclarationError(
                "member_of() takes the group of the row, then two columns of the memberships, the group "
                "and the user, or a select() of one column"
            )

    def check(self, table: Table) -> None:
        """Raises DeclarationError if it can't stand in a policy on *table*."""
        elements = list(visitors.iterate(self.groups))
        for element in elements:
            if isinstance(element, Select) and len(froms := element.get_final_froms()) > 1 and table in froms:
                raise DeclarationError(
                    f"member_of() in a policy on {table.fullname}: the memberships are read before any row "
                    f"is, so they can't be compared with columns of {table.fullname}: do that beside "
                    "member_of(), or in an exists()"
                )
        if any(isinstance(element, Table) and element == table for element in elements):
            raise DeclarationError(
                f"member_of() in a policy on {table.fullname} reads {table.fullname} itself, and Postgres "
                "refuses the query then (42P17, infinite recursion): let callers see their own rows with "
                "auth_uid(); for what goes beyond, ask the function that memberships() declares"
            )


@compiles(member_of)
def _member_of(element: member_of, compiler: SQLCompiler, **kw: Any) -> str:
    (group,) = element.groups.selected_columns
    families = family_of(element.column), family_of(group)
    if None not in families and families[0] != families[1]:
        raise DeclarationError(
            f"member_of() compares {element.column}, which is {element.column.type!r}, with {group}, which "
            f"is {group.type!r}: make them alike, or cast() the group in a select()"
        )
    column = compiler.process(element.column, **kw)
    return f"{column} = ANY (ARRAY{compiler.process(element.groups.scalar_subquery(), **kw)})"


def _groups_of_caller(group: ColumnArgument, user: ColumnArgument) -> Select[Any]:
    tables = [getattr(column_of(one, "member_of"), "table", None) for one in (group, user)]
    if tables[0] is None or tables[0] != tables[1]:
        raise DeclarationError(
            "member_of() takes two columns of one table of memberships, which is declared already: in a "
            "class body name a later one in a function, read=lambda: member_of(…); join two in a select()"
        )
    return select(group).where(auth_uid(user))
