"""The caller as SQL: the functions of schema ``auth``, and the claims of the token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

from sqlalchemy import ARRAY, JSON, ColumnElement, Text, Uuid, cast, literal
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.type_api import TypeEngine, to_instance
from sqlalchemy.sql.visitors import InternalTraversal

from sqla_rls.exc import DeclarationError
from sqla_rls.snapshot import AUTH_SCHEMA

_T = TypeVar("_T")


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
