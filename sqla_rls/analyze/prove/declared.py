"""The intent of declarations: their expressions, evaluated in Python.

Conditions have three values, as in SQL: None is unknown, and admits no row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from sqlalchemy import Boolean, Column, MetaData, Select, Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    AsBoolean,
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnElement,
    False_,
    Grouping,
    Null,
    True_,
    UnaryExpression,
)

from sqla_rls.analyze.intent import Row, World, is_subject
from sqla_rls.analyze.why.explanation import Command, Part
from sqla_rls.ddl.compile import expression_text
from sqla_rls.declare.base import TableDeclarations, kept_on
from sqla_rls.declare.claim_lists import in_jwt_claim, jwt_claim_contains
from sqla_rls.declare.expressions import auth_uid, family_of
from sqla_rls.declare.functions import DeclaredFunction
from sqla_rls.declare.membership import member_of
from sqla_rls.declare.memberships import memberships
from sqla_rls.declare.policies import Policy, is_false
from sqla_rls.snapshot import PUBLIC, Role
from sqla_rls.tokens.caller import Caller

Truth: TypeAlias = "bool | None"
Condition: TypeAlias = Callable[[Caller, Row, World], Truth]

_COMPARISONS: Final[Mapping[Any, Callable[[Any, Any], bool]]] = {
    operators.eq: lambda left, right: bool(left == right),
    operators.ne: lambda left, right: bool(left != right),
    operators.lt: lambda left, right: bool(left < right),
    operators.le: lambda left, right: bool(left <= right),
    operators.gt: lambda left, right: bool(left > right),
    operators.ge: lambda left, right: bool(left >= right),
}


class NotDerivable(Exception):
    """An expression doesn't say whose rows they are; the text has the part."""

    def __init__(self, reason: str, expression: Any = None) -> None:
        super().__init__(reason)
        self.expression = expression


@dataclass(frozen=True, slots=True)
class Declared:
    """The declared policies of a table for a command and a role."""

    permissive: tuple[Condition, ...]
    restrictive: tuple[Condition, ...]
    #: False if the role may lack privileges: then it may do less than the policies say.
    is_exact: bool

    def __call__(self, caller: Caller, row: Row, world: World) -> bool:
        return any(one(caller, row, world) is True for one in self.permissive) and all(
            one(caller, row, world) is True for one in self.restrictive
        )


def declared_intent(table: Table, command: Command, part: Part, role: str, roles: Iterable[Role]) -> Declared:
    """Return the intent that the policies of *table* declare.

    Args:
        table: a table with row security.
        command: the command.
        part: "using" for the row before, "check" for the new row.
        role: the role of the caller.
        roles: the declared roles, with their memberships.

    Raises:
        NotDerivable: a policy has an expression that has no evaluation in Python.
    """
    named = _held(role, {one.name: one for one in roles})
    known: dict[int, ColumnElement[bool]] = {}
    permissive: list[Condition] = []
    restrictive: list[Condition] = []
    is_exact = True
    for policy in TableDeclarations.of(table).of_type(Policy):
        if policy.command not in (command, "ALL") or not named & {str(one) for one in policy.roles}:
            continue
        using, check = policy.expressions(table, known)
        expression = check if part == "check" and check is not None else using
        if expression is None:
            # A policy for UPDATE with WITH CHECK alone admits no row.
            expression = False_()
        try:
            condition = _condition(expression)
        except NotDerivable as problem:
            text = problem.expression is not None and expression_text(problem.expression, table)
            shown = f": {' '.join(text.split())}" if text else ""
            raise NotDerivable(f"{policy!r} is {problem}{shown}") from None
        (permissive if policy.permissive else restrictive).append(condition)
        if policy.permissive and not is_false(using, check):
            is_exact = is_exact and policy.imply_privileges
    return Declared(tuple(permissive), tuple(restrictive), is_exact)


def _held(role: str, roles: Mapping[str, Role]) -> set[str]:
    held, waiting = {PUBLIC, "PUBLIC", "public"}, [role]
    while waiting:
        if (name := waiting.pop()) in held:
            continue
        held.add(name)
        found = roles.get(name)
        if found is not None and found.inherit is not False:
            waiting += [str(one) for one in found.member_of or ()]
    return held


def _condition(expression: Any) -> Condition:
    if isinstance(expression, True_):
        return lambda caller, row, world: True
    if isinstance(expression, False_):
        return lambda caller, row, world: False
    if isinstance(expression, Grouping):
        return _condition(expression.element)
    if isinstance(expression, auth_uid):
        return _own(expression.column)
    if isinstance(expression, member_of):
        return _member(expression)
    if isinstance(expression, jwt_claim_contains):
        return _claim_contains(expression)
    if isinstance(expression, in_jwt_claim):
        return _in_claim(expression)
    if isinstance(expression, BooleanClauseList):
        parts = [_condition(one) for one in expression.clauses]
        if expression.operator is operators.and_:
            return lambda *given: _all(one(*given) for one in parts)
        return lambda *given: _not(_all(_not(one(*given)) for one in parts))
    if isinstance(expression, AsBoolean):
        inner = _condition(expression.element)
        if expression.operator is operators.is_false:
            return lambda *given: _not(inner(*given))
        return inner
    if isinstance(expression, UnaryExpression) and expression.operator is operators.inv:
        negated = _condition(expression.element)
        return lambda *given: _not(negated(*given))
    if isinstance(expression, BinaryExpression):
        return _comparison(expression)
    if isinstance(expression, Column) and isinstance(expression.type, Boolean):
        value = _value(expression)
        return lambda *given: value(*given)
    raise _own_expression(expression)


def _own_expression(expression: Any) -> NotDerivable:
    kind = "SQL text" if getattr(expression, "is_literal", False) else "an expression of your own"
    return NotDerivable(kind, expression)


def _not(value: Truth) -> Truth:
    return None if value is None else not value


def _all(values: Iterable[Truth]) -> Truth:
    found = list(values)
    if any(value is False for value in found):
        return False
    return None if any(value is None for value in found) else True


def _own(column: Any) -> Condition:
    if not isinstance(column, Column) or family_of(column) is None:
        raise _own_expression(column)
    name, ignores_case = column.name, family_of(column) == "citext"

    def own(caller: Caller, row: Row, world: World) -> Truth:
        if caller.subject is None or row[name] is None:
            return None
        if ignores_case:
            return str(row[name]).lower() == caller.subject.lower()
        value = row[name].rstrip(" ") if family_of(column) == "char" else row[name]
        return is_subject(caller, value)

    return own


def _value(element: Any) -> Callable[[Caller, Row, World], Any]:
    if isinstance(element, Grouping):
        return _value(element.element)
    if isinstance(element, Column):
        name = element.name
        return lambda caller, row, world: row[name]
    if isinstance(element, BindParameter):
        constant = element.value
        # An enum is text in a row.
        constant = getattr(constant, "name", constant)
        return lambda caller, row, world: constant
    if isinstance(element, True_ | False_):
        truth = isinstance(element, True_)
        return lambda caller, row, world: truth
    if isinstance(element, Null):
        return lambda caller, row, world: None
    raise _own_expression(element)


def _comparison(expression: BinaryExpression[Any]) -> Condition:
    operator = expression.operator
    if operator in (operators.is_, operators.is_not):
        inner: Callable[[Caller, Row, World], Any]
        try:
            inner = _condition(expression.left)
        except NotDerivable:
            inner = _value(expression.left)
        other = _value(expression.right)
        positive = operator is operators.is_
        return lambda *given: (inner(*given) is other(*given)) is positive
    if operator not in _COMPARISONS:
        raise _own_expression(expression)
    left, right = _value(expression.left), _value(expression.right)
    compare = _COMPARISONS[operator]

    def compared(caller: Caller, row: Row, world: World) -> Truth:
        values = left(caller, row, world), right(caller, row, world)
        return None if None in values else compare(*values)

    return compared


def _member(expression: member_of) -> Condition:
    column, groups = expression.column, expression.groups
    if not isinstance(column, Column) or not isinstance(groups, Select):
        raise _own_expression(expression)
    if groups._group_by_clauses or groups._having_criteria or groups._limit_clause is not None:
        raise _own_expression(expression)
    (group,) = groups.selected_columns
    name = column.name
    where: Condition
    if (of_function := _groups_of_function(group, column)) is not None:
        table, group_name, where = of_function
    else:
        froms = groups.get_final_froms()
        if len(froms) != 1 or not isinstance(froms[0], Table) or not isinstance(group, Column):
            raise _own_expression(expression)
        table, group_name = froms[0], group.name
        parts = [_condition(one) for one in groups._where_criteria]
        where = lambda *given: _all(part(*given) for part in parts)  # noqa: E731 - its type is Condition

    source = table.fullname

    def is_member(caller: Caller, row: Row, world: World) -> Truth:
        wanted = row[name]
        return wanted is not None and any(
            one[group_name] == wanted and where(caller, one, world) is True for one in world[source]
        )

    return is_member


def _groups_of_function(group: Any, column: Column[Any]) -> tuple[Table, str, Condition] | None:
    """Return the memberships that a call of ``memberships()`` reads."""
    function, roles = getattr(group, "function", None), getattr(group, "roles", ())
    if function is None:
        return None
    for one in kept_on([column.table.metadata], DeclaredFunction):
        declaration = getattr(one.value, "__self__", None)
        if one.name is function and isinstance(declaration, memberships):
            return _of_memberships(declaration, roles)
    raise NotDerivable("a call of a function that no MetaData declares")


def _of_memberships(declaration: memberships, roles: Collection[str]) -> tuple[Table, str, Condition]:
    group = declaration._column(declaration.group)
    own = _own(declaration._column(declaration.user))
    role = None if declaration.role is None else declaration._column(declaration.role).name

    def where(caller: Caller, row: Row, world: World) -> Truth:
        has_role = not roles or role is None or str(row[role]) in roles
        return own(caller, row, world) is True and has_role

    table = group.table
    assert isinstance(table, Table)
    return table, group.name, where


def _claim(caller: Caller, path: Iterable[str]) -> Any:
    value: Any = caller.claims
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _claim_contains(expression: jwt_claim_contains) -> Condition:
    path = [str(part.value) for part in expression.path]
    (wanted,) = json.loads(str(expression.value.value))

    def contains(caller: Caller, row: Row, world: World) -> Truth:
        found = _claim(caller, path)
        if not isinstance(found, list | tuple):
            return None
        return any(one == wanted and type(one) is type(wanted) for one in found)

    return contains


def _in_claim(expression: in_jwt_claim) -> Condition:
    column = expression.column
    if not isinstance(column, Column) or (family := family_of(column)) is None:
        raise _own_expression(expression)
    path, name = [str(part.value) for part in expression.path], column.name

    def same(value: Any, one: Any) -> bool:
        if isinstance(value, UUID) or family == "uuid":
            try:
                return UUID(str(one)) == UUID(str(value))
            except ValueError:
                return False
        if family == "integer":
            return not isinstance(one, bool) and str(one) == str(value)
        if not isinstance(one, str):
            return False
        return one.lower() == str(value).lower() if family == "citext" else one == str(value)

    def is_in(caller: Caller, row: Row, world: World) -> Truth:
        found = _claim(caller, path)
        if row[name] is None or not isinstance(found, list | tuple):
            return None
        # An element of another type is NULL, and so is the negation of the condition.
        return True if any(same(row[name], one) for one in found) else None

    return is_in


def declared_tables(metadatas: Iterable[MetaData]) -> dict[tuple[str | None, str], Table]:
    """Return the tables with declared row security, by schema and name."""
    found = [table for metadata in metadatas for table in metadata.tables.values()]
    return {
        (table.schema, table.name): table
        for table in found
        if (flags := TableDeclarations.of(table).row_security) is not None and flags.enabled
    }
