"""Faster forms of a policy's expression, by PostgreSQL's own parser.

A form is a candidate: Postgres measures it, and worlds decide whether it admits the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.sides.statements import require_parser

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
        node = _parsed(expression)
        if node is None:
            return []
        before = _spelled(node)
        after = _spelled(form(node))
        if after != before:
            found.append((kind, after))
    return found


def compared(expression: str, schema: str, table: str) -> list[Compared]:
    """Return the columns and expressions that an index could find rows by, also in subqueries."""
    node = _parsed(expression)
    if node is None:
        return []
    found = list(_compared(node, {}, (schema, table)))
    return list(dict.fromkeys(found))


def calls(expression: str) -> list[str]:
    """Return the names of the functions that *expression* calls, without their schemas."""
    node = _parsed(expression)
    if node is None:
        return []
    return list(dict.fromkeys(one.funcname[-1].sval for one in _all(node) if _is(one, "FuncCall")))


def is_read_only(statement: str) -> bool | None:
    """Whether *statement* is one SELECT that neither writes nor locks rows; None if it can't be parsed."""
    pglast = require_parser()
    try:
        found = pglast.parse_sql(statement)
    except pglast.parser.ParseError:
        return None
    if len(found) != 1 or not _is(found[0].stmt, "SelectStmt"):
        return False
    return not any(
        _is(one, "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt", "LockingClause", "IntoClause")
        for one in _all(found[0].stmt)
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
    added = _parsed(condition)
    if len(found) != 1 or added is None:
        return None
    node = found[0].stmt
    if not _is(node, "SelectStmt", "UpdateStmt", "DeleteStmt") or getattr(node, "larg", None) is not None:
        return None
    node.whereClause = added if node.whereClause is None else _and([node.whereClause, added])
    return _spelled(node)


class _Once:
    """Functions without columns become subqueries, which Postgres evaluates once."""

    def __init__(self, volatile: Collection[str]) -> None:
        self._volatile = frozenset(volatile)

    def __call__(self, node: Any) -> Any:
        if _is(node, "SubLink"):
            return self._of_sublink(node)
        if self._is_constant(node) and self._has_call(node):
            return _subquery(node)
        return _with_children(node, self)

    def _of_sublink(self, node: Any) -> Any:
        from pglast.enums import SubLinkType

        select = node.subselect
        if node.testexpr is not None:
            node.testexpr = self(node.testexpr)
        if not _is_simple(select):
            return node
        if node.subLinkType == SubLinkType.EXPR_SUBLINK and not select.fromClause:
            # (SELECT auth.user_id() = user_id) is evaluated for each row.
            value = select.targetList[0].val
            return node if self._is_constant(value) else self(value)
        if select.whereClause is not None:
            select.whereClause = self(select.whereClause)
        for one in _all(select.fromClause or ()):
            if _is(one, "JoinExpr") and one.quals is not None:
                one.quals = self(one.quals)
        return node

    def _is_constant(self, node: Any) -> bool:
        return not any(
            _is(one, "ColumnRef", "ParamRef") or (_is(one, "SubLink") and one.subselect.fromClause)
            for one in _all(node)
        )

    def _has_call(self, node: Any) -> bool:
        found = [one for one in _without_subqueries(node) if _is(one, "FuncCall")]
        return bool(found) and not any(
            one.agg_star or one.over or one.funcname[-1].sval in self._volatile for one in found
        )


class _Membership:
    """IN (SELECT …) and EXISTS become = ANY (ARRAY(SELECT …)), which Postgres evaluates once."""

    def __init__(self, table: str) -> None:
        self._table = table

    def __call__(self, node: Any) -> Any:
        from pglast.enums import SubLinkType

        if not _is(node, "SubLink"):
            return _with_children(node, self)
        select = node.subselect
        if not _is_simple(select):
            return node
        if node.subLinkType == SubLinkType.EXISTS_SUBLINK:
            return self._of_exists(node, select, list(_conjuncts(select.whereClause)))
        if node.subLinkType != SubLinkType.ANY_SUBLINK or (node.operName and _operator(node) != "="):
            return node
        if not self._outer(select):
            return _any_of(node.testexpr, select)
        added = _equal(select.targetList[0].val, node.testexpr)
        return self._of_exists(node, select, [*_conjuncts(select.whereClause), added])

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
            made.whereClause = _and(rest) if rest else None
            made.limitCount = None
            return _any_of(outer, made)
        return node

    def _pair(self, condition: Any) -> tuple[Any, Any] | None:
        """The side of an equality that is of the policy's table, and the other."""
        if not _is_equality(condition):
            return None
        for outer, inner in ((condition.lexpr, condition.rexpr), (condition.rexpr, condition.lexpr)):
            if self._outer(outer) and not self._outer(inner) and len(_columns(outer)) == 1:
                return outer, inner
        return None

    def _outer(self, node: Any) -> list[Any]:
        """The columns of the policy's table."""
        return [one for one in _columns(node) if len(one.fields) > 1 and one.fields[-2].sval == self._table]


class _Cast:
    """A cast of a column becomes a cast of the value that it is compared with."""

    def __init__(self, types: Mapping[str, str]) -> None:
        self._types = types

    def __call__(self, node: Any) -> Any:
        from pglast.enums import A_Expr_Kind

        if not _is(node, "A_Expr") or node.kind not in (A_Expr_Kind.AEXPR_OP, A_Expr_Kind.AEXPR_OP_ANY):
            return _with_children(node, self)
        if _operator(node) != "=":
            return node
        is_array = node.kind == A_Expr_Kind.AEXPR_OP_ANY
        for ours, theirs in (("lexpr", "rexpr"), ("rexpr", "lexpr")):
            side, other = getattr(node, ours), getattr(node, theirs)
            if not _is(side, "TypeCast") or not _is(side.arg, "ColumnRef") or (is_array and ours == "rexpr"):
                continue
            type_ = self._types.get(side.arg.fields[-1].sval)
            if type_ is not None and not _columns(other, inside=False):
                setattr(node, ours, side.arg)
                setattr(node, theirs, _cast(other, type_ + ("[]" if is_array else "")))
                return node
        return node


def _compared(node: Any, names: Mapping[str, tuple[str, str]], own: tuple[str, str]) -> Iterator[Compared]:
    if _is(node, "SubLink"):
        inner = dict(names)
        for one in _all(node.subselect.fromClause or ()):
            if _is(one, "RangeVar"):
                alias = one.alias.aliasname if one.alias is not None else one.relname
                inner[alias] = (one.schemaname or own[0], one.relname)
        if _is(node.testexpr, "ColumnRef"):
            column = node.testexpr.fields[-1].sval
            yield Compared(
                *_table_of(node.testexpr, names, own), _spelled(_unqualified(node.testexpr)), column
            )
        elif node.testexpr is not None:
            yield from _compared(node.testexpr, names, own)
        for one in _children(node.subselect):
            yield from _compared(one, inner, own)
        return
    if _is_comparison(node):
        sides = (node.lexpr, node.rexpr)
        for side, other in (sides, sides[::-1]):
            tables = {_table_of(one, names, own) for one in _columns(side)}
            others = {_table_of(one, names, own) for one in _columns(other, inside=False)}
            if len(tables) != 1 or tables & others or any(_is(one, "SubLink") for one in _all(side)):
                continue
            (table,) = tables
            column = side.fields[-1].sval if _is(side, "ColumnRef") else None
            yield Compared(*table, _spelled(_unqualified(copy.deepcopy(side))), column)
    for one in _children(node):
        yield from _compared(one, names, own)


def _table_of(column: Any, names: Mapping[str, tuple[str, str]], own: tuple[str, str]) -> tuple[str, str]:
    if len(column.fields) > 1:
        return names.get(column.fields[-2].sval, own)
    return own


def _unqualified(node: Any) -> Any:
    for one in _all(node):
        if _is(one, "ColumnRef"):
            one.fields = one.fields[-1:]
    return node


def _is_comparison(node: Any) -> bool:
    from pglast.enums import A_Expr_Kind

    if not _is(node, "A_Expr") or node.lexpr is None:
        return False
    if node.kind == A_Expr_Kind.AEXPR_OP:
        return _operator(node) in ("=", "<", ">", "<=", ">=")
    return bool(node.kind == A_Expr_Kind.AEXPR_OP_ANY) and _operator(node) == "="


def _is_equality(node: Any) -> bool:
    from pglast.enums import A_Expr_Kind

    return _is(node, "A_Expr") and node.kind == A_Expr_Kind.AEXPR_OP and _operator(node) == "="


def _is_simple(select: Any) -> bool:
    return _is(select, "SelectStmt") and not any(
        getattr(select, name)
        for name in ("groupClause", "havingClause", "windowClause", "valuesLists", "withClause", "larg")
    )


def _operator(node: Any) -> str:
    name: str = (node.operName if _is(node, "SubLink") else node.name)[-1].sval
    return name


def _conjuncts(node: Any) -> Iterator[Any]:
    from pglast.enums import BoolExprType

    if node is None:
        return
    if _is(node, "BoolExpr") and node.boolop == BoolExprType.AND_EXPR:
        for one in node.args:
            yield from _conjuncts(one)
    else:
        yield node


def _and(nodes: list[Any]) -> Any:
    from pglast import ast
    from pglast.enums import BoolExprType

    return nodes[0] if len(nodes) == 1 else ast.BoolExpr(boolop=BoolExprType.AND_EXPR, args=tuple(nodes))


def _equal(left: Any, right: Any) -> Any:
    from pglast import ast
    from pglast.enums import A_Expr_Kind

    return ast.A_Expr(kind=A_Expr_Kind.AEXPR_OP, name=(ast.String("="),), lexpr=left, rexpr=right)


def _any_of(value: Any, select: Any) -> Any:
    from pglast import ast
    from pglast.enums import A_Expr_Kind, SubLinkType

    array = ast.SubLink(subLinkType=SubLinkType.ARRAY_SUBLINK, subselect=select)
    return ast.A_Expr(kind=A_Expr_Kind.AEXPR_OP_ANY, name=(ast.String("="),), lexpr=value, rexpr=array)


def _subquery(value: Any) -> Any:
    from pglast import ast
    from pglast.enums import LimitOption, SetOperation, SubLinkType

    select = ast.SelectStmt(
        targetList=(ast.ResTarget(val=value),),
        op=SetOperation.SETOP_NONE,
        limitOption=LimitOption.LIMIT_OPTION_DEFAULT,
    )
    return ast.SubLink(subLinkType=SubLinkType.EXPR_SUBLINK, subselect=select)


def _cast(value: Any, type_: str) -> Any:
    made: Any = require_parser().parse_sql(f"SELECT CAST(NULL AS {type_})")[0].stmt.targetList[0].val
    made.arg = value
    return made


def _parsed(expression: str) -> Any:
    pglast = require_parser()
    try:
        found = pglast.parse_sql(f"SELECT {expression}")
    except pglast.parser.ParseError:
        # The server may know syntax that the parser doesn't.
        return None
    if len(found) != 1 or len(found[0].stmt.targetList or ()) != 1:
        return None
    return found[0].stmt.targetList[0].val


def _spelled(node: Any) -> str:
    from pglast.stream import RawStream

    text: str = RawStream()(node)
    return text


def _is(node: Any, *names: str) -> bool:
    return type(node).__name__ in names


def _children(node: Any) -> Iterator[Any]:
    from pglast.ast import Node

    if isinstance(node, tuple | list):
        for one in node:
            if isinstance(one, Node | tuple):
                yield one
    elif isinstance(node, Node):
        for name in node:
            value = getattr(node, name)
            if isinstance(value, Node | tuple):
                yield value


def _all(node: Any) -> Iterator[Any]:
    yield node
    for one in _children(node):
        yield from _all(one)


def _without_subqueries(node: Any) -> Iterator[Any]:
    yield node
    if not _is(node, "SubLink"):
        for one in _children(node):
            yield from _without_subqueries(one)


def _columns(node: Any, *, inside: bool = True) -> list[Any]:
    """The columns in *node*, with those *inside* of its subqueries or without them."""
    return [one for one in (_all(node) if inside else _without_subqueries(node)) if _is(one, "ColumnRef")]


def _with_children(node: Any, change: Callable[[Any], Any]) -> Any:
    """Replace the children of *node* that are expressions."""
    from pglast.ast import Node

    if isinstance(node, tuple):
        return tuple(_replaced(one, change) for one in node)
    for name in node:
        value = getattr(node, name)
        if isinstance(value, Node | tuple) and name not in ("name", "funcname", "typeName", "operName"):
            setattr(node, name, _replaced(value, change))
    return node


def _replaced(node: Any, change: Callable[[Any], Any]) -> Any:
    from pglast.ast import Node

    if isinstance(node, tuple):
        return tuple(_replaced(one, change) for one in node)
    return change(node) if isinstance(node, Node) else node
