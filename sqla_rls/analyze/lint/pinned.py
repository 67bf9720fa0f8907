"""The columns whose values policies take from the caller, for new rows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from sqla_rls.analyze.lint.accesses import Access, Command
from sqla_rls.analyze.lint.syntax import expression
from sqla_rls.analyze.why.predicates import conjuncts
from sqla_rls.analyze.worlds.objects import PolicyText


def pinned_columns(access: Access, command: Command) -> frozenset[str]:
    """Return the columns of which each new row has a value of the caller's: their subject, their teams.

    Args:
        access: the access of a role to a table.
        command: INSERT or UPDATE.
    """
    permissive = [_pinned(policy) for policy in access.policies(command)]
    restrictive = [
        _pinned(policy)
        for policy in access.table.policies
        if not policy.permissive
        and policy.name in access.profile.policies
        and policy.command in (command, "ALL")
    ]
    found = frozenset.intersection(*permissive) if permissive else frozenset()
    return found.union(*restrictive)


def _pinned(policy: PolicyText) -> frozenset[str]:
    return _pinned_by((policy.check if policy.check is not None else policy.using) or "true")


@cache
def _pinned_by(condition: str) -> frozenset[str]:
    found = set()
    for part in conjuncts(condition):
        if len(part.operands) != 2:
            continue
        sides = [expression(one) for one in part.operands]
        for side, other in (sides, sides[::-1]):
            column = _column(side)
            if column is not None and not any(_columns(other)):
                found.add(column)
    return frozenset(found)


def _column(node: Any) -> str | None:
    """Return the name of the column that *node* is, or that it casts."""
    from pglast.ast import ColumnRef, String, TypeCast

    while isinstance(node, TypeCast):
        node = node.arg
    if isinstance(node, ColumnRef) and node.fields and isinstance(node.fields[-1], String):
        return str(node.fields[-1].sval)
    return None


def _columns(node: Any) -> Iterator[Any]:
    """Yield the columns of the row in *node*; those of a subquery with FROM are its own."""
    from pglast.ast import ColumnRef, Node, SelectStmt

    if isinstance(node, tuple | list):
        for part in node:
            yield from _columns(part)
    elif isinstance(node, ColumnRef):
        yield node
    elif isinstance(node, Node) and not (isinstance(node, SelectStmt) and node.fromClause):
        for name in node:
            yield from _columns(getattr(node, name))
