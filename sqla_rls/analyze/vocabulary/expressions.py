"""Nodes of a parse tree become terms, constants and comparisons.

Each node has a value: the terms and constants that its result may come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from sqla_rls.analyze.vocabulary import constants, functions
from sqla_rls.analyze.vocabulary.comparisons import Comparisons, Value, claim_at, matches, union
from sqla_rls.analyze.vocabulary.terms import (
    COLLATE,
    Claim,
    Column,
    Constant,
    Reference,
    Setting,
    Subject,
    Term,
    Words,
)

#: The settings that every world has.
_ROLE_SETTINGS: Final = frozenset({"role", "is_superuser"})
CLAIMS: Final = "request.jwt.claims"
ONE_CLAIM: Final = "request.jwt.claim."
_OTHER_CLAUSES: Final = (
    "groupClause",
    "windowClause",
    "sortClause",
    "distinctClause",
    "limitCount",
    "limitOffset",
)
_WRITES: Final = {
    "InsertStmt": frozenset({"INSERT"}),
    "UpdateStmt": frozenset({"UPDATE"}),
    "DeleteStmt": frozenset({"DELETE"}),
    "MergeStmt": frozenset({"INSERT", "UPDATE", "DELETE"}),
}
#: The relation of a column of a subquery, or of a parameter.
_DERIVED: Final[tuple[tuple[str, ...], ...]] = ((),)
_BOTH: Final = (Constant("boolean", "true"), Constant("boolean", "false"))
_ACCESS: Final = ("->", "->>", "#>", "#>>")
_EXCLUDING: Final = ("<>", "!~~", "!~~*", "!~", "!~*")
#: The types of numbers, as the parser names them.
_NUMBERS: Final = ("int2", "int4", "int8", "numeric", "float4", "float8")
_ARITHMETIC: Final = ("+", "-", "*", "/", "%", "||", "^", "&", "|", "#", "<<", ">>")


class Reader:
    """Walks through statements, and keeps their terms and names in *words*."""

    def __init__(self) -> None:
        self.words = Words()
        self.comparisons = Comparisons(self.words)
        self._with: list[str] = []
        #: The relations of each FROM around a node by their aliases; None is a subquery or a function.
        self._scopes: list[dict[str, tuple[str, ...] | None]] = []
        #: The columns that hold all claims, as in ``FROM auth.jwt() AS claims``.
        self._documents: dict[str, Value] = {}

    # Statements

    def condition(self, statement: Any) -> None:
        """Read a statement whose columns are conditions."""
        for value in self.query(statement):
            self.comparisons.finish(value)

    def query(self, node: Any, *, names_columns: bool = False) -> list[Value]:
        """Return the values of the columns of a query; of another statement, none."""
        if type(node).__name__ != "SelectStmt":
            self.comparisons.finish(self._inside(node))
            return []
        outer, documents = len(self._with), dict(self._documents)
        self._read_with(node.withClause)
        if node.larg is not None:
            sides = [self.query(node.larg, names_columns=names_columns), self.query(node.rarg)]
            columns = [left | right for left, right in zip(*sides, strict=False)]
        else:
            columns = self._columns(node, names_columns)
        for name in _OTHER_CLAUSES:
            self.comparisons.finish(self._inside(getattr(node, name)))
        del self._with[outer:]
        if not names_columns:
            self._documents = documents
        return columns

    def _read_with(self, clause: Any) -> None:
        if clause is None:
            return
        if clause.recursive:
            self._with += [cte.ctename for cte in clause.ctes]
        for cte in clause.ctes:
            columns = self.query(cte.ctequery, names_columns=True)
            # Without RECURSIVE, its own query still reads the table of that name.
            self._with.append(cte.ctename)
            self.name_values([name.sval for name in cte.aliascolnames or ()], columns)

    def _columns(self, node: Any, names_columns: bool) -> list[Value]:
        self._scopes.append({})
        columns = self._columns_in_scope(node, names_columns)
        self._scopes.pop()
        return columns

    def _columns_in_scope(self, node: Any, names_columns: bool) -> list[Value]:
        for each in node.fromClause or ():
            self._from(each)
        if node.whereClause is not None:
            self.comparisons.finish(self.value(node.whereClause))
        if node.havingClause is not None:
            self.comparisons.finish(self.value(node.havingClause))
        if node.valuesLists:
            rows = [[self.value(each) for each in row] for row in node.valuesLists]
            return [union(column) for column in zip(*rows, strict=False)]
        columns = []
        for target in node.targetList or ():
            value = self.value(target.val)
            if names_columns and target.name is not None:
                self.name_values([target.name], [value])
            columns.append(value)
        return columns

    def name_values(self, names: Sequence[str], values: Sequence[Value]) -> None:
        """Note that columns with *names* have *values*."""
        for name, value in zip(names, values, strict=False):
            self.words.names.add(name)
            self._documents.pop(name, None)
            if Claim(()) in value.terms:
                self._documents[name] = value
            self.comparisons.compare(Value((Column(name),), references=(Reference(name, _DERIVED),)), value)
        for value in values[len(names) :]:
            self.comparisons.finish(value)

    def _from(self, node: Any) -> None:
        match type(node).__name__:
            case "RangeVar":
                self._relation(node)
            case "RangeSubselect":
                columns = self.query(node.subquery, names_columns=True)
                self._note_derived(node.alias)
                self.name_values(
                    [name.sval for name in node.alias.colnames or ()] if node.alias else [], columns
                )
            case "JoinExpr":
                outer = len(self._scopes[-1])
                self._from(node.larg)
                middle = len(self._scopes[-1])
                self._from(node.rarg)
                if node.quals is not None:
                    self.comparisons.finish(self.value(node.quals))
                relations = list(self._scopes[-1].values())
                for name in (each.sval for each in node.usingClause or ()):
                    self.words.names.add(name)
                    left, right = (
                        Reference(name, tuple(filter(None, some)))
                        for some in (relations[outer:middle], relations[middle:])
                    )
                    self.words.joins[left, right] = None
            case "RangeFunction":
                # The second part is the columns of one function in ROWS FROM.
                values = [self.value(call) for call, _ in node.functions]
                for _, columns in node.functions:
                    self._inside(columns)
                self._inside(node.coldeflist)
                alias = node.alias
                self._note_derived(alias)
                names = [name.sval for name in alias.colnames or ()] or [alias.aliasname] if alias else []
                names += [column.colname for column in node.coldeflist or ()]
                for name in names:
                    self.name_values([name], [union(values)])
                if not names:
                    self.comparisons.finish(union(values))
            case _:
                self.comparisons.finish(self._inside(node))

    def _relation(self, node: Any) -> None:
        parts = tuple(part for part in (node.schemaname, node.relname) if part)
        self.words.names |= set(parts)
        is_relation = len(parts) > 1 or node.relname not in self._with
        if is_relation:
            self.words.relations.add(parts)
        if self._scopes:
            name = node.relname if node.alias is None else node.alias.aliasname
            self._scopes[-1][name] = parts if is_relation else None

    def _note_derived(self, alias: Any) -> None:
        if alias is not None:
            self._scopes[-1][alias.aliasname] = None

    def _reference(self, names: Sequence[str]) -> Iterator[Reference]:
        """Yield the column of these *names*, if it may be one of a relation."""
        *qualifiers, name = names
        if not qualifiers:
            around = (one for scope in reversed(self._scopes) for one in scope.values())
            yield Reference(name, tuple(filter(None, around)))
            return
        scope = next((one for one in reversed(self._scopes) if qualifiers[-1] in one), {})
        relation = scope.get(qualifiers[-1], tuple(qualifiers))
        yield Reference(name, _DERIVED if relation is None else (relation,))

    # Expressions

    def value(self, node: Any) -> Value:
        """Return the sources of the result of *node*."""
        read: Callable[[Any], Value] | None = getattr(self, f"_read_{type(node).__name__}", None)
        return self._inside(node) if read is None else read(node)

    def _inside(self, node: Any) -> Value:
        if node is None:
            return Value()
        if isinstance(node, tuple | list):
            return union(map(self.value, node))
        if not hasattr(node, "__slots__") or isinstance(node, str):
            return Value()
        if type(node).__name__ == "SelectStmt":
            return union(self.query(node))
        self._note_command(node)
        return union(self.value(child) for child in _children(node))

    def _note_command(self, node: Any) -> None:
        name = type(node).__name__
        self.words.writes |= _WRITES.get(name, frozenset())
        if name == "OnConflictClause" and node.action.name == "ONCONFLICT_UPDATE":
            self.words.writes.add("UPDATE")
        if name in ("DoStmt", "ExecuteStmt"):
            # A text, or a statement that the caller has prepared.
            self.words.leave_unread()

    def _read_ColumnRef(self, node: Any) -> Value:
        names = [field.sval for field in node.fields if type(field).__name__ == "String"]
        self.words.names |= set(names)
        is_star = len(names) < len(node.fields)
        if is_star:
            return Value()
        if names[-1] in self._documents:
            return self._documents[names[-1]]
        return Value((Column(names[-1]),), references=tuple(self._reference(names)))

    def _read_ParamRef(self, node: Any) -> Value:
        name = f"${node.number}"
        return Value((Column(name),), references=(Reference(name, _DERIVED),))

    def _read_A_Const(self, node: Any) -> Value:
        constant = constants.of_node(node)
        return Value() if constant is None else Value((), (constant,))

    def _read_RangeVar(self, node: Any) -> Value:
        self._relation(node)
        return Value()

    def _read_TypeName(self, node: Any) -> Value:
        names = tuple(name.sval for name in node.names or ())
        # The type of a column is a part of the type of its table.
        self.note_type(names[:-1] if node.pct_type else names)
        return self._inside(node.typmods)

    def note_type(self, names: tuple[str, ...]) -> None:
        """Note a type, and the type of its elements if the name is that of an array."""
        self.words.types.add(names)
        if names[-1].startswith("_"):
            self.words.types.add((*names[:-1], names[-1].lstrip("_")))

    def _read_TypeCast(self, node: Any) -> Value:
        self.value(node.typeName)
        value = self.value(node.arg)
        name = node.typeName.names[-1].sval
        if value.terms:
            if name in _NUMBERS:
                self.words.numbers |= set(value.terms)
            if name == "bool" and any(
                isinstance(term, Claim | Setting) or _path(term) for term in value.terms
            ):
                self.comparisons.compare(value, Value((), _BOTH))
            return value
        found = value.constants
        if node.typeName.arrayBounds and type(node.arg).__name__ == "A_Const":
            found = tuple(Constant("text", each) for c in found for each in constants.of_array(c.value))
        return Value((), tuple(constants.as_type(constant, name) for constant in found))

    def _read_A_Expr(self, node: Any) -> Value:
        operator = node.name[-1].sval
        self._note_operator(node.name)
        kind = node.kind.name
        if kind == "AEXPR_OP" and operator in _ACCESS:
            return self._access(self.value(node.lexpr), [node.rexpr], is_path=operator.startswith("#"))
        if kind == "AEXPR_OP" and (operator in _ARITHMETIC or node.lexpr is None):
            return self.value(node.lexpr) | self.value(node.rexpr)
        for left, right in self._sides(node):
            self.comparisons.compare(
                left, right if "~" not in operator else right | Value((), tuple(matches(right)))
            )
            if operator in _EXCLUDING:
                self.comparisons.exclude(left | right)
        return self.value(node.lexpr) if kind == "AEXPR_NULLIF" else Value()

    def _note_operator(self, name: Any) -> None:
        if name:
            self.words.operators.add(tuple(part.sval for part in name))

    def _read_SortBy(self, node: Any) -> Value:
        self._note_operator(node.useOp)
        return self._inside(node)

    def _sides(self, node: Any) -> Iterator[tuple[Value, Value]]:
        left, right = node.lexpr, node.rexpr
        if type(right).__name__ == "A_ArrayExpr":
            right = right.elements or ()
        for each in right if isinstance(right, tuple) else (right,):
            if type(left).__name__ == "RowExpr" == type(each).__name__:
                yield from zip(map(self.value, left.args), map(self.value, each.args), strict=False)
            else:
                yield self.value(left), self.value(each)

    def _read_SubLink(self, node: Any) -> Value:
        self._note_operator(node.operName)
        columns = self.query(node.subselect)
        if node.testexpr is None:
            if node.subLinkType.name == "EXISTS_SUBLINK":
                return Value()
            return union(columns)
        tests = node.testexpr.args if type(node.testexpr).__name__ == "RowExpr" else (node.testexpr,)
        # The star is one column of unknown number.
        for test, column in itertools.zip_longest(map(self.value, tests), columns, fillvalue=Value()):
            self.comparisons.compare(test, column)
        return Value()

    def _read_BoolExpr(self, node: Any) -> Value:
        for argument in node.args:
            self.comparisons.finish(self.value(argument))
        return Value()

    def _read_BooleanTest(self, node: Any) -> Value:
        self.comparisons.finish(self.value(node.arg))
        return Value()

    def _read_NullTest(self, node: Any) -> Value:
        tested = self.value(node.arg)
        if node.nulltesttype.name == "IS_NULL":
            self.words.null_tests |= {
                term.name for term in tested.terms if isinstance(term, Column) and not term.path
            }
        self.comparisons.finish(tested)
        return Value()

    def _read_CaseExpr(self, node: Any) -> Value:
        subject = None if node.arg is None else self.value(node.arg)
        results = [] if node.defresult is None else [self.value(node.defresult)]
        for when in node.args:
            tested = self.value(when.expr)
            if subject is None:
                self.comparisons.finish(tested)
            else:
                self.comparisons.compare(subject, tested)
            results.append(self.value(when.result))
        return union(results)

    def _read_FuncCall(self, node: Any) -> Value:
        parts = tuple(name.sval for name in node.funcname)
        self.words.names |= set(parts)
        self.words.functions.add(parts)
        name = parts[-1]
        if name.startswith(functions.RUN_TEXT):
            self.words.is_readable = False
        if parts[:-1] == ("auth",) and name in functions.AUTH and not node.args:
            return Value((claim_at(functions.AUTH[name]),))
        if name == "current_setting" and parts[:-1] in ((), ("pg_catalog",)):
            return self._setting(node.args)
        arguments = list(node.args or ())
        if name in functions.PATHS and arguments:
            return self._access(self.value(arguments[0]), arguments[1:], is_path=True)
        values = [self.value(each) for each in arguments]
        self.words.arguments.setdefault(name, set()).update(union(values).terms)
        for aggregate in (node.agg_filter, node.agg_order, node.over):
            self.comparisons.finish(self._inside(aggregate))
        if name in functions.COMPARING:
            self.comparisons.compare(*values)
            return Value()
        if parts[:-1] not in ((), ("pg_catalog",)):
            # Its body compares its arguments with columns of other tables.
            self.words.compare([], union(values).constants)
        if name in functions.TRANSPARENT or len(values) == 1:
            return union(values)
        # Which argument a constant is compared with, only the function knows.
        self.words.compare([], union(values).constants)
        return Value(union(values).terms)

    def _read_SQLValueFunction(self, node: Any) -> Value:
        self.words.keywords.add(node.op.name.removeprefix("SVFOP_").removesuffix("_N").lower())
        return Value()

    def _read_CollateClause(self, node: Any) -> Value:
        value = self.value(node.arg)
        self.words.arguments.setdefault(COLLATE, set()).update(value.terms)
        return value

    def _setting(self, arguments: Sequence[Any]) -> Value:
        name = self.value(arguments[0])
        for rest in arguments[1:]:
            self.value(rest)
        if name.terms or len(name.constants) != 1:
            self.words.is_complete = False
            self.words.other_settings.add("whose name is computed")
            return Value()
        setting = name.constants[0].value.lower()
        if setting == CLAIMS:
            return Value((claim_at(()),))
        if setting.startswith(ONE_CLAIM):
            return Value((claim_at((setting.removeprefix(ONE_CLAIM),)),))
        if "." not in setting:
            self.words.other_settings |= {setting} - _ROLE_SETTINGS
            return Value()
        self.words.settings[setting] = None
        return Value((Setting(setting),))

    def _access(self, source: Value, keys: Sequence[Any], *, is_path: bool) -> Value:
        path: list[str] = []
        for value in [self.value(key) for key in keys]:
            if value.terms or not value.constants:
                # The key is only known at run time.
                self.comparisons.compare(source, value)
                return source
            for constant in value.constants:
                is_list = is_path and constant.value.startswith("{") and constant.value.endswith("}")
                path += constants.of_array(constant.value) if is_list else [constant.value]
        names = tuple(_without_places(path))
        return Value(tuple(_part(term, names) for term in source.terms), source.constants)


def _part(term: Term, names: tuple[str, ...]) -> Term:
    if isinstance(term, Claim):
        return claim_at((*term.path, *names))
    if isinstance(term, Column | Setting):
        return replace(term, path=(*term.path, *names))
    return term


def _path(term: Term) -> tuple[str, ...]:
    return () if isinstance(term, Subject) else term.path


def _without_places(path: Iterable[str]) -> Iterator[str]:
    """Yield the names of *path* up to the first number: the place in a list."""
    for name in path:
        if name.lstrip("-").isdigit():
            return
        yield name


def _children(node: Any) -> Iterator[Any]:
    for name in node.__slots__:
        child = getattr(node, name)
        if child is not None and not isinstance(child, str | int | float | bool):
            yield child
