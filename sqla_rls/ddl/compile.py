"""Expressions of SQLAlchemy as SQL text that Postgres keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, delete, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BindParameter, ColumnClause, UnaryExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import Exists, ReturnsRows, Select

from sqla_rls.exc import (
    DeclarationError,
)

# "%" stands for itself, as in a migration or a script; a driver's own escaping is added when it runs.
_NEUTRAL = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


# Before 2.1, SQLAlchemy doubles backslashes until a connection has told that strings are standard.
_NEUTRAL._backslash_escapes = False


class _Literally(_NEUTRAL.statement_compiler):  # type: ignore[name-defined, misc]
    """For text that Postgres keeps.

    SQLAlchemy makes NULL, and a warning, of a parameter without a value.  Postgres expands the ``*`` of
    ``exists()``: a policy would depend on every column that the table has at that moment.
    *copied* says for each table which one to name instead; *reads* collects those in FROM.  *of_policy* says
    that the expression stands in a policy, where Postgres takes subqueries, and not in a column default.
    """

    def __init__(
        self,
        *args: Any,
        copied: Callable[[Table], Table] | None = None,
        reads: set[Table] | None = None,
        of_policy: bool = False,
        **kw: Any,
    ) -> None:
        # Before SQLAlchemy's own, which compiles at once.
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
            raise CompileError(f"its parameter :{bindparam.key} has no value, and nobody would give it one")
        literal: str = super().render_literal_bindparam(bindparam, *args, **kw)
        return literal


def _selects_columns(query: Select[Any]) -> bool:
    """Whether *query* has as many rows whatever it selects, unlike with an aggregate or a set."""
    return not query._distinct and all(
        isinstance(column, ColumnClause) and (column.name == "*" or not column.is_literal)
        for column in query._all_selected_columns
    )


_NEUTRAL.statement_compiler = _Literally


def literally(
    schema_translate_map: Mapping[str | None, str | None] | None,
    copied: Callable[[Table], Table] | None = None,
) -> dict[str, Any]:
    """How to compile what shall stand in a migration; schemas are named as *schema_translate_map* has it.

    *copied* returns the table to name instead of each.
    """
    options: dict[str, Any] = {"dialect": _NEUTRAL, "compile_kwargs": {"literal_binds": True}}
    if copied:
        options.update(copied=copied)
    if schema_translate_map:
        options.update(schema_translate_map=schema_translate_map, render_schema_translate=True)
    return options


def expression_text(
    expression: ColumnElement[bool],
    table: Table,
    schema_translate_map: Mapping[str | None, str | None] | None = None,
    copied: Callable[[Table], Table] | None = None,
    reads: set[Table] | None = None,
) -> str:
    """*expression* as SQL text, for a policy on *table*; schemas are named as *schema_translate_map* has it.

    *copied* is as in ``literally()``; the tables that subqueries read are added to *reads*.
    With a subquery it is compiled as the WHERE of a DELETE: only then does one over another table
    correlate with this one.  Raises DeclarationError for what can't stand in a policy.
    """
    options = literally(schema_translate_map, copied)
    statement, head = delete(table), ""
    try:
        if _names_only(table, expression):
            sql = str(expression.compile(**options, of_policy=True))
        else:
            head = f"{statement.compile(**options)} WHERE "
            sql = str(statement.where(expression).compile(**options, reads=reads))
    except CompileError as error:
        raise DeclarationError(
            f"an expression on {table.fullname} can't be written as SQL text: {error}"
        ) from error
    if sql.startswith("WITH "):
        raise DeclarationError(
            f"a CTE in an expression on {table.fullname} would stand before the statement, where a policy "
            "has no room: make it with .cte(nesting=True)"
        )
    if not sql.startswith(head):
        raise DeclarationError(
            f"an expression on {table.fullname} names another table outside a subquery, where a policy "
            "has no room for it: put it into exists() or a scalar_subquery()"
        )
    return sql.removeprefix(head)


def _names_only(table: Table, expression: ColumnElement[bool]) -> bool:
    """Whether there are columns of *table* in *expression*, but neither others nor subqueries."""
    return all(
        element.table is table
        if isinstance(element, Column)
        else isinstance(element, FunctionElement) or not isinstance(element, ReturnsRows)
        for element in visitors.iterate(expression)
    )
