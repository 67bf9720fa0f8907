"""Whether the rows that were tried are all that the policies can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqla_rls.analyze.in_place.splice import Expression
from sqla_rls.analyze.worlds.objects import Column
from sqla_rls.analyze.worlds.pools import SUBJECTS
from sqla_rls.analyze.worlds.universe import Universe
from sqla_rls.analyze.worlds.values import as_input

_SUBJECT: Final = object()
#: Types of which two different texts are two different values.
_EXACT: Final = ("text", "character varying", "uuid", "integer", "bigint", "smallint", "boolean")


@dataclass(slots=True)
class _Classes:
    """The values that one column is compared with."""

    constants: set[str] = field(default_factory=set)
    is_subject: bool = False


class _Unlisted(Exception):
    """The expression isn't one of those whose values fall into finitely many classes."""


def is_proved(universe: Universe, expressions: Iterable[Expression]) -> bool:
    """Return whether the rows of *universe* have each class of values that *expressions* can tell apart."""
    relation = universe.relation
    classes: dict[str, _Classes] = {}
    try:
        for expression in expressions:
            _read(expression.sql, classes)
        kinds = [list(_wanted(relation.columns[name], found)) for name, found in classes.items()]
    except (_Unlisted, KeyError):
        return False
    key = relation.keys[0] if relation.has_primary_key and relation.keys else ()
    kinds = [
        kind if relation.columns[name].not_null or name in key else [*kind, None]
        for name, kind in zip(classes, kinds, strict=True)
    ]
    tried = {
        tuple(_class(row.values.get(name), found) for name, found in classes.items())
        for row in universe.rows[relation.name]
    }
    return set(itertools.product(*kinds)) <= tried


def _wanted(column: Column, found: _Classes) -> Iterator[Any]:
    if column.kind == "e":
        yield from (found.constants & set(column.labels))
        if set(column.labels) - found.constants:
            yield "another"
        return
    if column.kind != "b" or column.base.partition("(")[0] not in _EXACT:
        raise _Unlisted
    if column.base == "boolean":
        yield from ("true", "false")
        return
    if found.is_subject and found.constants:
        # The subject may be the constant.
        raise _Unlisted
    yield from found.constants
    yield "another"
    if found.is_subject:
        yield "the caller"


def _class(value: Any, found: _Classes) -> Any:
    if value is None:
        return None
    text = as_input(value)
    if isinstance(value, bool) or text in found.constants:
        return text
    if found.is_subject and text in {subjects[0] for subjects in SUBJECTS.values()}:
        return "the caller"
    return "another"


def _read(sql: str, classes: dict[str, _Classes]) -> None:
    import pglast

    statement: Any = pglast.parse_sql(f"SELECT {sql}")[0].stmt
    _condition(statement.targetList[0].val, classes)


def _condition(node: Any, classes: dict[str, _Classes]) -> None:
    match type(node).__name__:
        case "BoolExpr":
            for argument in node.args:
                _condition(argument, classes)
        case "BooleanTest":
            _condition(node.arg, classes)
        case "NullTest" if _is_column(node.arg):
            classes.setdefault(_column(node.arg), _Classes())
        case "NullTest" if _operand(node.arg) is _SUBJECT:
            pass
        case "A_Const" if type(node.val).__name__ == "Boolean":
            pass
        case "ColumnRef":
            classes.setdefault(_column(node), _Classes())
        case "A_Expr":
            _comparison(node, classes)
        case _:
            raise _Unlisted


def _comparison(node: Any, classes: dict[str, _Classes]) -> None:
    operator = tuple(each.sval for each in node.name)
    kind = node.kind.name
    if operator not in (("=",), ("<>",)) or kind not in ("AEXPR_OP", "AEXPR_IN", "AEXPR_OP_ANY"):
        raise _Unlisted
    right = node.rexpr
    if kind == "AEXPR_OP_ANY" and operator == ("=",):
        right = _bare(right)
        if type(right).__name__ != "A_ArrayExpr":
            raise _Unlisted
        right = right.elements or ()
    elif kind == "AEXPR_OP_ANY":
        raise _Unlisted
    for each in right if isinstance(right, tuple) else (right,):
        sides = [node.lexpr, each]
        columns = [side for side in sides if _is_column(side)]
        if len(columns) != 1:
            raise _Unlisted
        found = classes.setdefault(_column(columns[0]), _Classes())
        value = _operand(sides[1 - sides.index(columns[0])])
        if value is _SUBJECT:
            found.is_subject = True
        elif value is not None:
            found.constants.add(value)


def _operand(node: Any) -> Any:
    """Return the text of a constant, None for NULL, or the subject."""
    if type(node).__name__ == "SubLink" and node.subLinkType.name == "EXPR_SUBLINK":
        query = node.subselect
        others = (query.fromClause, query.whereClause, query.groupClause, query.havingClause, query.larg)
        if any(others) or len(query.targetList or ()) != 1:
            raise _Unlisted
        return _operand(query.targetList[0].val)
    if type(node).__name__ == "FuncCall":
        if tuple(name.sval for name in node.funcname) in (("auth", "user_id"), ("auth", "uid")):
            return _SUBJECT
        raise _Unlisted
    node = _bare(node)
    if type(node).__name__ != "A_Const":
        raise _Unlisted
    if node.isnull:
        return None
    value = node.val
    match type(value).__name__:
        case "Integer":
            return str(value.ival)
        case "String":
            return value.sval
        case "Boolean":
            return "true" if value.boolval else "false"
        case _:
            raise _Unlisted


def _is_column(node: Any) -> bool:
    return type(_bare(node)).__name__ == "ColumnRef"


def _column(node: Any) -> str:
    while type(node).__name__ == "TypeCast":
        # Other casts may make two values one.
        if node.typeName.names[-1].sval not in ("text", "varchar") or node.typeName.typmods:
            raise _Unlisted
        node = node.arg
    if type(node).__name__ != "ColumnRef" or type(node.fields[-1]).__name__ != "String":
        raise _Unlisted
    name: str = node.fields[-1].sval
    return name


def _bare(node: Any) -> Any:
    while type(node).__name__ == "TypeCast":
        node = node.arg
    return node
