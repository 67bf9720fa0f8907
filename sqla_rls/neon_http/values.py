"""Values between JSON and the texts of Postgres, by the rules of Neon's SQL over HTTP."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from psycopg.postgres import types

from sqla_rls.neon_http.errors import BadRequest

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class _Number(float):
    """A number with a fraction or an exponent, in its own spelling."""

    __slots__ = ("text",)  # a request may have millions

    text: str


def _number(text: str) -> _Number:
    number = _Number(text)
    if not math.isfinite(number):
        raise ValueError
    number.text = text
    return number


def _constant(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity aren't JSON


def loads(body: bytes) -> Any:
    """Return the JSON value of *body*.

    Raises:
        BadRequest: the body isn't JSON in UTF-8.
    """
    try:
        return json.loads(body.decode(), parse_float=_number, parse_constant=_constant)
    except (ValueError, RecursionError):
        raise BadRequest("the request can't be read: its body isn't JSON in UTF-8. Send a query") from None


def encoded(text: str, name: str) -> bytes:
    """Return *text* in UTF-8.

    Raises:
        BadRequest: Postgres can't hold the text.
    """
    if "\0" in text:
        raise BadRequest(f"the request can't run: {name} has a NUL, which Postgres can't hold. Leave it out")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadRequest(
            f"the request can't run: {name} has a lone surrogate, which isn't Unicode. Leave it out"
        ) from None


def parameter(value: Any) -> bytes | None:
    """Return the text of the parameter *value*; None is NULL.

    Raises:
        BadRequest: Postgres can't hold the text, or the value is nested too deeply.
    """
    if value is None or isinstance(value, str):
        return None if value is None else encoded(value, "a parameter")
    try:
        text = _array(value) if isinstance(value, list) else _scalar(value)
    except RecursionError:
        raise BadRequest("the request can't run: a parameter is nested too deeply. Send it as text") from None
    return encoded(text, "a parameter")


def _scalar(value: Any) -> str:
    if isinstance(value, _Number):
        return value.text
    return str(value) if type(value) is int else _encode(value)


def _array(values: list[Any]) -> str:
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value)
    if isinstance(value, str | dict):
        text = value if isinstance(value, str) else _encode(value)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _scalar(value)


#: Returns the JSON text of a value, by Postgres's text.
Writer = Callable[[str], str]


def _json_number(text: str) -> str:
    return text if text[-1].isdigit() else _encode(text)  # NaN and Infinity


_WRITERS: Final[dict[str, Writer]] = {
    "bool": lambda text: "true" if text == "t" else "false",
    "int2": str,
    "int4": str,
    "float4": _json_number,
    "float8": _json_number,
    # Postgres has checked that it is JSON.  Its own text keeps every digit.
    "json": str,
    "jsonb": str,
}


# A caller may create any number of types, each with another oid.
@lru_cache(maxsize=1024)
def writer(oid: int) -> Writer:
    """Return the writer of values of the type with *oid*.

    Booleans, small integers and floats are JSON's own, and JSON stands as it is.  Arrays of the built-in
    types are JSON arrays.  All other values are their texts, so that no digit is lost.
    """
    found = types.get(oid)
    if found is None:
        return _encode
    element = _WRITERS.get(found.name, _encode)
    if oid != found.array_oid:
        return element
    return lambda text: _read_array(text, element, found.delimiter)


_BRACKETS: Final = str.maketrans("{}", "[]")


@lru_cache(maxsize=16)
def _unquoted(delimiter: str) -> re.Pattern[str]:
    """Return the pattern of a value that isn't quoted, or of the characters between two values."""
    between = "{}" + re.escape(delimiter)
    return re.compile(f"([^{between}]+)|[{between}]+")


def _read_array(text: str, element: Writer, delimiter: str) -> str:
    """Return the JSON array of Postgres's array *text*; the bounds of the array are dropped."""
    # Not character by character, since a value may have millions.  No text of Postgres has a NUL.
    text = text[text.index("{") :].replace("\\\\", "\0b").replace('\\"', "\0q")
    parts = text.split('"')
    parts[::2] = [_read_unquoted(part, element, delimiter) for part in parts[::2]]
    parts[1::2] = [element(part.replace("\0q", '"').replace("\0b", "\\")) for part in parts[1::2]]
    return "".join(parts)


def _read_unquoted(text: str, element: Writer, delimiter: str) -> str:
    if element is str or (element is _json_number and "NaN" not in text and "Infinity" not in text):
        return text.translate(_BRACKETS).replace("NULL", "null")

    def part(found: re.Match[str]) -> str:
        if (value := found[1]) is None:
            return found[0].translate(_BRACKETS).replace(delimiter, ",")
        return "null" if value == "NULL" else element(value)

    return _unquoted(delimiter).sub(part, text)
