"""The ways to weaken a predicate in one place, by PostgreSQL's own parser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqla_rls.analyze.vocabulary.trees import nodes, spelled
from sqla_rls.exc import AnalysisError

WeakeningKind: TypeAlias = Literal["conjunct", "correlation", "column"]
#: The names and types of columns by the schema and the name of the table.
Columns: TypeAlias = Mapping[tuple[str, str], Mapping[str, str]]

#: The most columns that replace one column of a comparison.
_MOST_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class Weakening:
    """A predicate that differs from another one in one place."""

    kind: WeakeningKind
    predicate: str
    #: The condition that is missing, or has another column.
    condition: str
    #: The columns before and after.
    columns: tuple[str, str] | None = None


def weakenings(predicate: str, table: tuple[str, str], columns: Columns) -> list[Weakening]:
    """Return the ways to weaken *predicate*, a predicate of a policy on *table*.

    A condition is missing, in the predicate or in a subquery; or a comparison has another column of the same
    type.  Postgres may refuse some.

    Args:
        predicate: the text as Postgres prints it, with the names of tables qualified.
        table: the schema and the name of the table.
        columns: the columns of all tables.

    Raises:
        AnalysisError: the parser is missing.
    """
    try:
        import pglast
    except ImportError:
        raise AnalysisError(
            "predicates can't be weakened: PostgreSQL's parser is missing. Install sqla-rls[analyze]"
        ) from None
    try:
        number = len(list(_walk(predicate, table, columns)))
    except pglast.parser.ParseError:
        # The server may know syntax that the parser doesn't.
        return []
    found: dict[str, Weakening] = {}
    for place in range(number):
        # Each change is made to a tree of its own.
        tree = _Tree(predicate, table, columns)
        site = list(tree.sites())[place]
        site.change()
        text = tree.text()
        if text != _Tree(predicate, table, columns).text():
            found.setdefault(text, Weakening(site.kind, text, site.condition, site.columns))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Site:
    kind: WeakeningKind
    condition: str
    change: Callable[[], None]
    columns: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Scope:
    """The tables of a query by their aliases, and the queries around it."""

    tables: Mapping[str, tuple[str, str]]
    outer: _Scope | None = None


def _walk(predicate: str, table: tuple[str, str], columns: Columns) -> Iterator[_Site]:
    return _Tree(predicate, table, columns).sites()


class _Tree:
    def __init__(self, predicate: str, table: tuple[str, str], columns: Columns) -> None:
        import pglast

        self.statement: Any = pglast.parse_sql(f"SELECT {predicate}")[0].stmt
        self.table, self.columns = table, columns

    def text(self) -> str:
        return spelled(self.statement.targetList[0].val)

    def sites(self) -> Iterator[_Site]:
        scope = _Scope({self.table[1]: self.table})
        yield from self._inside(self.statement.targetList[0].val, scope, positive=True)

    def _inside(self, node: Any, scope: _Scope, *, positive: bool | None) -> Iterator[_Site]:
        """Yield the sites in *node*; *positive* is None where a missing condition may do either."""
        from pglast import ast
        from pglast.enums import BoolExprType, SubLinkType

        if isinstance(node, tuple | list):
            for one in node:
                yield from self._inside(one, scope, positive=positive)
            return
        if not isinstance(node, ast.Node):
            return
        if isinstance(node, ast.BoolExpr):
            if node.boolop == BoolExprType.NOT_EXPR:
                yield from self._inside(node.args, scope, positive=None if positive is None else not positive)
                return
            weakens = BoolExprType.OR_EXPR if positive is False else BoolExprType.AND_EXPR
            if node.boolop == weakens:
                for place, argument in enumerate(node.args or ()):
                    yield self._missing(argument, scope, _without_argument(node, place))
            yield from self._inside(node.args, scope, positive=positive)
        elif isinstance(node, ast.SubLink):
            keeps = node.subLinkType in (
                SubLinkType.EXISTS_SUBLINK,
                SubLinkType.ANY_SUBLINK,
                SubLinkType.ARRAY_SUBLINK,
            )
            if node.testexpr is not None:
                yield from self._other_columns(node, "testexpr", scope, node)
                yield from self._inside(node.testexpr, scope, positive=None)
            yield from self._in_query(node.subselect, scope, positive=positive if keeps else None)
        elif isinstance(node, ast.SelectStmt):
            yield from self._in_query(node, scope, positive=None)
        else:
            if isinstance(node, ast.A_Expr):
                for side in ("lexpr", "rexpr"):
                    yield from self._other_columns(node, side, scope, node)
            # A comparison with an array of a subquery is true for more rows if the array has more.
            inner = positive if isinstance(node, ast.A_Expr) and _is_any(node) else None
            for name in node:
                yield from self._inside(getattr(node, name), scope, positive=inner)

    def _in_query(self, select: Any, outer: _Scope, *, positive: bool | None) -> Iterator[_Site]:
        from pglast.ast import BoolExpr
        from pglast.enums import BoolExprType

        for half in (select.larg, select.rarg):
            if half is not None:
                yield from self._in_query(half, outer, positive=positive)
        scope = _Scope(dict(_tables(select.fromClause)), outer)
        where = select.whereClause
        for target in select.targetList or ():
            yield from self._other_columns(target, "val", scope, target)
            yield from self._inside(target.val, scope, positive=None)
        for one in select.fromClause or ():
            yield from self._inside(one, scope, positive=positive)
        if where is None:
            return
        is_and = isinstance(where, BoolExpr) and where.boolop == BoolExprType.AND_EXPR
        if not is_and and positive is not False:
            yield self._missing(where, scope, _setting(select, "whereClause", None))
        yield from self._inside(where, scope, positive=positive)

    def _missing(self, condition: Any, scope: _Scope, change: Callable[[], None]) -> _Site:
        correlates = scope.outer is not None and self._names_outer(condition, scope)
        return _Site("correlation" if correlates else "conjunct", spelled(condition), change)

    def _names_outer(self, node: Any, scope: _Scope) -> bool:
        from pglast.ast import ColumnRef

        references = (one for one in nodes(node) if isinstance(one, ColumnRef))
        found = (self._resolved(reference, scope) for reference in references)
        return any(one is not None and one[0] is not scope for one in found)

    def _other_columns(self, node: Any, attribute: str, scope: _Scope, shown: Any) -> Iterator[_Site]:
        from pglast.ast import ColumnRef, String, TypeCast

        holder, name = node, attribute
        while isinstance(getattr(holder, name), TypeCast):
            holder, name = getattr(holder, name), "arg"
        reference = getattr(holder, name)
        if not isinstance(reference, ColumnRef) or (found := self._resolved(reference, scope)) is None:
            return
        _, key, old = found
        types = self.columns[key]
        others = [other for other in types if other != old and types[other] == types[old]]
        for other in others[:_MOST_COLUMNS]:
            fields = (*(reference.fields or ())[:-1], String(sval=other))
            yield _Site(
                "column", spelled(shown), _setting(holder, name, ColumnRef(fields=fields)), (old, other)
            )

    def _resolved(self, reference: Any, scope: _Scope | None) -> tuple[_Scope, tuple[str, str], str] | None:
        """Return the query, the table and the name of the column; None if it is no column of a table."""
        from pglast.ast import String

        names = [str(field.sval) for field in reference.fields or () if isinstance(field, String)]
        if len(names) != len(reference.fields or ()) or not names:
            return None
        column = names[-1]
        while scope is not None:
            for alias, key in scope.tables.items():
                is_named = len(names) == 1 or names[-2] == alias or tuple(names[-3:-1]) == key
                if is_named and column in self.columns.get(key, ()):
                    return scope, key, column
            scope = scope.outer
        return None


def _tables(items: Any) -> Iterator[tuple[str, tuple[str, str]]]:
    from pglast.ast import JoinExpr, RangeVar

    for item in items or ():
        if isinstance(item, RangeVar):
            alias = item.relname if item.alias is None else item.alias.aliasname
            yield str(alias), (str(item.schemaname or "pg_catalog"), str(item.relname))
        elif isinstance(item, JoinExpr):
            yield from _tables((item.larg, item.rarg))


def _is_any(node: Any) -> bool:
    from pglast.enums import A_Expr_Kind

    return bool(node.kind == A_Expr_Kind.AEXPR_OP_ANY)


def _without_argument(node: Any, place: int) -> Callable[[], None]:
    def change() -> None:
        node.args = (*node.args[:place], *node.args[place + 1 :])

    return change


def _setting(node: Any, attribute: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(node, attribute, value)
