"""The tree of an expression, by PostgreSQL's own parser: its parts, new nodes, and replaced ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqla_rls.analyze.sides.statements import require_parser
from sqla_rls.analyze.vocabulary.trees import nodes


def unqualified(node: Any) -> Any:
    """Return *node* with the names of its columns alone."""
    for one in nodes(node):
        if is_a(one, "ColumnRef"):
            one.fields = one.fields[-1:]
    return node


def is_comparison(node: Any) -> bool:
    """Return whether *node* compares two values in a way that an index serves."""
    from pglast.enums import A_Expr_Kind

    if not is_a(node, "A_Expr") or node.lexpr is None:
        return False
    if node.kind == A_Expr_Kind.AEXPR_OP:
        return operator_of(node) in ("=", "<", ">", "<=", ">=")
    return bool(node.kind == A_Expr_Kind.AEXPR_OP_ANY) and operator_of(node) == "="


def is_equality(node: Any) -> bool:
    """Return whether *node* compares two values by ``=``."""
    from pglast.enums import A_Expr_Kind

    return is_a(node, "A_Expr") and node.kind == A_Expr_Kind.AEXPR_OP and operator_of(node) == "="


def is_simple(select: Any) -> bool:
    """Return whether *select* neither groups, nor combines queries."""
    return is_a(select, "SelectStmt") and not any(
        getattr(select, name)
        for name in ("groupClause", "havingClause", "windowClause", "valuesLists", "withClause", "larg")
    )


def operator_of(node: Any) -> str:
    """Return the operator of *node*."""
    name: str = (node.operName if is_a(node, "SubLink") else node.name)[-1].sval
    return name


def conjuncts(node: Any) -> Iterator[Any]:
    """Yield the parts of *node* that AND joins."""
    from pglast.enums import BoolExprType

    if node is None:
        return
    if is_a(node, "BoolExpr") and node.boolop == BoolExprType.AND_EXPR:
        for one in node.args:
            yield from conjuncts(one)
    else:
        yield node


def conjunction(parts: list[Any]) -> Any:
    """Return *parts* joined by AND."""
    from pglast import ast
    from pglast.enums import BoolExprType

    return parts[0] if len(parts) == 1 else ast.BoolExpr(boolop=BoolExprType.AND_EXPR, args=tuple(parts))


def equality(left: Any, right: Any) -> Any:
    """Return ``left = right``."""
    from pglast import ast
    from pglast.enums import A_Expr_Kind

    return ast.A_Expr(kind=A_Expr_Kind.AEXPR_OP, name=(ast.String("="),), lexpr=left, rexpr=right)


def any_of_array(value: Any, select: Any) -> Any:
    """Return ``value = ANY (ARRAY(select))``."""
    from pglast import ast
    from pglast.enums import A_Expr_Kind, SubLinkType

    array = ast.SubLink(subLinkType=SubLinkType.ARRAY_SUBLINK, subselect=select)
    return ast.A_Expr(kind=A_Expr_Kind.AEXPR_OP_ANY, name=(ast.String("="),), lexpr=value, rexpr=array)


def scalar_subquery(value: Any) -> Any:
    """Return ``(SELECT value)``."""
    from pglast import ast
    from pglast.enums import LimitOption, SetOperation, SubLinkType

    select = ast.SelectStmt(
        targetList=(ast.ResTarget(val=value),),
        op=SetOperation.SETOP_NONE,
        limitOption=LimitOption.LIMIT_OPTION_DEFAULT,
    )
    return ast.SubLink(subLinkType=SubLinkType.EXPR_SUBLINK, subselect=select)


def cast_to(value: Any, type_: str) -> Any:
    """Return ``CAST(value AS type_)``."""
    made: Any = require_parser().parse_sql(f"SELECT CAST(NULL AS {type_})")[0].stmt.targetList[0].val
    made.arg = value
    return made


def parsed(expression: str) -> Any:
    """Return the node of *expression*; None if the parser can't read it."""
    pglast = require_parser()
    try:
        found = pglast.parse_sql(f"SELECT {expression}")
    except pglast.parser.ParseError:
        # The server may know syntax that the parser doesn't.
        return None
    if len(found) != 1 or len(found[0].stmt.targetList or ()) != 1:
        return None
    return found[0].stmt.targetList[0].val


def is_a(node: Any, *names: str) -> bool:
    """Return whether *node* is of a class of these names."""
    return type(node).__name__ in names


def children(node: Any) -> Iterator[Any]:
    """Yield the nodes directly in *node*."""
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


def without_subqueries(node: Any) -> Iterator[Any]:
    """Yield *node* and the nodes in it, but for those of subqueries."""
    yield node
    if not is_a(node, "SubLink"):
        for one in children(node):
            yield from without_subqueries(one)


def columns_of(node: Any, *, inside: bool = True) -> list[Any]:
    """Return the columns in *node*, with those *inside* of its subqueries or without them."""
    return [one for one in (nodes(node) if inside else without_subqueries(node)) if is_a(one, "ColumnRef")]


def with_children(node: Any, change: Callable[[Any], Any]) -> Any:
    """Return *node* with changed children, where these are expressions."""
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
