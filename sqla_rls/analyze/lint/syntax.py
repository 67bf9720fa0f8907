"""Parts of expressions, by PostgreSQL's own parser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from sqla_rls.analyze.vocabulary.trees import nodes, spelled, trees
from sqla_rls.exc import AnalysisError


def expression(sql: str) -> Any:
    """Return the node of the expression *sql*, as pglast has it."""
    select = trees(f"SELECT {sql}")[0]
    return select.targetList[0].val


@dataclass(frozen=True, slots=True)
class ViewQuery:
    """A query of one relation."""

    #: The schema and the name of the relation.
    source: tuple[str, str]
    #: The names that FROM gives the first columns of the relation.
    renamed: tuple[str, ...]
    #: The columns of the relation, as FROM has them, by the names that the query gives them.
    columns: Mapping[str, str]


def columns_of_view(query: str) -> ViewQuery | None:
    """Return the relation in FROM, and its columns; None if a view of *query* isn't automatically updatable.

    Raises:
        AnalysisError: the parser doesn't know the syntax of the query.
    """
    from pglast.ast import ColumnRef, RangeVar, String
    from pglast.parser import ParseError

    try:
        select = trees(query)[0]
    except ParseError as error:
        raise AnalysisError(
            f"the writes of a view can't be tried: the parser doesn't know its query: {error}. Review them"
        ) from None
    sources = tuple(select.fromClause or ())
    if len(sources) != 1 or not isinstance(sources[0], RangeVar):
        return None
    source, alias = sources[0], cast(Any, sources[0].alias)
    renamed = () if alias is None else tuple(one.sval for one in alias.colnames or ())
    columns: dict[str, str] = {}
    for target in select.targetList or ():
        fields = target.val.fields if isinstance(target.val, ColumnRef) else None
        last = fields[-1] if fields else None
        if isinstance(last, String) and last.sval is not None:
            columns[target.name or last.sval] = last.sval
    return ViewQuery((source.schemaname or "", source.relname or ""), renamed, columns)


def required_settings(sql: str) -> Iterator[str]:
    """Yield the settings that *sql* reads by ``current_setting()``, and that must exist."""
    from pglast.ast import A_Const, Boolean, FuncCall, String, TypeCast

    for node in nodes(expression(sql)):
        if not isinstance(node, FuncCall) or node.funcname is None:
            continue
        *_, name = node.funcname
        arguments = list(node.args or ())
        if name.sval != "current_setting" or not arguments:
            continue
        first = arguments[0].arg if isinstance(arguments[0], TypeCast) else arguments[0]
        if not isinstance(first, A_Const) or not isinstance(first.val, String):
            continue
        is_optional = (
            len(arguments) > 1
            and isinstance(arguments[1], A_Const)
            and isinstance(arguments[1].val, Boolean)
            and arguments[1].val.boolval
        )
        # A setting without a dot is Postgres's own, and always exists.
        if not is_optional and "." in (first.val.sval or ""):
            yield first.val.sval or ""


@cache
def caller_parts(sql: str) -> tuple[str, ...]:
    """Return the largest parts of *sql* without a column and a table that call a function."""
    return tuple(dict.fromkeys(spelled(node) for node in _caller_parts(expression(sql))))


def _caller_parts(node: Any) -> list[Any]:
    parts, _, _ = _parts_inside(node)
    return parts


def _parts_inside(node: Any) -> tuple[list[Any], bool, bool]:
    """Return the parts in *node*, whether it calls a function, and whether it has no column and no table."""
    from pglast.ast import A_Const, BoolExpr, ColumnRef, FuncCall, Node, RangeVar, SQLValueFunction

    if isinstance(node, ColumnRef | RangeVar):
        return [], False, False
    if isinstance(node, A_Const) or not isinstance(node, Node | tuple | list):
        return [], False, True
    is_node = isinstance(node, Node)
    parts: list[Any] = []
    calls, is_alone = isinstance(node, FuncCall | SQLValueFunction), True
    for child in [getattr(node, name) for name in node] if is_node else node:
        inside, child_calls, child_is_alone = _parts_inside(child)
        parts += inside
        calls, is_alone = calls or child_calls, is_alone and child_is_alone
    if is_node and calls and is_alone and _is_expression(node) and not isinstance(node, BoolExpr):
        parts = [node]
    return parts, calls, is_alone


def _is_expression(node: Any) -> bool:
    """Whether *node* can stand behind SELECT; a ResTarget or a SelectStmt can't."""
    from pglast.ast import A_Expr, CaseExpr, CoalesceExpr, FuncCall, SubLink, TypeCast

    return isinstance(node, A_Expr | CaseExpr | CoalesceExpr | FuncCall | SubLink | TypeCast)
