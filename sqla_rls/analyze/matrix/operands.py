"""The operands of comparisons: columns, claims, settings, constants and calls."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqla_rls.analyze.matrix.tree import bare, is_scalar, operator, parse
from sqla_rls.analyze.vocabulary.expressions import CLAIMS, ONE_CLAIM
from sqla_rls.analyze.vocabulary.trees import spelled
from sqla_rls.analyze.worlds.objects import Function

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


Kind: TypeAlias = Literal["column", "claim", "setting", "constant", "role", "call"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A side of a comparison."""

    kind: Kind
    name: str = ""
    path: tuple[str, ...] = ()

    @property
    def is_caller(self) -> bool:
        """Whether it is the subject of the caller."""
        return self.kind == "claim" and self.path == ("sub",)

    @property
    def words(self) -> str:
        """The operand in words."""
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


class Operands:
    """Reads the operands of a relation's conditions.

    Args:
        columns: the columns of the relation.
        functions: the functions of the database: one without arguments may stand for its value.
    """

    def __init__(self, columns: Collection[str], functions: Mapping[str, Function]) -> None:
        self._columns = columns
        self._functions = functions

    def column(self, node: Any, *, inside: bool = False) -> str | None:
        """Return the column that *node* is; *inside* a subquery, that of any table.  None if it is none."""
        if type(node).__name__ != "ColumnRef" or type(node.fields[-1]).__name__ != "String":
            return None
        name: str = node.fields[-1].sval
        return name if inside or name in self._columns else None

    def of(self, node: Any, *, inside: bool = False) -> Operand | None:
        """Return the operand that *node* is, or None; *inside* a subquery, columns are those of any table."""
        node = bare(node)
        match type(node).__name__:
            case "ColumnRef":
                name = self.column(node, inside=inside)
                return None if name is None else Operand("column", name)
            case "A_Const":
                return _constant(node)
            case "SQLValueFunction" if "USER" in node.op.name or "ROLE" in node.op.name:
                return Operand("role")
            case "FuncCall" if _is_whole_or_null(node):
                return self.of(node.args[0], inside=inside)
            case "FuncCall":
                return self._call(node)
            case "A_Expr" if node.kind.name == "AEXPR_NULLIF":
                # Other values than the empty text may be those that a row has.
                other = self.of(node.rexpr)
                return self.of(node.lexpr, inside=inside) if other == Operand("constant", "") else None
            case "A_Expr" if node.kind.name == "AEXPR_OP" and operator(node.name) in ("->", "->>"):
                return self._part(node)
            case "SubLink" if node.subLinkType.name == "EXPR_SUBLINK" and is_scalar(node.subselect):
                return self.of(node.subselect.targetList[0].val, inside=inside)
            case _:
                return None

    def _part(self, node: Any) -> Operand | None:
        whole, name = self.of(node.lexpr), self.of(node.rexpr)
        if whole is None or name is None or name.kind != "constant" or whole.kind != "claim":
            return None
        return Operand("claim", "", (*whole.path, name.name))

    def _call(self, node: Any) -> Operand | None:
        parts = tuple(one.sval for one in node.funcname)
        if len(parts) == 2 and parts[0] == "auth" and not node.args and parts[1] in _AUTH:
            return Operand("claim", "", _AUTH[parts[1]])
        if parts[-1] == "current_setting" and node.args:
            name = self.of(node.args[0])
            if name is None or name.kind != "constant":
                return None
            if name.name == CLAIMS:
                return Operand("claim")
            if name.name.startswith(ONE_CLAIM):
                return Operand("claim", "", (name.name.removeprefix(ONE_CLAIM),))
            return Operand("setting", name.name)
        if node.args or parts[:-1] == ("pg_catalog",):
            return None
        return self._value_of(parts) or Operand("call", call_in_words(node))

    def _value_of(self, parts: tuple[str, ...]) -> Operand | None:
        """Return the value of a function without arguments whose body is one expression."""
        for function in self._functions.values():
            if (function.schema, function.name)[-len(parts) :] != parts or function.language != "sql":
                continue
            node = parse(function.body.strip().removeprefix("RETURN ")) or parse(
                f"SELECT {function.body.strip().removeprefix('RETURN ')}"
            )
            if node is not None and type(node).__name__ == "SelectStmt" and is_scalar(node):
                inner = {one: each for one, each in self._functions.items() if each is not function}
                return Operands([], inner).of(node.targetList[0].val)
        return None


def _is_whole_or_null(node: Any) -> bool:
    """Return whether *node* is a SUBSTRING that is the whole text, if the text is of the pattern."""
    if node.funcname[-1].sval != "substring" or len(node.args or ()) != 2:
        return False
    pattern = bare(node.args[1])
    text = getattr(getattr(pattern, "val", None), "sval", "")
    is_group = text.startswith("^(") and text.endswith(")$") and not {"(", ")"} & {*text[2:-2]}
    return type(pattern).__name__ == "A_Const" and is_group


def _constant(node: Any) -> Operand | None:
    value = node.val
    match type(value).__name__:
        case "Boolean":
            return Operand("constant", "true" if value.boolval else "false")
        case "Integer":
            return Operand("constant", str(value.ival))
        case "Float":
            return Operand("constant", value.fval)
        case "String":
            return Operand("constant", value.sval)
        case _:
            return None


def call_in_words(node: Any) -> str:
    """Return the call of a function without its schema, and without the types of its arguments."""
    given = list(node.args or ())
    if node.func_variadic and type(bare(given[-1])).__name__ == "A_ArrayExpr":
        given[-1:] = bare(given[-1]).elements or ()
    arguments = ", ".join(spelled(bare(one)) for one in given)
    return f"{node.funcname[-1].sval}({arguments})"
