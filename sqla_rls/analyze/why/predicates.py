"""The parts of a predicate, by PostgreSQL's own parser.

The parser is libpg_query, in the package pglast of the extra ``analyze``.  Without it a predicate has one
part, itself, and no operands.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqla_rls.analyze.vocabulary.trees import spelled, trees


@dataclass(frozen=True, slots=True)
class Conjunct:
    """One of the conditions that a predicate joins with AND."""

    text: str
    #: The two sides of a comparison; empty if it is none.
    operands: tuple[str, ...] = ()


def conjuncts(predicate: str) -> list[Conjunct]:
    """Return the conditions that *predicate* joins with AND, from left to right."""
    with suppress(ImportError):
        return _split(predicate)
    return [Conjunct(predicate)]


def _split(predicate: str) -> list[Conjunct]:
    import pglast

    try:
        select: Any = trees(f"SELECT {predicate}")[0]
        node = select.targetList[0].val
    except pglast.parser.ParseError:
        # The server may know syntax that the parser doesn't.
        return [Conjunct(predicate)]
    parts = list(joined_by_and(node))
    if len(parts) == 1:
        return [Conjunct(predicate, _operands(node))]
    return [Conjunct(spelled(part), _operands(part)) for part in parts]


def joined_by_and(node: Any) -> list[Any]:
    """Return the conditions that the expression *node* of pglast joins with AND."""
    from pglast.ast import BoolExpr
    from pglast.enums import BoolExprType

    if isinstance(node, BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
        return [part for argument in node.args or () for part in joined_by_and(argument)]
    return [node]


def _operands(node: Any) -> tuple[str, ...]:
    from pglast.ast import A_Const, A_Expr
    from pglast.enums import A_Expr_Kind

    compared = (
        A_Expr_Kind.AEXPR_OP,
        A_Expr_Kind.AEXPR_OP_ANY,
        A_Expr_Kind.AEXPR_OP_ALL,
        A_Expr_Kind.AEXPR_DISTINCT,
        A_Expr_Kind.AEXPR_NOT_DISTINCT,
    )
    if not isinstance(node, A_Expr) or node.kind not in compared or node.lexpr is None:
        return ()
    sides = [node.lexpr, node.rexpr]
    return tuple(spelled(side) for side in sides if not isinstance(side, A_Const))
