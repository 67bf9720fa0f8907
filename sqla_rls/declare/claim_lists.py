"""Conditions on a claim that is a list: the list contains a value, or the value of a column.

If the claim is missing or no list, the condition is NULL: neither it nor its negation shows a row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Boolean, ColumnElement, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import InternalTraversal

from sqla_rls.declare.auth import auth, check_path, takes_subqueries
from sqla_rls.declare.expressions import (
    ColumnArgument,
    Condition,
    Family,
    column_of,
    family_of,
)
from sqla_rls.exc import DeclarationError


class jwt_claim_contains(ColumnElement[bool]):
    """A condition on a claim that is a list: the list contains *value*.

    Postgres evaluates it once per statement.

    Args:
        *path: the path to the claim, as in ``jwt_claim()``.
        value: text or an integer.  ``"5"`` and ``5`` differ, as in JSON.

    Raises:
        DeclarationError: *value* is of another type.

    Emits:
        For ``jwt_claim_contains("permissions", value="todos:read")``::

            (SELECT CASE jsonb_typeof(claims -> 'permissions') WHEN 'array'
                    THEN claims -> 'permissions' @> CAST('["todos:read"]' AS JSONB) END
               FROM auth.jwt() AS claims)
    """

    __visit_name__ = "jwt_claim_contains"
    _traverse_internals = [  # noqa: RUF012
        ("claims", InternalTraversal.dp_clauseelement),
        ("path", InternalTraversal.dp_clauseelement_list),
        ("value", InternalTraversal.dp_clauseelement),
    ]
    inherit_cache = True
    type = Boolean()

    def __init__(self, *path: str, value: str | int) -> None:
        check_path(path, "jwt_claim_contains")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DeclarationError(
                f"jwt_claim_contains() failed: its value is text or an integer, not {type(value).__name__}. "
                "For several values, join several conditions with and_() or or_()"
            )
        self.claims, self.path = auth.jwt(), _keys(path)
        self.value = literal(json.dumps([value], ensure_ascii=False), Text())


@compiles(jwt_claim_contains)
def _jwt_claim_contains(element: jwt_claim_contains, compiler: SQLCompiler, **kw: Any) -> str:
    claims, value = (compiler.process(one, **kw) for one in (element.claims, element.value))
    asks_once = takes_subqueries(compiler)
    found = _at(element.path, "claims" if asks_once else claims, compiler, **kw)
    contains = f"CASE jsonb_typeof({found}) WHEN 'array' THEN {found} @> CAST({value} AS JSONB) END"
    return f"(SELECT {contains} FROM {claims} AS claims)" if asks_once else f"({contains})"  # noqa: S608 - rendered


class in_jwt_claim(Condition):
    """A condition on a claim that is a list, of organizations for example: it contains the column's value.

    Postgres reads the list once per statement, and searches the index of the column for its elements.  Text
    and uuid columns are compared with text elements, and integer columns with numbers and text.  An element
    of another type becomes NULL: it matches no row, and the negation of the condition shows none.

    Args:
        column_: a column of text, citext, char, uuid or integer type in a class body, or its name.
        *path: the path to the claim, as in ``jwt_claim()``.

    Raises:
        DeclarationError: the argument isn't a column.  A column of another type raises it when the condition
            is compiled.

    Emits:
        For ``in_jwt_claim(org_id, "org_ids")``, with a column of type uuid::

            todos.org_id = ANY (ARRAY(
                SELECT CASE WHEN value ~ '^[0-9A-Fa-f]{8}…$' THEN CAST(value AS UUID) END
                  FROM auth.jwt() AS claims, jsonb_array_elements_text(
                       CASE jsonb_typeof(claims -> 'org_ids')
                       WHEN 'array' THEN claims -> 'org_ids' ELSE '[null]' END) AS value))
    """

    __visit_name__ = "in_jwt_claim"
    _traverse_internals = [  # noqa: RUF012
        ("column", InternalTraversal.dp_clauseelement),
        ("claims", InternalTraversal.dp_clauseelement),
        ("path", InternalTraversal.dp_clauseelement_list),
    ]
    inherit_cache = True

    def __init__(self, column_: ColumnArgument, *path: str) -> None:
        check_path(path, "in_jwt_claim")
        self.column = column_of(column_, "in_jwt_claim")
        self.claims, self.path = auth.jwt(), _keys(path)


@compiles(in_jwt_claim)
def _in_jwt_claim(element: in_jwt_claim, compiler: SQLCompiler, **kw: Any) -> str:
    family = family_of(element.column)
    if family is None:
        raise DeclarationError(
            f"in_jwt_claim() failed: {element.column} is {element.column.type!r}, and not text, uuid or "
            "integer. Use a column of one of these types"
        )
    column_ = compiler.process(element.column.self_group(operators.eq), **kw)
    claims, found = compiler.process(element.claims, **kw), _at(element.path, "claims", compiler, **kw)
    function, value = _ELEMENTS[family]
    # [null] replaces a claim that is no list: with an empty array, NOT would show every row.
    found = f"CASE jsonb_typeof({found}) WHEN 'array' THEN {found} ELSE '[null]' END"
    values = f"SELECT {value} FROM {claims} AS claims, {function}({found}) AS value"  # noqa: S608 - as above
    return f"{column_} = ANY (ARRAY({values}))"


def _keys(path: Sequence[str]) -> list[BindParameter[str]]:
    return [literal(key, Text()) for key in path]


def _at(path: Sequence[BindParameter[str]], claims: str, compiler: SQLCompiler, **kw: Any) -> str:
    return " -> ".join([claims, *(compiler.process(key, **kw) for key in path)])


class _Elements(NamedTuple):
    """The function that returns the elements, and an element as a value of the column's type, or NULL."""

    function: str
    value: str


# CASE checks the value first, since a failed cast ends the statement.
_ELEMENTS: dict[Family, _Elements] = {
    "uuid": _Elements(
        "jsonb_array_elements_text",
        "CASE WHEN value ~ '^[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}$' "
        "THEN CAST(value AS UUID) END",
    ),
    "integer": _Elements(
        "jsonb_array_elements_text",
        "CASE WHEN value !~ '^(0|-?[1-9][0-9]{0,18})$' THEN NULL "
        "WHEN abs(CAST(value AS NUMERIC)) <= 9223372036854775807 THEN CAST(value AS BIGINT) END",
    ),
    "text": _Elements(
        "jsonb_array_elements", "CASE jsonb_typeof(value) WHEN 'string' THEN value #>> '{}' END"
    ),
    "citext": _Elements(
        "jsonb_array_elements",
        "CASE jsonb_typeof(value) WHEN 'string' THEN CAST(value #>> '{}' AS CITEXT) END",
    ),
    # As in auth_uid(), since char ignores trailing spaces.
    "char": _Elements(
        "jsonb_array_elements",
        "CASE WHEN jsonb_typeof(value) = 'string' AND value #>> '{}' = rtrim(value #>> '{}') "
        "THEN CAST(value #>> '{}' AS BPCHAR) END",
    ),
}
