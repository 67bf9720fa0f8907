"""The columns whose values policies take from the caller, or from rows of the caller, for new rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from sqla_rls.analyze.lint.accesses import Access
from sqla_rls.analyze.lint.syntax import expression
from sqla_rls.analyze.vocabulary.trees import nodes, spelled
from sqla_rls.analyze.why.explanation import Command
from sqla_rls.analyze.why.predicates import conjuncts, joined_by_and
from sqla_rls.analyze.worlds.objects import PolicyText


def pinned_columns(access: Access, command: Command) -> frozenset[str]:
    """Return the columns of which each new row has a value of the caller's: their subject, their teams.

    Args:
        access: the access of a role to a table.
        command: INSERT or UPDATE.
    """
    return _in_each_row(access, command, _pinned_by)


def looked_up_columns(access: Access, command: Command) -> frozenset[str]:
    """Return the columns whose value each new row has in common with a row of a subquery.

    The caller's policies hold in the subquery: ``doc_id IN (SELECT id FROM docs)`` finds no hidden row.
    """
    return _in_each_row(access, command, _looked_up_by)


def _in_each_row(
    access: Access, command: Command, found_by: Callable[[str], frozenset[str]]
) -> frozenset[str]:
    permissive = [found_by(_condition(policy)) for policy in access.policies(command)]
    restrictive = [
        found_by(_condition(policy))
        for policy in access.table.policies
        if not policy.permissive
        and policy.name in access.profile.policies
        and policy.command in (command, "ALL")
    ]
    found = frozenset.intersection(*permissive) if permissive else frozenset()
    return found.union(*restrictive)


def _condition(policy: PolicyText) -> str:
    return _unwrapped((policy.check if policy.check is not None else policy.using) or "true")


@cache
def _unwrapped(condition: str) -> str:
    """Return the condition in ``(SELECT condition)``, as Drizzle writes it."""
    from pglast.ast import SelectStmt, SubLink
    from pglast.enums import SubLinkType

    node = expression(condition)
    if not isinstance(node, SubLink) or node.subLinkType != SubLinkType.EXPR_SUBLINK:
        return condition
    select: Any = node.subselect
    parts = ("fromClause", "whereClause", "havingClause", "limitCount", "limitOffset", "withClause", "larg")
    if not isinstance(select, SelectStmt) or any(getattr(select, part) for part in parts):
        return condition
    # VALUES has no targets.
    targets: Any = select.targetList or ()
    return _unwrapped(spelled(targets[0].val)) if len(targets) == 1 else condition


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


@cache
def _looked_up_by(condition: str) -> frozenset[str]:
    from pglast.ast import SubLink
    from pglast.enums import SubLinkType

    found: set[str | None] = set()
    for part in conjuncts(condition):
        node = expression(part.text)
        if not isinstance(node, SubLink):
            continue
        select: Any = node.subselect
        own = _sources(select)
        if node.subLinkType == SubLinkType.EXISTS_SUBLINK:
            found.update(_correlated(select, own))
        elif (
            node.subLinkType == SubLinkType.ANY_SUBLINK
            and _is_equality(node.operName)
            and own
            and all(_qualifier(target.val) in own for target in select.targetList)
        ):
            found.add(_column(node.testexpr))
    return frozenset(name for name in found if name is not None)


def _sources(select: Any) -> frozenset[str]:
    """Return the names of the relations in FROM, if each row of the query is one of theirs.

    An aggregate has a row without them, and so has a query of UNION.
    """
    from pglast.ast import A_Const, ColumnRef, RangeVar, SelectStmt
    from pglast.enums import SetOperation

    if (
        not isinstance(select, SelectStmt)
        or select.op != SetOperation.SETOP_NONE
        or any((select.withClause, select.havingClause, select.groupClause, select.sortClause))
        or not all(isinstance(target.val, ColumnRef | A_Const) for target in select.targetList or ())
    ):
        return frozenset()
    relations = [one for one in nodes(select.fromClause) if isinstance(one, RangeVar)]
    return frozenset(str(one.alias.aliasname if one.alias else one.relname) for one in relations)


def _correlated(select: Any, own: frozenset[str]) -> Iterator[str | None]:
    """Yield the columns of the outer row that an AND-ed equation of *select* compares with one of its own."""
    from pglast.ast import A_Expr

    for condition in joined_by_and(select.whereClause):
        if not isinstance(condition, A_Expr) or not _is_equality(condition.name):
            continue
        sides = (condition.lexpr, condition.rexpr)
        for side, other in (sides, sides[::-1]):
            if _qualifier(side) not in (None, *own) and _qualifier(other) in own:
                yield _column(side)


def _is_equality(name: Any) -> bool:
    return name is None or [one.sval for one in name] == ["="]


def _qualifier(node: Any) -> str | None:
    """Return the name of the table in a qualified column."""
    from pglast.ast import ColumnRef, String, TypeCast

    while isinstance(node, TypeCast):
        node = node.arg
    fields: Any = node.fields if isinstance(node, ColumnRef) else None
    if not fields or len(fields) < 2 or not isinstance(fields[-1], String):
        return None
    return str(fields[-2].sval)


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
