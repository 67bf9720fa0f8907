"""Values between JSON and the texts of Postgres, by the rules of Neon's SQL over HTTP."""

from __future__ import annotations

import json
import math
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


def _read_array(text: str, element: Writer, delimiter: str) -> str:
    """Return the JSON array of Postgres's array *text*; the bounds of the array are dropped.

    Each step is a function of str over the whole text: a value may have millions of elements, and the event
    loop waits.  No text of Postgres has a NUL.
    """
    text = text[text.index("{") :].replace("\\\\", "\0b").replace('\\"', "\0q")
    return _read_texts(text, delimiter) if element is _encode else _read_values(text, element)


def _read_texts(text: str, delimiter: str) -> str:
    # The elements get quotation marks, and those in Postgres's keep theirs.  In JSON, \0 is \u0000, and the
    # characters \1 to \4 are free.
    parts = _encode(text)[1:-1].split('\\"')
    outside = "\4".join(parts[::2])
    outside = outside.replace(delimiter, '"\3"').replace("{", '\1"').replace("}", '"\2')
    outside = outside.replace('\1""\2', "\1\2")
    while (inner := outside.replace('\1"\1', "\1\1").replace('\2"\2', "\2\2")) != outside:
        outside = inner
    outside = outside.replace('\2"\3"\1', "\2\3\1").replace('"NULL"', "null")
    parts[::2] = outside.replace("\1", "[").replace("\2", "]").replace("\3", ",").split("\4")
    whole = "".join(parts).replace("\\u0000b", "\1").replace("\\u0000q", '\\"')
    return whole.replace("\1", "\\\\")


def _read_values(text: str, element: Writer) -> str:
    """Read elements that JSON has, too, with commas between them."""
    parts = text.split('"')
    # Only JSON is in quotation marks, and it has no control characters like \4.
    inside = "\4".join(parts[1::2]).replace("\0q", '"').replace("\0b", "\\")
    outside = "\4".join(parts[::2])
    if element is _WRITERS["bool"]:
        outside = outside.replace("t", "true").replace("f", "false")
    elif element is _json_number:
        outside = outside.replace("NaN", '"NaN"').replace("-Infinity", '"-\1"')
        outside = outside.replace("Infinity", '"Infinity"').replace("\1", "Infinity")
    outside = outside.replace("{", "[").replace("}", "]").replace("NULL", "null")
    parts[::2], parts[1::2] = outside.split("\4"), inside.split("\4") if len(parts) > 1 else []
    return "".join(parts)
