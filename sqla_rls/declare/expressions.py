"""Conditions on a column of the policy's table: ``auth_uid()``, and the base of the others.

Each condition reads the caller in a subquery.  Postgres runs it once per statement (an InitPlan), and can
search an index for its result.  A bare ``auth.user_id() = column`` may run once per row, and
``(SELECT auth.user_id() = column)`` always does.  ``python -m benchmarks.policies`` measures this.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Integer,
    Table,
    TypeDecorator,
    Uuid,
    case,
    cast,
    func,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.coercions import expect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Grouping, Null
from sqlalchemy.sql.roles import ExpressionElementRole
from sqlalchemy.sql.sqltypes import Enum, String
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import UserDefinedType

from sqla_rls.ddl.compile import column_text, literally
from sqla_rls.declare.auth import auth, scalar_subquery
from sqla_rls.exc import DeclarationError

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

#: A column in the body of a model's class or of a Table, or the name of a column.
ColumnArgument: TypeAlias = Any


class OwnColumn(ColumnClause[Any]):
    """A column of the policy's table by its name; the policy looks it up when it gets its table."""

    inherit_cache = True


_own_column = cache(OwnColumn)


def column_of(argument: ColumnArgument, function: str) -> ColumnElement[Any]:
    """Return the column of *argument*, an argument of *function*.

    Raises:
        DeclarationError: the argument is neither a column nor a name.
    """
    if isinstance(argument, str):
        return _own_column(argument)
    column: ColumnElement[Any] = expect(ExpressionElementRole, argument)
    if isinstance(column, BindParameter | Null):
        raise DeclarationError(
            f"{function}() failed: it takes a column or its name, not {type(argument).__name__}. In the body "
            f'of an SQLModel class, give the name: {function}("user_id")'
        )
    return column


class Condition(ColumnElement[bool]):
    """A condition on a column of the policy's table.

    In a class body, a column has no type, name or table yet.  The condition reads them when it is compiled.
    """

    type = Boolean()
    column: ColumnElement[Any]

    @property
    def _from_objects(self) -> list[Any]:
        return self.column._from_objects

    def self_group(self, against: Any = None) -> Any:
        return Grouping(self) if operators.is_precedent(operators.eq, against) else self


class auth_uid(Condition):
    """A condition for the rows of the caller: the column holds the ``sub`` of the token.

    Args:
        column_: a column of text, uuid or integer type in a class body, or its name.

    Raises:
        DeclarationError: the argument isn't a column.  A column of another type, such as
            ``Uuid(native_uuid=False)``, raises it when the condition is compiled.

    Emits:
        By the type of the column::

            (SELECT auth.user_id()) = todos.user_id                    text, varchar
            (SELECT auth.uid()) = todos.user_id                        uuid
            (SELECT CAST(SUBSTRING(auth.user_id() FROM '^(0|-?[1-9][0-9]{0,18})$') AS BIGINT)) = todos.user_id
                    integers: the index stays usable, and the subject "07" isn't 7; a number of 19 digits
                    that BIGINT doesn't have ends the statement with an error
            (SELECT CAST(auth.user_id() AS CITEXT)) = todos.user_id    citext, which ignores case
            (SELECT CASE WHEN (auth.user_id() = rtrim(auth.user_id()))
                    THEN CAST(auth.user_id() AS BPCHAR) END) = todos.user_id    char(n): trailing spaces count
    """

    __visit_name__ = "auth_uid"
    _traverse_internals = [("column", InternalTraversal.dp_clauseelement)]  # noqa: RUF012
    inherit_cache = True

    def __init__(self, column_: ColumnArgument) -> None:
        self.column = column_of(column_, "auth_uid")


@compiles(auth_uid)
def _auth_uid(element: auth_uid, compiler: SQLCompiler, **kw: Any) -> str:
    sides = _caller(element.column), element.column.self_group(operators.eq)
    return " = ".join(compiler.process(side, **kw) for side in sides)


def text_on(condition: object, table: Table) -> str | None:
    """Return *condition* as ``expression_text()`` does, if it is an ``auth_uid()`` of a column of *table*.

    It is the most frequent condition, and takes a quarter of the time without a compilation of its own.
    """
    if type(condition) is not auth_uid or not isinstance(condition.column, Column):
        return None
    family = family_of(condition.column) if condition.column.table is table else None
    return family and f"{_caller_text(family)} = {column_text(condition.column)}"


@cache
def _caller_text(family: Family) -> str:
    return str(_CALLERS[family].compile(**literally(None), of_policy=True))


def _caller(column_: ColumnElement[Any]) -> ColumnElement[Any]:
    family = family_of(column_)
    if family is not None:
        return _CALLERS[family]
    if isinstance(column_.type, Uuid) and not column_.type.native_uuid:
        raise DeclarationError(
            f"auth_uid() can't compare {column_}: with native_uuid=False it is CHAR(32) in Postgres, "
            "and auth.uid() is a uuid. Make the column Uuid()"
        )
    raise DeclarationError(
        f"auth_uid() failed: {column_} is {column_.type!r}, and not text, uuid or integer. "
        "Compare it with auth.user_id() or jwt_claim() in an expression of your own"
    )


Family: TypeAlias = Literal["uuid", "integer", "text", "char", "citext"]
_STRINGS: dict[str, Family] = {"CHAR": "char", "NCHAR": "char", "CITEXT": "citext"}
#: The families that the DDL has told.
_FAMILIES: dict[type, Family] = {}


def family_of(column_: ColumnElement[Any]) -> Family | None:
    """Return the family of types that Postgres compares with the column's; None for other types."""
    implementation = column_.type
    if isinstance(implementation, TypeDecorator) or implementation._variant_mapping:
        implementation = implementation.dialect_impl(_DIALECT)
    while isinstance(implementation, TypeDecorator):
        implementation = implementation.impl_instance
    if isinstance(implementation, Uuid):
        return "uuid" if implementation.native_uuid else None
    if isinstance(implementation, Integer):
        return "integer"
    if not isinstance(implementation, String) or isinstance(implementation, Enum):
        return None
    kind, is_plain = type(column_.type), not column_.type._variant_mapping
    if is_plain and (known := _FAMILIES.get(kind)):
        return known
    # The DDL tells char from text: for the dialect, both are String.
    name = column_.type.compile(_DIALECT).partition("(")[0].split()[0]
    family = _STRINGS.get(name, "text")
    # The arguments of a type of SQLAlchemy's own don't change the name.
    if is_plain and kind.__module__.startswith("sqlalchemy."):
        _FAMILIES[kind] = family
    return family


class _BPCHAR(UserDefinedType[str]):
    """char of any length: a cast to CHAR(n) would cut a subject, perhaps to another caller's."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "BPCHAR"


# A comparison with text would cast a char or citext column, so that its index is of no use.
_CALLERS: dict[Family, scalar_subquery[Any]] = {
    "uuid": scalar_subquery(auth.uid()),
    "text": scalar_subquery(auth.user_id()),
    # The widest integer, since every subject must fit; int4 = int8 uses the index.  A cast alone would take
    # the subjects "07" and "0x7" for 7, and fail for a subject that isn't a number.
    "integer": scalar_subquery(
        cast(func.substring(auth.user_id(), "^(0|-?[1-9][0-9]{0,18})$"), BigInteger())
    ),
    "citext": scalar_subquery(cast(auth.user_id(), postgresql.CITEXT())),
    # char ignores trailing spaces, but they make another subject.
    "char": scalar_subquery(
        case((auth.user_id() == func.rtrim(auth.user_id()), cast(auth.user_id(), _BPCHAR())))
    ),
}
