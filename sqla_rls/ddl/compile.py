"""Compiles SQLAlchemy expressions to SQL text for objects of Postgres."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from sqlalchemy import Boolean, ClauseElement, Column, ColumnElement, Table, delete, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    ColumnClause,
    ExpressionClauseList,
    Grouping,
    TextClause,
    UnaryExpression,
)
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, ReturnsRows, Select

from sqla_rls.exc import (
    DeclarationError,
)

_Element = TypeVar("_Element", bound=ClauseElement)

# "%" isn't doubled, as in a migration or a script; a driver's escaping is added when the statement runs.
_NEUTRAL = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


# Before 2.1, SQLAlchemy doubles backslashes until a connection reports standard_conforming_strings.
_NEUTRAL._backslash_escapes = False


class _Literally(_NEUTRAL.statement_compiler):  # type: ignore[name-defined, misc]
    """A compiler for text that Postgres stores.

    It refuses a parameter without a value, which SQLAlchemy renders as NULL.  It replaces the ``*`` of
    ``exists()``, which Postgres expands: the policy would depend on every column of the table.

    Args:
        copied: a function that returns the table to name instead of each table.
        reads: a set that collects the tables in FROM.
        of_policy: the expression is part of a policy, which accepts subqueries, and not of a column default.
    """

    def __init__(
        self,
        *args: Any,
        copied: Callable[[Table], Table] | None = None,
        reads: set[Table] | None = None,
        of_policy: bool = False,
        **kw: Any,
    ) -> None:
        # SQLAlchemy's constructor compiles at once, and needs these attributes.
        self.copied, self.reads, self.of_policy = copied, reads, of_policy
        super().__init__(*args, **kw)

    def visit_table(self, table: Any, *args: Any, **kw: Any) -> str:
        copy = self._copied(table)
        if self.reads is not None and not kw.get("iscrud"):
            self.reads.add(copy)
        named: str = super().visit_table(copy, *args, **kw)
        return named

    def visit_column(self, column: Any, *args: Any, **kw: Any) -> str:
        if isinstance(table := column.table, Table) and (copy := self._copied(table)) is not table:
            column = copy.c[column.key]
        named: str = super().visit_column(column, *args, **kw)
        return named

    def _copied(self, table: Any) -> Any:
        return self.copied(table) if self.copied and isinstance(table, Table) else table

    def visit_unary(self, unary: UnaryExpression[Any], *args: Any, **kw: Any) -> str:
        query = getattr(unary.element, "element", None)
        if unary.operator is operators.exists and isinstance(query, Select) and _selects_columns(query):
            unary = Exists(query.with_only_columns(literal_column("1"), maintain_column_froms=True))
        text: str = super().visit_unary(unary, *args, **kw)
        return text

    def render_literal_bindparam(self, bindparam: BindParameter[Any], *args: Any, **kw: Any) -> str:
        if bindparam.required and bindparam.callable is None:
            raise CompileError(f"parameter :{bindparam.key} has no value. Give it a value")
        literal: str = super().render_literal_bindparam(bindparam, *args, **kw)
        return literal


def _selects_columns(query: Select[Any]) -> bool:
    """Return whether the columns of *query* don't change its number of rows, as an aggregate would."""
    return not query._distinct and all(
        isinstance(column, ColumnClause) and (column.name == "*" or not column.is_literal)
        for column in query._all_selected_columns
    )


_NEUTRAL.statement_compiler = _Literally
#: A compiler for columns, which leave nothing in it.
_OF_COLUMNS = _Literally(_NEUTRAL, None)


def literally(
    schema_translate_map: Mapping[str | None, str | None] | None,
    copied: Callable[[Table], Table] | None = None,
) -> dict[str, Any]:
    """Return the options of ``compile()`` for text in a migration.

    Args:
        schema_translate_map: the schemas to name instead of those of the tables.
        copied: a function that returns the table to name instead of each table.
    """
    options: dict[str, Any] = {"dialect": _NEUTRAL, "compile_kwargs": {"literal_binds": True}}
    if copied:
        options.update(copied=copied)
    if schema_translate_map:
        options.update(schema_translate_map=schema_translate_map, render_schema_translate=True)
    return options


#: SQL text that an operator beside it can't split.
_ONE_NAME = re.compile(r"[\w.]+")


def with_whole_text(element: _Element) -> _Element:
    """Return *element* with its SQL text in parentheses, where an operator stands beside the text.

    SQLAlchemy writes ``and_(text("a OR b"), c)`` as ``a OR b AND c``, which is true for each ``a``.
    """
    whole = {
        id(one) for parent in visitors.iterate(element) for one in _operands(parent) if _is_splittable(one)
    }
    if not whole:
        return element

    def grouped(element: Any, **kw: Any) -> Any:
        return Grouping(element) if id(element) in whole else None

    return cast(_Element, visitors.replacement_traverse(cast(Any, element), {}, grouped))


def _operands(parent: object) -> Sequence[Any]:
    match parent:
        case ExpressionClauseList():
            return parent.clauses
        case UnaryExpression():
            return [parent.element]
        case BinaryExpression():
            # Other text may be a part of the operator, such as the ANY of "= ANY".
            return [one for one in (parent.left, parent.right) if isinstance(one.type, Boolean)]
        case Select() if len(parent._where_criteria) > 1:
            return parent._where_criteria
    return ()


def _is_splittable(one: Any) -> bool:
    match one:
        case TextClause():
            return not _ONE_NAME.fullmatch(one.text)
        case ColumnClause(is_literal=True):
            return not _ONE_NAME.fullmatch(one.name)
    return False


def column_text(column: Column[Any]) -> str:
    """Return *column* with its table, as in ``expression_text()``."""
    return _OF_COLUMNS.visit_column(column)


def expression_text(
    expression: ColumnElement[bool],
    table: Table,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    copied: Callable[[Table], Table] | None = None,
    reads: set[Table] | None = None,
) -> str:
    """Return *expression* as SQL text, for a policy on *table*.

    An expression with a subquery is compiled as the WHERE of a DELETE, so that the subquery correlates with
    *table*.

    Args:
        expression: the expression.
        table: the table of the policy.
        schema_translate_map: as in ``literally()``.
        copied: as in ``literally()``.
        reads: a set to which the tables of subqueries are added.

    Raises:
        DeclarationError: a policy can't have this expression.
    """
    options, head = literally(schema_translate_map, copied), ""
    try:
        if _names_only(table, expression):
            sql = str(expression.compile(**options, of_policy=True))
        else:
            statement = delete(table)
            head = f"{statement.compile(**options)} WHERE "
            sql = str(statement.where(expression).compile(**options, reads=reads))
    except CompileError as error:
        raise DeclarationError(
            f"an expression on {table.fullname} can't be written as SQL text: {error}"
        ) from error
    if sql.startswith("WITH "):
        raise DeclarationError(
            f"an expression on {table.fullname} can't be written as SQL text: its CTE would come before the "
            "expression. Make it with .cte(nesting=True)"
        )
    if not sql.startswith(head):
        raise DeclarationError(
            f"an expression on {table.fullname} can't be written as SQL text: it names another table outside "
            "a subquery. Put it into exists() or a scalar_subquery()"
        )
    return sql.removeprefix(head)


def _names_only(table: Table, expression: ColumnElement[bool]) -> bool:
    """Return whether *expression* names only columns of *table*, and has no subquery."""
    return all(
        element.table is table
        if isinstance(element, Column)
        else isinstance(element, FunctionElement) or not isinstance(element, ReturnsRows)
        for element in visitors.iterate(expression)
    )
