"""Constants of the parser, and the constants inside arrays and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from sqla_rls.analyze.vocabulary.terms import Constant, Kind

_KINDS: Final[dict[str, Kind]] = {
    **dict.fromkeys(("text", "varchar", "bpchar", "char", "name", "citext"), "text"),
    **dict.fromkeys(
        ("int2", "int4", "int8", "numeric", "float4", "float8", "oid", "integer", "bigint", "smallint"),
        "number",
    ),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
    "interval": "interval",
    **dict.fromkeys(("timestamp", "timestamptz", "date"), "timestamp"),
    **dict.fromkeys(
        ("json", "jsonb", "jsonpath", "uuid", "bytea", "inet", "cidr", "time", "timetz", "regclass"), "other"
    ),
}
_TRUE_OF_BOOLEAN: Final = ("t", "true", "yes", "on", "y", "1")


def of_node(node: Any) -> Constant | None:
    """Return the constant of an A_Const; None for NULL."""
    value = node.val
    match type(value).__name__:
        case "NoneType":
            return None
        case "Boolean":
            return Constant("boolean", "true" if value.boolval else "false")
        case "Integer":
            return Constant("number", str(value.ival))
        case "Float":
            return _as_number(value.fval)
        case "String":
            return Constant("text", value.sval)
        case _:
            return Constant("other", str(value.bsval))


def as_type(constant: Constant, name: str) -> Constant:
    """Return *constant* as the type of that name reads it; of an unknown type, as it is."""
    kind = constant.kind if constant.kind == "other" else _KINDS.get(name, constant.kind)
    if kind == "boolean":
        return Constant(kind, "true" if constant.value.strip().lower() in _TRUE_OF_BOOLEAN else "false")
    return _as_number(constant.value) if kind == "number" else Constant(kind, constant.value)


def _as_number(spelling: str) -> Constant:
    """Return the number as JSON spells it; the text if it is none, such as ``''``, ``NaN`` and a name."""
    readers: tuple[Callable[[str], float], ...] = (partial(int, base=0), int, float)
    for read in readers:
        try:
            value = read(spelling)
            is_finite = math.isfinite(value)
        except (ValueError, OverflowError):
            continue
        if is_finite:
            return Constant("number", json.dumps(value))
    return Constant("text", spelling)


def of_array(literal: str) -> list[str]:
    """Return the elements of an array literal that aren't NULL."""
    elements: list[str] = []
    element, quoted, was_quoted, escaped = "", False, False, False
    for char in literal:
        if escaped:
            element, escaped = element + char, False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted, was_quoted = not quoted, True
        elif quoted:
            element += char
        elif char in "{},":
            bare = element.strip()
            if was_quoted or (bare and bare.upper() != "NULL"):
                elements.append(element if was_quoted else bare)
            element, was_quoted = "", False
        else:
            element += char
    return elements


def of_json(constant: Constant) -> Iterator[tuple[tuple[str, ...], Constant]]:
    """Yield each value inside a JSON constant with the names that lead to it."""
    try:
        value = json.loads(constant.value)
    except ValueError:
        return
    if isinstance(value, dict):
        yield from _inside(value, ())


def _inside(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Constant]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _inside(each, (*path, name))
    elif isinstance(value, str):
        yield path, Constant("text", value)
    elif isinstance(value, bool):
        yield path, Constant("boolean", "true" if value else "false")
    elif isinstance(value, int | float):
        yield path, Constant("number", json.dumps(value))
    elif value is not None:
        yield path, Constant("other", json.dumps(value))


def as_json(path: tuple[str, ...], constant: Constant) -> Constant:
    """Return the JSON object with *constant* at *path*."""
    value: Any = constant.value
    if constant.kind in ("number", "boolean"):
        value = json.loads(constant.value)
    elif constant.kind == "other":
        try:
            value = json.loads(constant.value)
        except ValueError:
            value = constant.value
    for name in reversed(path):
        value = {name: value}
    return Constant("other", json.dumps(value))
