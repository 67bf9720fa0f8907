"""SQL about the caller: the functions of schema ``auth``, and conditions with them.

Each condition reads the caller in a subquery.  Postgres runs it once per statement (an InitPlan), and can
search an index for its result.  A bare ``auth.user_id() = column`` may run once per row, and
``(SELECT auth.user_id() = column)`` always does.  ``python -m benchmarks.policies`` measures this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar, overload

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Integer,
    Text,
    TypeDecorator,
    Uuid,
    case,
    cast,
    func,
    literal,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.coercions import expect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Grouping, Null
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.roles import ExpressionElementRole
from sqlalchemy.sql.sqltypes import Enum, String
from sqlalchemy.sql.type_api import TypeEngine, to_instance
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import UserDefinedType

from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import AUTH_SCHEMA

_T = TypeVar("_T")
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]

#: A column in the body of a model's class or of a Table, or the name of a column.
ColumnArgument: TypeAlias = Any


class AuthFunction(Function[_T]):
    """A call of a function in schema ``auth``."""

    inherit_cache = True


class auth:
    """The functions of schema ``auth``, for server defaults and queries.

    Emits:
        ``auth.user_id()``, ``auth.uid()``, …
    """

    @staticmethod
    def user_id() -> AuthFunction[str]:
        """Return the ``sub`` claim as text, NULL if it is missing."""
        return _function("user_id", Text())

    @staticmethod
    def uid() -> AuthFunction[Any]:
        """Return the ``sub`` claim as uuid, NULL if it isn't one."""
        return _function("uid", Uuid())

    @staticmethod
    def session() -> AuthFunction[Any]:
        """Return all claims as jsonb; JSON ``null``, not SQL NULL, without claims."""
        return _function("session", postgresql.JSONB())

    @staticmethod
    def jwt() -> AuthFunction[Any]:
        """Return all claims, as :meth:`session` does."""
        return _function("jwt", postgresql.JSONB())

    @staticmethod
    def organization() -> AuthFunction[Any]:
        """Return the ``o`` claim of Neon Auth as jsonb, NULL if it isn't an object."""
        return _function("organization", postgresql.JSONB())

    @staticmethod
    def organization_id() -> AuthFunction[Any]:
        """Return ``o.id`` as uuid, NULL if it isn't one."""
        return _function("organization_id", Uuid())


def _function(name: str, type_: TypeEngine[_T]) -> AuthFunction[_T]:
    return AuthFunction(name, packagenames=(AUTH_SCHEMA,), type_=type_)


class scalar_subquery(ColumnElement[_T]):
    """``(SELECT expression)``, which Postgres runs once per statement and not once per row.

    The expression must not name a column of the table.  In a column default it is ``(expression)``.
    """

    __visit_name__ = "scalar_subquery"
    _traverse_internals = [("element", InternalTraversal.dp_clauseelement)]  # noqa: RUF012
    inherit_cache = True

    def __init__(self, element: ColumnElement[_T]) -> None:
        self.element = element
        self.type = element.type


@compiles(scalar_subquery)
def _scalar_subquery(element: scalar_subquery[Any], compiler: SQLCompiler, **kw: Any) -> str:
    value = compiler.process(element.element, **kw)
    return f"(SELECT {value})" if takes_subqueries(compiler) else f"({value})"


def takes_subqueries(compiler: SQLCompiler) -> bool:
    """Return whether *compiler* is in a statement or a policy; column defaults accept no subqueries."""
    return bool(compiler.stack) or getattr(compiler, "of_policy", False)


class claim(scalar_subquery[_T]):
    """The result of ``jwt_claim()``."""

    inherit_cache = True

    def contains(self, other: Any, **kw: Any) -> ColumnElement[bool]:
        if isinstance(self.type, JSON):
            # The condition would be false, and its negation true, for a claim that is no list.
            raise DeclarationError(
                "jwt_claim() can't test the contents of a list: a claim may be no list. "
                'Write jwt_claim_contains("permissions", value="todos:read")'
            )
        return super().contains(other, **kw)


@overload
def jwt_claim(*path: str) -> ColumnElement[str]: ...
@overload
def jwt_claim(*path: str, type_: type[TypeEngine[_T]] | TypeEngine[_T]) -> ColumnElement[_T]: ...
def jwt_claim(*path: str, type_: Any = None) -> ColumnElement[Any]:
    """Return a claim of the caller's token as SQL; it is NULL if the claim is missing.

    For a claim that is a list, see ``jwt_claim_contains()`` and ``in_jwt_claim()``.

    Args:
        *path: the names that lead to the claim.
        type_: the type of the result; None is text.  Give the type of a column that isn't text: a cast of the
            claim leaves the column's index usable.  A claim of another type makes the statement fail.

    Raises:
        DeclarationError: the path is empty, or the type is ARRAY.

    Emits:
        For ``jwt_claim("org", "id")``, without and with ``type_=Uuid``::

            (SELECT (auth.jwt() -> 'org') ->> 'id')
            (SELECT CAST((auth.jwt() -> 'org') ->> 'id' AS UUID))

        A ``server_default`` has no SELECT, since Postgres refuses subqueries there.
    """
    check_path(path, "jwt_claim")
    if type_ is not None and isinstance(to_instance(type_), ARRAY):
        raise DeclarationError(
            "jwt_claim() can't return an ARRAY: a list in a token is JSON. Write "
            'jwt_claim_contains("permissions", value="todos:read") or in_jwt_claim(org_id, "org_ids")'
        )
    value: ColumnElement[Any] = auth.jwt()
    for key in path[:-1]:
        value = value.op("->", return_type=postgresql.JSONB())(literal(key, Text()))
    value = value.op("->>", return_type=Text())(literal(path[-1], Text()))
    return claim(value if type_ is None else cast(value, type_))


def check_path(path: Sequence[str], function: str) -> None:
    """Raise DeclarationError unless *path* of *function* is one or more names."""
    if not path or not all(isinstance(key, str) for key in path):
        raise DeclarationError(
            f"{function}() failed: {path!r} isn't the path to a claim. Give its names, such as 'org', 'id'"
        )


class OwnColumn(ColumnClause[Any]):
    """A column of the policy's table by its name; the policy looks it up when it gets its table."""

    inherit_cache = True


def column_of(argument: ColumnArgument, function: str) -> ColumnElement[Any]:
    """Return the column of *argument*, an argument of *function*.

    Raises:
        DeclarationError: the argument is neither a column nor a name.
    """
    if isinstance(argument, str):
        return OwnColumn(argument)
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
            (SELECT CAST(auth.user_id() AS BIGINT)) = todos.user_id    integers: the index stays usable
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


def family_of(column_: ColumnElement[Any]) -> Family | None:
    """Return the family of types that Postgres compares with the column's; None for other types."""
    implementation = column_.type.dialect_impl(_DIALECT)
    while isinstance(implementation, TypeDecorator):
        implementation = implementation.impl_instance
    if isinstance(implementation, Uuid):
        return "uuid" if implementation.native_uuid else None
    if isinstance(implementation, Integer):
        return "integer"
    if not isinstance(implementation, String) or isinstance(implementation, Enum):
        return None
    # The DDL tells char from text: for the dialect, both are String.
    name = column_.type.compile(_DIALECT).partition("(")[0].split()[0]
    return _STRINGS.get(name, "text")


class _BPCHAR(UserDefinedType[str]):
    """char of any length: a cast to CHAR(n) would cut a subject, perhaps to another caller's."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "BPCHAR"


# A comparison with text would cast a char or citext column, so that its index is of no use.
_CALLERS: dict[Family, scalar_subquery[Any]] = {
    "uuid": scalar_subquery(auth.uid()),
    "text": scalar_subquery(auth.user_id()),
    # The widest integer, since every subject must fit; int4 = int8 uses the index.
    "integer": scalar_subquery(cast(auth.user_id(), BigInteger())),
    "citext": scalar_subquery(cast(auth.user_id(), postgresql.CITEXT())),
    # char ignores trailing spaces, but they make another subject.
    "char": scalar_subquery(
        case((auth.user_id() == func.rtrim(auth.user_id()), cast(auth.user_id(), _BPCHAR())))
    ),
}
