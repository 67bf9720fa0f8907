"""Whether the rows that were tried are all that the policies can tell apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from sqla_rls.analyze.in_place.splice import Expression
from sqla_rls.analyze.worlds.objects import Column, Relation
from sqla_rls.analyze.worlds.pools import SUBJECTS
from sqla_rls.analyze.worlds.values import as_input
from sqla_rls.analyze.worlds.world import Values

#: Types of which two different texts are two different values.
_EXACT: Final = ("text", "character varying", "uuid", "integer", "bigint", "smallint", "boolean")
#: Types without a length, to which a cast leaves a text as it is.
_TEXTS: Final = (("text",), ("pg_catalog", "text"), ("varchar",), ("pg_catalog", "varchar"))


@dataclass(frozen=True, slots=True)
class _Subject:
    """The caller, by the name of the function that returns it."""

    function: str


@dataclass(slots=True)
class _Classes:
    """The values that one column is compared with."""

    constants: set[str] = field(default_factory=set)
    is_subject: bool = False


class _Unlisted(Exception):
    """The expression isn't one of those whose values fall into finitely many classes."""


def is_proved(relation: Relation, expressions: Iterable[Expression], rows: Iterable[Values]) -> bool:
    """Return whether *rows* of *relation* have each class of values that *expressions* can tell apart.

    The rows are those that were evaluated: a constraint may refuse others.
    """
    classes: dict[str, _Classes] = {}
    subjects: set[str] = set()
    try:
        for expression in expressions:
            _Reader(relation.columns, classes, subjects).read(expression.sql)
        if len(subjects) > 1:
            # For some caller, the functions may return two values.
            raise _Unlisted
        kinds = [list(_wanted(relation.columns[name], found)) for name, found in classes.items()]
    except (_Unlisted, KeyError):
        return False
    # A child table may have NULL in the parent's primary key before PostgreSQL 18: not_null says so.
    kinds = [
        kind if relation.columns[name].not_null else [*kind, None]
        for name, kind in zip(classes, kinds, strict=True)
    ]
    tried = {tuple(_class(row.get(name), found) for name, found in classes.items()) for row in rows}
    return set(itertools.product(*kinds)) <= tried


def _wanted(column: Column, found: _Classes) -> Iterator[Any]:
    if column.kind == "e":
        yield from (found.constants & set(column.labels))
        if set(column.labels) - found.constants:
            yield "another"
        return
    is_exact = column.is_deterministic and column.base.partition("(")[0] in _EXACT
    if column.kind != "b" or not is_exact:
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


@dataclass(slots=True)
class _Reader:
    """Reads the values that expressions over *columns* are compared with, into *classes*."""

    columns: Mapping[str, Column]
    classes: dict[str, _Classes]
    #: The functions that return the caller.
    subjects: set[str]

    def read(self, sql: str) -> None:
        import pglast

        statement: Any = pglast.parse_sql(f"SELECT {sql}")[0].stmt
        self._condition(statement.targetList[0].val)

    def _found(self, name: str) -> _Classes:
        return self.classes.setdefault(name, _Classes())

    def _condition(self, node: Any) -> None:
        match type(node).__name__:
            case "BoolExpr":
                for argument in node.args:
                    self._condition(argument)
            case "BooleanTest":
                self._condition(node.arg)
            case "NullTest" if _is_column(node.arg):
                self._found(_column(node.arg))
            case "NullTest" if isinstance(subject := _operand(node.arg), _Subject):
                self.subjects.add(subject.function)
            case "A_Const" if type(node.val).__name__ == "Boolean":
                pass
            case "ColumnRef":
                self._found(_column(node))
            case "A_Expr":
                self._comparison(node)
            case _:
                raise _Unlisted

    def _comparison(self, node: Any) -> None:
        operator = tuple(each.sval for each in node.name)
        kind = node.kind.name
        if operator not in (("=",), ("<>",)) or kind not in ("AEXPR_OP", "AEXPR_IN", "AEXPR_OP_ANY"):
            raise _Unlisted
        right = node.rexpr
        if kind == "AEXPR_OP_ANY" and operator == ("=",):
            right = _elements(right)
        elif kind == "AEXPR_OP_ANY":
            raise _Unlisted
        for each in right if isinstance(right, tuple) else (right,):
            sides = [node.lexpr, each]
            columns = [side for side in sides if _is_column(side)]
            if len(columns) != 1:
                raise _Unlisted
            name = _column(columns[0])
            value = _operand(sides[1 - sides.index(columns[0])], self.columns[name])
            if isinstance(value, _Subject):
                self.subjects.add(value.function)
                self._found(name).is_subject = True
            elif value is not None:
                self._found(name).constants.add(value)
            else:
                self._found(name)


def _operand(node: Any, column: Column | None = None) -> Any:
    """Return the text of a constant that is compared with *column*, None for NULL, or the subject."""
    if type(node).__name__ == "SubLink" and node.subLinkType.name == "EXPR_SUBLINK":
        query = node.subselect
        others = (query.fromClause, query.whereClause, query.groupClause, query.havingClause, query.larg)
        if any(others) or len(query.targetList or ()) != 1:
            raise _Unlisted
        return _operand(query.targetList[0].val, column)
    if type(node).__name__ == "FuncCall":
        schema, *names = (name.sval for name in node.funcname)
        if schema == "auth" and names in (["user_id"], ["uid"]) and not node.args:
            return _Subject(names[0])
        raise _Unlisted
    if type(node).__name__ == "TypeCast":
        return _cast(node, column)
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


def _cast(node: Any, column: Column | None) -> Any:
    """Return the text of a constant under casts that leave it as it is."""
    literal = node.arg
    while type(literal).__name__ == "TypeCast" and _is_text(literal.typeName):
        literal = literal.arg
    if type(literal).__name__ != "A_Const":
        raise _Unlisted
    is_text = literal.isnull or type(literal.val).__name__ == "String"
    if not (_is_text(node.typeName) and is_text):
        # Postgres prints a literal of another type as that type writes it.
        own = None if column is None else _type(column.base)
        if literal is not node.arg or own is None or own != (_names(node.typeName), None):
            raise _Unlisted
    if node.typeName.typmods or node.typeName.arrayBounds:
        raise _Unlisted
    return _operand(literal)


def _elements(node: Any) -> tuple[Any, ...]:
    """Return the elements of an array, if no cast changes them."""
    while type(node).__name__ == "TypeCast":
        if _names(node.typeName) not in _TEXTS or node.typeName.typmods:
            raise _Unlisted
        node = node.arg
    if type(node).__name__ != "A_ArrayExpr":
        raise _Unlisted
    return tuple(node.elements or ())


def _is_text(type_: Any) -> bool:
    return _names(type_) in _TEXTS and not type_.typmods and not type_.arrayBounds


def _names(type_: Any) -> tuple[str, ...]:
    return tuple(name.sval for name in type_.names)


@cache
def _type(name: str) -> tuple[tuple[str, ...], Any]:
    """Return the names of a type, and its modifiers."""
    import pglast

    statement: Any = pglast.parse_sql(f"SELECT NULL::{name}")[0].stmt
    type_ = statement.targetList[0].val.typeName
    return _names(type_), type_.typmods


def _is_column(node: Any) -> bool:
    while type(node).__name__ == "TypeCast":
        node = node.arg
    return type(node).__name__ == "ColumnRef"


def _column(node: Any) -> str:
    while type(node).__name__ == "TypeCast":
        # Other casts may make two values one.
        if not _is_text(node.typeName):
            raise _Unlisted
        node = node.arg
    if type(node).__name__ != "ColumnRef" or type(node.fields[-1]).__name__ != "String":
        raise _Unlisted
    name: str = node.fields[-1].sval
    return name
