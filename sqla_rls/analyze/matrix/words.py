"""The condition of a policy in words, by PostgreSQL's own parser: "own rows", "rows of my teams".

The words describe an expression and decide nothing.  A part without words of its own is shown as SQL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqla_rls.analyze.worlds.schema import Function
from sqla_rls.exc import AnalysisError

_CLAIMS: Final = "request.jwt.claims"
_ONE_CLAIM: Final = "request.jwt.claim."
#: The functions of schema auth by the path of the claim that they return.
_AUTH: Final[Mapping[str, tuple[str, ...]]] = {
    "user_id": ("sub",),
    "uid": ("sub",),
    "jwt": (),
    "session": (),
    "role": ("role",),
    "email": ("email",),
    "organization": ("o",),
    "organization_id": ("o", "id"),
}
_NOUNS: Final[Mapping[str, str]] = {"org": "organization", "dept": "department"}
_ADJECTIVES: Final = ("public", "visible", "active", "live", "open", "shared")
_COMPARED: Final[Mapping[str, str]] = {
    "=": "is",
    "<>": "isn't",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
}


@dataclass(frozen=True, slots=True)
class Phrase:
    """A condition as a noun, "own rows", and as a clause, "user_id is the caller"."""

    noun: str
    clause: str
    #: The noun says more than "rows where" and the clause.
    is_named: bool = True


Kind: TypeAlias = Literal["column", "claim", "setting", "constant", "role", "call"]


@dataclass(frozen=True, slots=True)
class _Operand:
    kind: Kind
    name: str = ""
    path: tuple[str, ...] = ()

    @property
    def is_caller(self) -> bool:
        return self.kind == "claim" and self.path == ("sub",)

    @property
    def words(self) -> str:
        if self.is_caller:
            return "the caller"
        match self.kind:
            case "claim":
                return f"claim {'.'.join(self.path)}" if self.path else "the claims"
            case "setting":
                return f"setting {self.name}"
            case "role":
                return "the current role"
            case "constant" if not self.name.replace("_", "").replace("-", "").isalnum():
                # Quotes keep a text that reads like a condition apart from the words.
                return json.dumps(self.name, ensure_ascii=False)
            case _:
                return self.name


class ConditionWords:
    """Puts the conditions of a relation into words.

    Args:
        columns: the columns of the relation.
        functions: the functions of the database: one without arguments may stand for its value.
        names_owner: name the column of "own rows", since several columns hold callers.
    """

    def __init__(
        self, columns: Collection[str], functions: Mapping[str, Function], *, names_owner: bool = False
    ) -> None:
        self._columns = columns
        self._functions = functions
        self._names_owner = names_owner
        #: The columns that were compared with the caller.
        self.owners: set[str] = set()

    def of(self, permissive: Sequence[str], restrictive: Sequence[str] = ()) -> str:
        """Return the rows that one of *permissive* and all of *restrictive* admit.

        Raises:
            AnalysisError: pglast isn't installed.
        """
        parts = [_any([self._expression(sql) for sql in permissive])]
        parts += [self._expression(sql) for sql in restrictive]
        return _all(parts, first=parts[0]).noun

    def of_query(self, sql: str) -> str | None:
        """Return the rows that the WHERE of a simple query admits; None if it has none, or isn't simple."""
        node = _parse(sql)
        if (
            node is None
            or type(node).__name__ != "SelectStmt"
            or node.whereClause is None
            or len(node.fromClause or ()) != 1
            or type(node.fromClause[0]).__name__ != "RangeVar"
        ):
            return None
        return self._condition(node.whereClause).noun

    def _expression(self, sql: str) -> Phrase:
        node = _parse(f"SELECT {sql}")
        if node is None:
            return _where(" ".join(sql.split()))
        return self._condition(node.targetList[0].val)

    # Conditions

    def _condition(self, node: Any) -> Phrase:
        found = self._named(node)
        return _where(_spelled(node)) if found is None else found

    def _named(self, node: Any) -> Phrase | None:
        match type(node).__name__:
            case "BoolExpr":
                return self._boolean(node)
            case "A_Const" if type(node.val).__name__ == "Boolean":
                return Phrase("all rows", "true") if node.val.boolval else Phrase("no rows", "false")
            case "ColumnRef":
                name = self._column(node)
                return None if name is None else _flag(name, is_set=True)
            case "BooleanTest":
                return self._test(node)
            case "NullTest":
                return self._null(node)
            case "A_Expr":
                return self._comparison(node)
            case "SubLink":
                return self._subquery(node)
            case "TypeCast":
                return self._named(node.arg)
            case _:
                return None

    def _boolean(self, node: Any) -> Phrase:
        parts = node.args
        match node.boolop.name:
            case "AND_EXPR":
                return _all([self._condition(one) for one in parts])
            case "OR_EXPR":
                return _any([self._condition(one) for one in parts])
            case _:
                return self._negated(parts[0])

    def _negated(self, node: Any) -> Phrase:
        name = self._column(node)
        if name is not None:
            return _flag(name, is_set=False)
        inner = self._condition(node)
        return _where(f"not {inner.clause if inner.clause.startswith('(') else f'({inner.clause})'}")

    def _test(self, node: Any) -> Phrase | None:
        name = self._column(node.arg)
        kinds = {"IS_TRUE": True, "IS_NOT_FALSE": True, "IS_FALSE": False, "IS_NOT_TRUE": False}
        is_set = kinds.get(node.booltesttype.name)
        if is_set is None:
            return None
        if name is not None:
            return _flag(name, is_set=is_set)
        return self._condition(node.arg) if is_set else self._negated(node.arg)

    def _null(self, node: Any) -> Phrase | None:
        operand, is_null = self._operand(node.arg), node.nulltesttype.name == "IS_NULL"
        if operand is None:
            return None
        if operand.kind == "column":
            return _where(f"{operand.name} is {'' if is_null else 'not '}empty")
        if operand.is_caller:
            who = "there is no caller" if is_null else "there is a caller"
            return Phrase(f"all rows if {who}", who)
        return _if(f"{operand.words} is {'missing' if is_null else 'there'}")

    def _comparison(self, node: Any) -> Phrase | None:
        operator, kind = node.name[-1].sval, node.kind.name
        left, right = self._operand(node.lexpr), node.rexpr
        if kind in ("AEXPR_IN", "AEXPR_OP_ANY") and operator == "=":
            return self._among(left, right)
        if kind == "AEXPR_DISTINCT":
            operator = "<>"
        elif kind == "AEXPR_NOT_DISTINCT":
            operator = "="
        elif kind != "AEXPR_OP":
            return None
        other = self._operand(right)
        if left is None or other is None or operator not in _COMPARED:
            return None
        return self._compared(left, operator, other)

    def _compared(self, left: _Operand, operator: str, right: _Operand) -> Phrase | None:
        if right.kind == "column" and left.kind != "column":
            left, right = right, left
            operator = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.get(operator, operator)
        words = f"{left.words} {_COMPARED[operator]} {right.words}"
        if left.kind != "column":
            return _if(words)
        if operator == "=" and right.is_caller:
            return self._own(left.name)
        if operator == "=" and right.kind == "constant":
            if right.name in ("true", "false"):
                return _flag(left.name, is_set=right.name == "true")
            return Phrase(f"rows with {left.name} {right.words}", words)
        return _where(words)

    def _own(self, column: str) -> Phrase:
        self.owners.add(column)
        noun = f"own rows ({column})" if self._names_owner else "own rows"
        return Phrase(noun, f"{column} is the caller")

    def _among(self, left: _Operand | None, right: Any) -> Phrase | None:
        right = _bare(right)
        if left is None:
            return None
        if type(right).__name__ == "SubLink":
            return self._in(left, right.subselect) if right.subLinkType.name == "ARRAY_SUBLINK" else None
        values = right.elements if type(right).__name__ == "A_ArrayExpr" else right
        if isinstance(values, tuple | list):
            found = [self._operand(one) for one in values]
            if all(one is not None and one.kind == "constant" for one in found):
                names = " or ".join(one.words for one in found if one is not None)
                words = f"{left.words} is {names}"
                return _where(words) if left.kind == "column" else _if(words)
            return None
        operand = self._operand(right)
        if operand is None or operand.kind == "constant":
            return None
        if left.kind == "column":
            return _where(f"{left.name} is in {operand.words}")
        if left.is_caller and operand.kind == "column":
            return Phrase(f"rows with the caller in {operand.name}", f"the caller is in {operand.name}")
        return _if(f"{left.words} is in {operand.words}")

    # Subqueries

    def _subquery(self, node: Any) -> Phrase | None:
        select, kind = node.subselect, node.subLinkType.name
        if kind == "EXPR_SUBLINK" and _is_scalar(select):
            return self._named(select.targetList[0].val)
        if kind == "ANY_SUBLINK":
            return self._in(self._operand(node.testexpr), select)
        if kind == "EXISTS_SUBLINK":
            return self._exists(select)
        return None

    def _in(self, left: _Operand | None, select: Any) -> Phrase | None:
        if left is None or left.kind != "column" or len(select.targetList or ()) != 1:
            return None
        target = _bare(select.targetList[0].val)
        if not select.fromClause and type(target).__name__ == "FuncCall":
            call = _call_in_words(target)
            return Phrase(f"rows of {call}", f"{left.name} is in {call}")
        if not _is_plain(select) or type(target).__name__ != "ColumnRef":
            return None
        inner = _alias(select.fromClause[0])
        rest = self._membership(select.whereClause, set(), inner) if _is_of(target, inner) else None
        if rest is None:
            return None
        group: str = target.fields[-1].sval
        return _members(group if left.name == "id" else left.name, rest)

    def _exists(self, select: Any) -> Phrase | None:
        if not _is_plain(select):
            return None
        correlated: set[str] = set()
        rest = self._membership(select.whereClause, correlated, _alias(select.fromClause[0]))
        if rest is None or len(correlated) != 1:
            return None
        (column,) = correlated
        return _members(select.fromClause[0].relname if column == "id" else column, rest)

    def _membership(self, where: Any, correlated: set[str], inner: str) -> list[str] | None:
        """Return the conditions on a membership beside the caller's; None if it isn't the caller's.

        Args:
            where: the condition of the subquery.
            correlated: gets the columns of the outer table that a column of the membership equals.
            inner: the name of the memberships in the subquery.
        """
        if where is None:
            return None
        parts = [where]
        if type(where).__name__ == "BoolExpr" and where.boolop.name == "AND_EXPR":
            parts = list(where.args)
        is_callers, rest = False, list[str]()
        for part in parts:
            if (outer := _correlation(part, inner)) is not None:
                correlated.add(outer)
            elif not _is_of(part, inner):
                return None
            elif self._is_callers(part):
                is_callers = True
            elif (found := self._inside(part)) is not None:
                rest.append(found)
            else:
                return None
        return rest if is_callers else None

    def _is_callers(self, node: Any) -> bool:
        """Whether a comparison says that a column of a membership is the caller."""
        if not _is_equality(node):
            return False
        sides = [self._operand(one, inside=True) for one in (node.lexpr, node.rexpr)]
        kinds = {one.kind for one in sides if one is not None}
        return kinds == {"column", "claim"} and any(one is not None and one.is_caller for one in sides)

    def _inside(self, node: Any) -> str | None:
        """Return a condition on a column of a membership in words."""
        if type(node).__name__ == "ColumnRef":
            return self._column(node, inside=True)
        if type(node).__name__ != "A_Expr":
            return None
        operator, left = node.name[-1].sval, self._operand(node.lexpr, inside=True)
        if node.kind.name in ("AEXPR_IN", "AEXPR_OP_ANY") and operator == "=":
            found = self._among(left, node.rexpr)
            return None if found is None else found.clause
        right = self._operand(node.rexpr, inside=True)
        if left is None or right is None or operator not in _COMPARED or node.kind.name != "AEXPR_OP":
            return None
        return f"{left.words} {_COMPARED[operator]} {right.words}"

    # Operands

    def _column(self, node: Any, *, inside: bool = False) -> str | None:
        if type(node).__name__ != "ColumnRef" or type(node.fields[-1]).__name__ != "String":
            return None
        name: str = node.fields[-1].sval
        return name if inside or name in self._columns else None

    def _operand(self, node: Any, *, inside: bool = False) -> _Operand | None:
        node = _bare(node)
        match type(node).__name__:
            case "ColumnRef":
                name = self._column(node, inside=inside)
                return None if name is None else _Operand("column", name)
            case "A_Const":
                return _constant(node)
            case "SQLValueFunction" if "USER" in node.op.name or "ROLE" in node.op.name:
                return _Operand("role")
            case "FuncCall":
                return self._call(node)
            case "A_Expr" if node.kind.name == "AEXPR_NULLIF":
                return self._operand(node.lexpr, inside=inside)
            case "A_Expr" if node.kind.name == "AEXPR_OP" and node.name[-1].sval in ("->", "->>"):
                return self._part(node)
            case "SubLink" if node.subLinkType.name == "EXPR_SUBLINK" and _is_scalar(node.subselect):
                return self._operand(node.subselect.targetList[0].val, inside=inside)
            case _:
                return None

    def _part(self, node: Any) -> _Operand | None:
        whole, name = self._operand(node.lexpr), self._operand(node.rexpr)
        if whole is None or name is None or name.kind != "constant" or whole.kind != "claim":
            return None
        return _Operand("claim", "", (*whole.path, name.name))

    def _call(self, node: Any) -> _Operand | None:
        parts = tuple(one.sval for one in node.funcname)
        if len(parts) == 2 and parts[0] == "auth" and not node.args and parts[1] in _AUTH:
            return _Operand("claim", "", _AUTH[parts[1]])
        if parts[-1] == "current_setting" and node.args:
            name = self._operand(node.args[0])
            if name is None or name.kind != "constant":
                return None
            if name.name == _CLAIMS:
                return _Operand("claim")
            if name.name.startswith(_ONE_CLAIM):
                return _Operand("claim", "", (name.name.removeprefix(_ONE_CLAIM),))
            return _Operand("setting", name.name)
        if node.args or parts[:-1] == ("pg_catalog",):
            return None
        return self._value_of(parts) or _Operand("call", _call_in_words(node))

    def _value_of(self, parts: tuple[str, ...]) -> _Operand | None:
        """Return the value of a function without arguments whose body is one expression."""
        for function in self._functions.values():
            if (function.schema, function.name)[-len(parts) :] != parts or function.language != "sql":
                continue
            node = _parse(function.body.strip().removeprefix("RETURN ")) or _parse(
                f"SELECT {function.body.strip().removeprefix('RETURN ')}"
            )
            if node is not None and type(node).__name__ == "SelectStmt" and _is_scalar(node):
                inner = {one: each for one, each in self._functions.items() if each is not function}
                return ConditionWords([], inner)._operand(node.targetList[0].val)
        return None


def _parse(sql: str) -> Any:
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


def _spelled(node: Any) -> str:
    from pglast.stream import RawStream

    text: str = RawStream()(node)
    return text


def _call_in_words(node: Any) -> str:
    """The call of a function without its schema, and without the types of its arguments."""
    given = list(node.args or ())
    if node.func_variadic and type(_bare(given[-1])).__name__ == "A_ArrayExpr":
        given[-1:] = _bare(given[-1]).elements or ()
    arguments = ", ".join(_spelled(_bare(one)) for one in given)
    return f"{node.funcname[-1].sval}({arguments})"


def _where(clause: str) -> Phrase:
    return Phrase(f"rows where {clause}", clause, is_named=False)


def _if(clause: str) -> Phrase:
    return Phrase(f"all rows if {clause}", clause)


def _flag(name: str, *, is_set: bool) -> Phrase:
    adjective = name.removeprefix("is_").replace("_", " ")
    is_adjective = name.startswith("is_") or adjective in _ADJECTIVES or adjective.endswith("ed")
    clause = name if is_set else f"not {name}"
    if is_adjective:
        return Phrase(f"{adjective} rows" if is_set else f"rows that aren't {adjective}", clause)
    return Phrase(f"rows {'with' if is_set else 'without'} {name}", clause)


def _members(column: str, rest: Iterable[str]) -> Phrase:
    stem = column.removesuffix("_id").removesuffix("_uuid").replace("_", " ")
    group = _plural(_NOUNS.get(stem, stem))
    conditions = " and ".join(rest)
    words = f"my {group}{f' (where {conditions})' if conditions else ''}"
    return Phrase(f"rows of {words}", f"it is of {words}")


def _plural(noun: str) -> str:
    if noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith(('x', 'ch', 'sh')) else 's'}"


def _any(parts: Sequence[Phrase]) -> Phrase:
    parts = list(dict.fromkeys(parts))
    if len(parts) == 1:
        return parts[0]
    return Phrase(
        " or ".join(one.noun for one in parts),
        f"({' or '.join(one.clause for one in parts)})",
        is_named=all(one.is_named for one in parts),
    )


def _all(parts: Sequence[Phrase], first: Phrase | None = None) -> Phrase:
    parts = list(dict.fromkeys(one for one in parts if one.clause != "true"))
    if not parts:
        return Phrase("all rows", "true")
    if first is None or first not in parts:
        first = next((one for one in parts if one.is_named), parts[0])
    rest = [one.clause for one in parts if one is not first]
    if not rest:
        return first
    noun = first.noun
    if " or " in noun:
        noun = f"({noun})"
    joint = "where" if first.is_named else "and"
    return Phrase(
        f"{noun} {joint} {' and '.join(rest)}",
        " and ".join([first.clause, *rest]),
        is_named=first.is_named,
    )


def _bare(node: Any) -> Any:
    while type(node).__name__ in ("TypeCast", "CollateClause"):
        node = node.arg
    return node


def _is_scalar(select: Any) -> bool:
    """Whether a query only returns an expression."""
    return (
        type(select).__name__ == "SelectStmt"
        and len(select.targetList or ()) == 1
        and not select.fromClause
        and select.whereClause is None
    )


def _is_plain(select: Any) -> bool:
    """Whether a query reads one table, without grouping."""
    return (
        len(select.fromClause or ()) == 1
        and type(select.fromClause[0]).__name__ == "RangeVar"
        and not (select.groupClause or select.havingClause or select.limitCount or select.larg)
    )


def _alias(node: Any) -> str:
    name: str = node.alias.aliasname if node.alias is not None else node.relname
    return name


def _is_equality(node: Any) -> bool:
    return type(node).__name__ == "A_Expr" and node.kind.name == "AEXPR_OP" and node.name[-1].sval == "="


def _correlation(node: Any, inner: str) -> str | None:
    """Return the column of the outer table in ``inner.a = outer.b``."""
    if not _is_equality(node):
        return None
    sides = [_bare(node.lexpr), _bare(node.rexpr)]
    if any(type(side).__name__ != "ColumnRef" for side in sides):
        return None
    outside = [side for side in sides if not _is_of(side, inner)]
    if len(outside) != 1 or type(outside[0].fields[-1]).__name__ != "String":
        return None
    name: str = outside[0].fields[-1].sval
    return name


def _is_of(node: Any, relation: str) -> bool:
    """Whether all columns that *node* names are of *relation*, in so many words."""
    if isinstance(node, tuple | list):
        return all(_is_of(one, relation) for one in node)
    if type(node).__name__ == "ColumnRef":
        names = [getattr(one, "sval", None) for one in node.fields]
        return len(names) > 1 and names[-2] == relation
    if not hasattr(node, "__slots__") or isinstance(node, str):
        return True
    return all(_is_of(getattr(node, name), relation) for name in node.__slots__)


def _constant(node: Any) -> _Operand | None:
    value = node.val
    match type(value).__name__:
        case "Boolean":
            return _Operand("constant", "true" if value.boolval else "false")
        case "Integer":
            return _Operand("constant", str(value.ival))
        case "Float":
            return _Operand("constant", value.fval)
        case "String":
            return _Operand("constant", value.sval)
        case _:
            return None
