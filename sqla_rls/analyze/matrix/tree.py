"""The tree of an expression or a query, by PostgreSQL's own parser."""

from __future__ import annotations

from typing import Any, Final

from sqla_rls.exc import AnalysisError


def parse(sql: str) -> Any:
    """Return the statement *sql*, as pglast has it; None if the parser can't read it."""
    try:
        import pglast
    except ImportError:
        raise AnalysisError(
            "the policies can't be put into words: pglast isn't installed. "
            "Run: pip install 'sqla-rls[analyze]'"
        ) from None
    try:
        return pglast.parse_sql(sql)[0].stmt
    except (pglast.parser.ParseError, IndexError):
        # The server may know syntax that the parser doesn't.
        return None


def bare(node: Any) -> Any:
    """Return *node* without collations, and without the casts that leave its value as it is."""
    while type(node).__name__ == "CollateClause" or (
        type(node).__name__ == "TypeCast" and not _changes_value(node)
    ):
        node = node.arg
    return node


def _changes_value(cast: Any) -> bool:
    """Return whether a cast may cut a value: to a length, to a part of a time, or to fewer values."""
    if cast.typeName.typmods:
        return True
    name, inner = cast.typeName.names[-1].sval, bare(cast.arg)
    if type(inner).__name__ == "ColumnRef" and name in _FEWER_VALUES:
        return True
    # Postgres prints a constant as a text of its own type.
    return type(cast.arg).__name__ != "A_Const" and name in _PARTS


#: Parts of a time, and the first byte or bytes of a text.
_PARTS: Final = ("date", "time", "timetz", "char", "name")
#: A cast of a column to these may make one value of several: 2 and 3 are both true, and 0.6 and 1 both 1.
_FEWER_VALUES: Final = ("bool", "float4", "float8", "int2", "int4", "int8")


def is_scalar(select: Any) -> bool:
    """Return whether a query only returns an expression."""
    return (
        type(select).__name__ == "SelectStmt"
        and len(select.targetList or ()) == 1
        and not select.fromClause
        and select.whereClause is None
        and not _leaves_out(select)
    )


def is_plain(select: Any) -> bool:
    """Return whether a query reads one table, without grouping."""
    return (
        type(select).__name__ == "SelectStmt"
        and len(select.fromClause or ()) == 1
        and type(select.fromClause[0]).__name__ == "RangeVar"
        and not (select.groupClause or select.larg or select.withClause or _leaves_out(select))
    )


def _leaves_out(select: Any) -> bool:
    """Return whether a query leaves out rows by another clause than WHERE."""
    return bool(select.havingClause or select.limitCount or select.limitOffset)


def alias(node: Any) -> str:
    """Return the name of a table in its query."""
    name: str = node.alias.aliasname if node.alias is not None else node.relname
    return name


def operator(names: Any) -> str:
    """Return the operator of these *names*; an empty text for one that Postgres doesn't bring."""
    found: list[str] = [one.sval for one in names]
    return found[-1] if found[:-1] in ([], ["pg_catalog"]) else ""


def is_equality(node: Any) -> bool:
    """Return whether *node* compares by ``=``."""
    return type(node).__name__ == "A_Expr" and node.kind.name == "AEXPR_OP" and operator(node.name) == "="


def correlation(node: Any, inner: str) -> str | None:
    """Return the column of the outer table in ``inner.a = outer.b``."""
    if not is_equality(node):
        return None
    sides = [bare(node.lexpr), bare(node.rexpr)]
    if any(type(side).__name__ != "ColumnRef" for side in sides):
        return None
    outside = [side for side in sides if not is_of(side, inner)]
    if len(outside) != 1 or type(outside[0].fields[-1]).__name__ != "String":
        return None
    name: str = outside[0].fields[-1].sval
    return name


def is_of(node: Any, relation: str) -> bool:
    """Return whether all columns that *node* names are of *relation*, in so many words."""
    if isinstance(node, tuple | list):
        return all(is_of(one, relation) for one in node)
    if type(node).__name__ == "ColumnRef":
        names = [getattr(one, "sval", None) for one in node.fields]
        return len(names) > 1 and names[-2] == relation
    if not hasattr(node, "__slots__") or isinstance(node, str):
        return True
    return all(is_of(getattr(node, name), relation) for name in node.__slots__)
