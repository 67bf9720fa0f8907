"""Access to a row by a group that it belongs to, in a form that Postgres evaluates once per statement."""

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
    """A condition for the rows of a group, such as an organization, that the caller is a member of.

    For example::

        member_of(org_id, Membership.org_id, Membership.user_id)
        member_of(org_id, select(Membership.org_id).where(auth_uid(Membership.user_id), Membership.is_admin))

    Postgres reads the groups once per statement, and searches the index of the column for them.  With
    ``IN (SELECT …)`` or EXISTS in a policy, Postgres would read every row of the table.  A caller without
    groups sees no row.  No caller sees a row whose group is NULL.

    Postgres reads the memberships as the caller.  Their table needs a policy that shows callers their own
    rows, such as ``auth_uid(user_id)``.  A policy can't read its own table (42P17, infinite recursion).  To
    let members see or add colleagues, use ``memberships()``, whose function bypasses row security, or a
    claim.

    Args:
        column_: the column with the group of the row, in a class body, or its name.
        groups: the column with the group in the table of memberships, or a ``select()`` of one column.  To
            name a table that is declared later, use a function: ``read=lambda: member_of(Todo.org_id, …)``.
        user: the column with the user in the table of memberships; leave it out with a ``select()``.

    Raises:
        DeclarationError: the arguments are wrong, or the types can't be compared.  Also if the memberships
            name the table of the policy.

    Emits:
        ::

            todos.org_id = ANY (ARRAY(
                SELECT members.org_id FROM members WHERE (SELECT auth.uid()) = members.user_id))
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
                "member_of() failed: its arguments don't name the groups. Give the column with the row's "
                "group, then the columns of the memberships with group and user, or a select() of one column"
            )

    def check(self, table: Table) -> None:
        """Raise DeclarationError if a policy on *table* can't have this condition."""
        elements = list(visitors.iterate(self.groups))
        for element in elements:
            if isinstance(element, Select) and len(froms := element.get_final_froms()) > 1 and table in froms:
                raise DeclarationError(
                    f"member_of() in a policy on {table.fullname} failed: Postgres reads the memberships "
                    f"before any row, so they can't be compared with columns of {table.fullname}. Compare "
                    "them beside member_of(), or in an exists()"
                )
        if any(isinstance(element, Table) and element == table for element in elements):
            raise DeclarationError(
                f"member_of() in a policy on {table.fullname} failed: it reads {table.fullname} itself, and "
                "Postgres refuses such a query (42P17, infinite recursion). Let callers see their own rows "
                "with auth_uid(); for other rows, call the function that memberships() declares"
            )


@compiles(member_of)
def _member_of(element: member_of, compiler: SQLCompiler, **kw: Any) -> str:
    (group,) = element.groups.selected_columns
    families = family_of(element.column), family_of(group)
    if None not in families and families[0] != families[1]:
        raise DeclarationError(
            f"member_of() failed: it can't compare {element.column}, which is {element.column.type!r}, with "
            f"{group}, which is {group.type!r}. Give both one type, or cast() the group in a select()"
        )
    column = compiler.process(element.column, **kw)
    return f"{column} = ANY (ARRAY{compiler.process(element.groups.scalar_subquery(), **kw)})"


def _groups_of_caller(group: ColumnArgument, user: ColumnArgument) -> Select[Any]:
    tables = [getattr(column_of(one, "member_of"), "table", None) for one in (group, user)]
    if tables[0] is None or tables[0] != tables[1]:
        raise DeclarationError(
            "member_of() failed: the columns of group and user aren't of one table that is declared already. "
            "For a later table, use a function, read=lambda: member_of(…); for two tables, use a select()"
        )
    return select(group).where(auth_uid(user))
