"""The condition of a policy in words, by PostgreSQL's own parser: "own rows", "rows of my teams".

The words describe an expression and decide nothing.  A part without words of its own is shown as SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqla_rls.analyze.matrix.operands import Operand, Operands, call_in_words
from sqla_rls.analyze.matrix.phrases import (
    Phrase,
    all_of,
    all_rows_if,
    any_of,
    rows_of_members,
    rows_where,
    rows_with_flag,
)
from sqla_rls.analyze.matrix.tree import (
    alias,
    bare,
    correlation,
    is_equality,
    is_of,
    is_plain,
    is_scalar,
    operator,
    parse,
)
from sqla_rls.analyze.vocabulary.trees import spelled
from sqla_rls.analyze.worlds.objects import Function

_COMPARED: Final[Mapping[str, str]] = {
    "=": "is",
    "<>": "isn't",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
}


class ConditionWords:
    """Puts the conditions of a relation into words.

    Args:
        columns: the columns of the relation.
        functions: the functions of the database: one without arguments may stand for its value.
        required: the columns that are NOT NULL.
        names_owner: name the column of "own rows", since several columns hold callers.
    """

    def __init__(
        self,
        columns: Collection[str],
        functions: Mapping[str, Function],
        *,
        required: Collection[str] = (),
        names_owner: bool = False,
    ) -> None:
        self._operands = Operands(columns, functions)
        self._required = required
        self._names_owner = names_owner
        #: The columns that were compared with the caller.
        self.owners: set[str] = set()

    def of(self, permissive: Sequence[str], restrictive: Sequence[str] = ()) -> str:
        """Return the rows that one of *permissive* and all of *restrictive* admit.

        Raises:
            AnalysisError: pglast isn't installed.
        """
        parts = [any_of([self._expression(sql) for sql in permissive])]
        parts += [self._expression(sql) for sql in restrictive]
        return all_of(parts, first=parts[0]).noun

    def of_query(self, sql: str) -> str | None:
        """Return the rows that the WHERE of a simple query admits; None if it has none, or isn't simple."""
        node = parse(sql)
        if node is None or not is_plain(node) or node.whereClause is None:
            return None
        return self._condition(node.whereClause).noun

    def _expression(self, sql: str) -> Phrase:
        node = parse(f"SELECT {sql}")
        if node is None:
            return rows_where(" ".join(sql.split()))
        return self._condition(node.targetList[0].val)

    # Conditions

    def _condition(self, node: Any) -> Phrase:
        found = self._named(node)
        return rows_where(spelled(node)) if found is None else found

    def _named(self, node: Any) -> Phrase | None:
        match type(node).__name__:
            case "BoolExpr":
                return self._boolean(node)
            case "A_Const" if type(node.val).__name__ == "Boolean":
                return Phrase("all rows", "true") if node.val.boolval else Phrase("no rows", "false")
            case "ColumnRef":
                name = self._operands.column(node)
                return None if name is None else rows_with_flag(name, is_set=True)
            case "BooleanTest":
                return self._test(node)
            case "NullTest":
                return self._null(node)
            case "A_Expr":
                return self._comparison(node)
            case "SubLink":
                return self._subquery(node)
            case "TypeCast":
                return self._named(node.arg)
            case _:
                return None

    def _boolean(self, node: Any) -> Phrase:
        parts = node.args
        match node.boolop.name:
            case "AND_EXPR":
                return all_of([self._condition(one) for one in parts])
            case "OR_EXPR":
                return any_of([self._condition(one) for one in parts])
            case _:
                return self._negated(parts[0])

    def _negated(self, node: Any) -> Phrase:
        name = self._operands.column(node)
        if name is not None:
            return rows_with_flag(name, is_set=False)
        inner = self._condition(node)
        return rows_where(f"not {inner.clause if inner.clause.startswith('(') else f'({inner.clause})'}")

    def _test(self, node: Any) -> Phrase | None:
        name, kind = self._operands.column(node.arg), node.booltesttype.name
        if kind in ("IS_TRUE", "IS_FALSE"):
            return self._condition(node.arg) if kind == "IS_TRUE" else self._negated(node.arg)
        if name is None or kind not in ("IS_NOT_FALSE", "IS_NOT_TRUE"):
            return None
        return self._or_empty(rows_with_flag(name, is_set=kind == "IS_NOT_FALSE"), name)

    def _or_empty(self, phrase: Phrase, column: str) -> Phrase:
        """Return the rows of *phrase*, and those without a value in *column*."""
        return phrase if column in self._required else any_of([phrase, rows_where(f"{column} is empty")])

    def _null(self, node: Any) -> Phrase | None:
        operand, is_null = self._operands.of(node.arg), node.nulltesttype.name == "IS_NULL"
        if operand is None:
            return None
        if operand.kind == "column":
            return rows_where(f"{operand.name} is {'' if is_null else 'not '}empty")
        if operand.is_caller:
            who = "there is no caller" if is_null else "there is a caller"
            return Phrase(f"all rows if {who}", who)
        return all_rows_if(f"{operand.words} is {'missing' if is_null else 'there'}")

    def _comparison(self, node: Any) -> Phrase | None:
        sign, kind = operator(node.name), node.kind.name
        left, right = self._operands.of(node.lexpr), node.rexpr
        if kind in ("AEXPR_IN", "AEXPR_OP_ANY") and sign == "=":
            return self._among(left, right)
        other = self._operands.of(right)
        if left is None or other is None or sign not in _COMPARED:
            return None
        if kind in ("AEXPR_DISTINCT", "AEXPR_NOT_DISTINCT"):
            return self._distinct(left, other, is_distinct=kind == "AEXPR_DISTINCT")
        return self._compared(left, sign, other) if kind == "AEXPR_OP" else None

    def _distinct(self, left: Operand, right: Operand, *, is_distinct: bool) -> Phrase | None:
        """Return a comparison for which NULL is a value; None if both sides may be NULL."""
        if left.kind != "column":
            left, right = right, left
        is_required = left.kind == "column" and left.name in self._required
        if not is_distinct:
            return self._compared(left, "=", right) if is_required or right.kind == "constant" else None
        found = self._compared(left, "<>", right)
        if left.kind != "column" or right.kind != "constant" or found is None:
            return None
        return self._or_empty(found, left.name)

    def _compared(self, left: Operand, operator: str, right: Operand) -> Phrase | None:
        if right.kind == "column" and left.kind != "column":
            left, right = right, left
            operator = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(operator, operator)
        words = f"{left.words} {_COMPARED[operator]} {right.words}"
        if left.kind != "column":
            return all_rows_if(words)
        if operator == "=" and right.is_caller:
            return self._own(left.name)
        if operator == "=" and right.kind == "constant":
            if right.name in ("true", "false"):
                return rows_with_flag(left.name, is_set=right.name == "true")
            return Phrase(f"rows with {left.name} {right.words}", words)
        return rows_where(words)

    def _own(self, column: str) -> Phrase:
        self.owners.add(column)
        noun = f"own rows ({column})" if self._names_owner else "own rows"
        return Phrase(noun, f"{column} is the caller")

    def _among(self, left: Operand | None, right: Any) -> Phrase | None:
        right = bare(right)
        if left is None:
            return None
        if type(right).__name__ == "SubLink":
            return self._in(left, right.subselect) if right.subLinkType.name == "ARRAY_SUBLINK" else None
        values = right.elements if type(right).__name__ == "A_ArrayExpr" else right
        if isinstance(values, tuple | list):
            found = [self._operands.of(one) for one in values]
            if all(one is not None and one.kind == "constant" for one in found):
                names = " or ".join(one.words for one in found if one is not None)
                words = f"{left.words} is {names}"
                return rows_where(words) if left.kind == "column" else all_rows_if(words)
            return None
        operand = self._operands.of(right)
        if operand is None or operand.kind == "constant":
            return None
        if left.kind == "column":
            return rows_where(f"{left.name} is in {operand.words}")
        if left.is_caller and operand.kind == "column":
            return Phrase(f"rows with the caller in {operand.name}", f"the caller is in {operand.name}")
        return all_rows_if(f"{left.words} is in {operand.words}")

    # Subqueries

    def _subquery(self, node: Any) -> Phrase | None:
        select, kind = node.subselect, node.subLinkType.name
        if kind == "EXPR_SUBLINK" and is_scalar(select):
            return self._named(select.targetList[0].val)
        # IN has no name of an operator.
        if kind == "ANY_SUBLINK" and (not node.operName or operator(node.operName) == "="):
            return self._in(self._operands.of(node.testexpr), select)
        if kind == "EXISTS_SUBLINK":
            return self._exists(select)
        return None

    def _in(self, left: Operand | None, select: Any) -> Phrase | None:
        if left is None or left.kind != "column" or len(select.targetList or ()) != 1:
            return None
        target = bare(select.targetList[0].val)
        if is_scalar(select) and type(target).__name__ == "FuncCall":
            call = call_in_words(target)
            return Phrase(f"rows of {call}", f"{left.name} is in {call}")
        if not is_plain(select) or type(target).__name__ != "ColumnRef":
            return None
        inner = alias(select.fromClause[0])
        rest = self._membership(select.whereClause, set(), inner) if is_of(target, inner) else None
        if rest is None:
            return None
        group: str = target.fields[-1].sval
        return rows_of_members(group if left.name == "id" else left.name, rest)

    def _exists(self, select: Any) -> Phrase | None:
        if not is_plain(select):
            return None
        correlated: set[str] = set()
        rest = self._membership(select.whereClause, correlated, alias(select.fromClause[0]))
        if rest is None or len(correlated) != 1:
            return None
        (column,) = correlated
        return rows_of_members(select.fromClause[0].relname if column == "id" else column, rest)

    def _membership(self, where: Any, correlated: set[str], inner: str) -> list[str] | None:
        """Return the conditions on a membership beside the caller's; None if it isn't the caller's.

        Args:
            where: the condition of the subquery.
            correlated: gets the columns of the outer table that a column of the membership equals.
            inner: the name of the memberships in the subquery.
        """
        if where is None:
            return None
        parts = [where]
        if type(where).__name__ == "BoolExpr" and where.boolop.name == "AND_EXPR":
            parts = list(where.args)
        is_callers, rest = False, list[str]()
        for part in parts:
            if (outer := correlation(part, inner)) is not None:
                correlated.add(outer)
            elif not is_of(part, inner):
                return None
            elif self._is_callers(part):
                is_callers = True
            elif (found := self._inside(part)) is not None:
                rest.append(found)
            else:
                return None
        return rest if is_callers else None

    def _is_callers(self, node: Any) -> bool:
        """Return whether a comparison says that a column of a membership is the caller."""
        if not is_equality(node):
            return False
        sides = [self._operands.of(one, inside=True) for one in (node.lexpr, node.rexpr)]
        kinds = {one.kind for one in sides if one is not None}
        return kinds == {"column", "claim"} and any(one is not None and one.is_caller for one in sides)

    def _inside(self, node: Any) -> str | None:
        """Return a condition on a column of a membership in words."""
        if type(node).__name__ == "ColumnRef":
            return self._operands.column(node, inside=True)
        if type(node).__name__ != "A_Expr":
            return None
        sign, left = operator(node.name), self._operands.of(node.lexpr, inside=True)
        if node.kind.name in ("AEXPR_IN", "AEXPR_OP_ANY") and sign == "=":
            found = self._among(left, node.rexpr)
            return None if found is None else found.clause
        right = self._operands.of(node.rexpr, inside=True)
        if left is None or right is None or sign not in _COMPARED or node.kind.name != "AEXPR_OP":
            return None
        return f"{left.words} {_COMPARED[sign]} {right.words}"
