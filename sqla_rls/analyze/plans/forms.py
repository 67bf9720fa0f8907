"""Faster forms of a policy's expression, by PostgreSQL's own parser.

A form is a candidate: Postgres measures it, and worlds decide whether it admits the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.plans.tree import (
    any_of_array,
    cast_to,
    children,
    columns_of,
    conjunction,
    conjuncts,
    equality,
    is_a,
    is_comparison,
    is_equality,
    is_simple,
    operator_of,
    parsed,
    scalar_subquery,
    unqualified,
    with_children,
    without_subqueries,
)
from sqla_rls.analyze.sides.statements import require_parser
from sqla_rls.analyze.vocabulary.trees import nodes, spelled

Kind: TypeAlias = Literal["function_per_row", "slow_membership", "column_in_expression"]


@dataclass(frozen=True, slots=True)
class Compared:
    """A column, or an expression of one table's columns, that is compared with a value from elsewhere."""

    schema: str
    table: str
    expression: str
    #: The name of the column, if the expression is one.
    column: str | None


def faster_forms(
    expression: str, table: str, types: Mapping[str, str], volatile: Collection[str]
) -> list[tuple[Kind, str]]:
    """Return the forms of *expression* that may be faster, each with its kind.

    Args:
        expression: an expression of a policy, as Postgres prints it.
        table: the name of the policy's table, without its schema.
        types: the types of the table's columns.
        volatile: the names of volatile functions, without their schemas.
    """
    forms: list[tuple[Kind, Callable[[Any], Any]]] = [
        ("function_per_row", _Once(volatile)),
        ("slow_membership", _Membership(table)),
        ("column_in_expression", _Cast(types)),
    ]
    found: list[tuple[Kind, str]] = []
    for kind, form in forms:
        node = parsed(expression)
        if node is None:
            return []
        before = spelled(node)
        after = spelled(form(node))
        if after != before:
            found.append((kind, after))
    return found


def compared(expression: str, schema: str, table: str) -> list[Compared]:
    """Return the columns and expressions that an index could find rows by, also in subqueries."""
    node = parsed(expression)
    if node is None:
        return []
    found = list(_compared(node, {}, (schema, table)))
    return list(dict.fromkeys(found))


def calls(expression: str) -> list[str]:
    """Return the names of the functions that *expression* calls, without their schemas."""
    node = parsed(expression)
    if node is None:
        return []
    return list(dict.fromkeys(one.funcname[-1].sval for one in nodes(node) if is_a(one, "FuncCall")))


def is_read_only(statement: str) -> bool | None:
    """Return whether *statement* is one SELECT that neither writes nor locks rows; None if unparsable."""
    pglast = require_parser()
    try:
        found = pglast.parse_sql(statement)
    except pglast.parser.ParseError:
        return None
    if len(found) != 1 or not is_a(found[0].stmt, "SelectStmt"):
        return False
    return not any(
        is_a(one, "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause", "IntoClause")
        for one in nodes(found[0].stmt)
    )


def command_of(statement: str) -> str:
    """Return the command whose policies find the rows of *statement*."""
    pglast = require_parser()
    try:
        found = pglast.parse_sql(statement)
    except pglast.parser.ParseError:
        return "SELECT"
    name = type(found[0].stmt).__name__
    return {"UpdateStmt": "UPDATE", "DeleteStmt": "DELETE"}.get(name, "SELECT")


def with_condition(statement: str, condition: str) -> str | None:
    """Return *statement* with *condition* added to its WHERE; None if it has none, or isn't one statement."""
    pglast = require_parser()
    try:
        found = pglast.parse_sql(statement)
    except pglast.parser.ParseError:
        return None
    added = parsed(condition)
    if len(found) != 1 or added is None:
        return None
    node = found[0].stmt
    if not is_a(node, "SelectStmt", "UpdateStmt", "DeleteStmt") or getattr(node, "larg", None) is not None:
        return None
    node.whereClause = added if node.whereClause is None else conjunction([node.whereClause, added])
    return spelled(node)


class _Once:
    """Functions without columns become subqueries, which Postgres evaluates once."""

    def __init__(self, volatile: Collection[str]) -> None:
        self._volatile = frozenset(volatile)

    def __call__(self, node: Any) -> Any:
        if is_a(node, "SubLink"):
            return self._of_sublink(node)
        if self._is_constant(node) and self._has_call(node):
            return scalar_subquery(node)
        return with_children(node, self)

    def _of_sublink(self, node: Any) -> Any:
        from pglast.enums import SubLinkType

        select = node.subselect
        if node.testexpr is not None:
            node.testexpr = self(node.testexpr)
        if not is_simple(select):
            return node
        if node.subLinkType == SubLinkType.EXPR_SUBLINK and not select.fromClause:
            # (SELECT auth.user_id() = user_id) is evaluated for each row.
            value = select.targetList[0].val
            return node if self._is_constant(value) else self(value)
        if select.whereClause is not None:
            select.whereClause = self(select.whereClause)
        for one in nodes(select.fromClause or ()):
            if is_a(one, "JoinExpr") and one.quals is not None:
                one.quals = self(one.quals)
        return node

    def _is_constant(self, node: Any) -> bool:
        return not any(
            is_a(one, "ColumnRef", "ParamRef") or (is_a(one, "SubLink") and one.subselect.fromClause)
            for one in nodes(node)
        )

    def _has_call(self, node: Any) -> bool:
        found = [one for one in without_subqueries(node) if is_a(one, "FuncCall")]
        return bool(found) and not any(
            one.agg_star or one.over or one.funcname[-1].sval in self._volatile for one in found
        )


class _Membership:
    """IN (SELECT …) and EXISTS become = ANY (ARRAY(SELECT …)), which Postgres evaluates once."""

    def __init__(self, table: str) -> None:
        self._table = table

    def __call__(self, node: Any) -> Any:
        from pglast.enums import SubLinkType

        if not is_a(node, "SubLink"):
            return with_children(node, self)
        select = node.subselect
        if not is_simple(select):
            return node
        if node.subLinkType == SubLinkType.EXISTS_SUBLINK:
            return self._of_exists(node, select, list(conjuncts(select.whereClause)))
        if node.subLinkType != SubLinkType.ANY_SUBLINK or (node.operName and operator_of(node) != "="):
            return node
        if not self._outer(select):
            return any_of_array(node.testexpr, select)
        added = equality(select.targetList[0].val, node.testexpr)
        return self._of_exists(node, select, [*conjuncts(select.whereClause), added])

    def _of_exists(self, node: Any, select: Any, conditions: list[Any]) -> Any:
        from pglast import ast

        for condition in conditions:
            pair = self._pair(condition)
            if pair is None:
                continue
            rest = [one for one in conditions if one is not condition]
            if any(self._outer(one) for one in rest):
                continue
            outer, inner = pair
            made = copy.copy(select)
            made.targetList = (ast.ResTarget(val=inner),)
            made.whereClause = conjunction(rest) if rest else None
            made.limitCount = None
            return any_of_array(outer, made)
        return node

    def _pair(self, condition: Any) -> tuple[Any, Any] | None:
        """Return the side of an equality that is of the policy's table, and the other."""
        if not is_equality(condition):
            return None
        for outer, inner in ((condition.lexpr, condition.rexpr), (condition.rexpr, condition.lexpr)):
            if self._outer(outer) and not self._outer(inner) and len(columns_of(outer)) == 1:
                return outer, inner
        return None

    def _outer(self, node: Any) -> list[Any]:
        """Return the columns of the policy's table."""
        return [one for one in columns_of(node) if len(one.fields) > 1 and one.fields[-2].sval == self._table]


class _Cast:
    """A cast of a column becomes a cast of the value that it is compared with."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def __call__(self, node: Any) -> Any:
        from pglast.enums import A_Expr_Kind

        if not is_a(node, "A_Expr") or node.kind not in (A_Expr_Kind.AEXPR_OP, A_Expr_Kind.AEXPR_OP_ANY):
            return with_children(node, self)
        if operator_of(node) != "=":
            return node
        is_array = node.kind == A_Expr_Kind.AEXPR_OP_ANY
        for ours, theirs in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
            side, other = getattr(node, ours), getattr(node, theirs)
            if (
                not is_a(side, "TypeCast")
                or not is_a(side.arg, "ColumnRef")
                or (is_array and ours == "rexpr")
            ):
                continue
            type_ = self._types.get(side.arg.fields[-1].sval)
            if type_ is not None and not columns_of(other, inside=False):
                setattr(node, ours, side.arg)
                setattr(node, theirs, cast_to(other, type_ + ("[]" if is_array else "")))
                return node
        return node


def _compared(node: Any, names: Mapping[str, tuple[str, str]], own: tuple[str, str]) -> Iterator[Compared]:
    if is_a(node, "SubLink"):
        inner = dict(names)
        for one in nodes(node.subselect.fromClause or ()):
            if is_a(one, "RangeVar"):
                alias = one.alias.aliasname if one.alias is not None else one.relname
                inner[alias] = (one.schemaname or own[0], one.relname)
        if is_a(node.testexpr, "ColumnRef"):
            column = node.testexpr.fields[-1].sval
            yield Compared(*_table_of(node.testexpr, names, own), spelled(unqualified(node.testexpr)), column)
        elif node.testexpr is not None:
            yield from _compared(node.testexpr, names, own)
        for one in children(node.subselect):
            yield from _compared(one, inner, own)
        return
    if is_comparison(node):
        sides = (node.lexpr, node.rexpr)
        for side, other in (sides, sides[::-1]):
            tables = {_table_of(one, names, own) for one in columns_of(side)}
            others = {_table_of(one, names, own) for one in columns_of(other, inside=False)}
            if len(tables) != 1 or tables & others or any(is_a(one, "SubLink") for one in nodes(side)):
                continue
            (table,) = tables
            column = side.fields[-1].sval if is_a(side, "ColumnRef") else None
            yield Compared(*table, spelled(unqualified(copy.deepcopy(side))), column)
    for one in children(node):
        yield from _compared(one, names, own)


def _table_of(column: Any, names: Mapping[str, tuple[str, str]], own: tuple[str, str]) -> tuple[str, str]:
    if len(column.fields) > 1:
        return names.get(column.fields[-2].sval, own)
    return own
