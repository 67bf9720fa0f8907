"""Values near a constant, and the texts of values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqla_rls.analyze.vocabulary import Constant

#: The seconds of each unit of an interval.
_UNITS: Final = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0,
    "week": 604800.0, "mon": 2592000.0, "month": 2592000.0, "year": 31557600.0,
}  # fmt: skip


def as_input(value: Any) -> str:
    """Return the text of *value* as the type's input function reads it."""
    if isinstance(value, list):
        inner = ",".join(json.dumps(str(one)) for one in value)
        return "{" + inner + "}"
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def natural(constant: Constant) -> Any:
    """Return the value of *constant*: a boolean, a number, or its text."""
    if constant.kind == "boolean":
        return constant.value == "true"
    if constant.kind == "number":
        return json.loads(constant.value)
    return constant.value


def around(number: str) -> Iterator[int | float]:
    """Yield *number*, and numbers beside it."""
    value = json.loads(number)
    # A type of whole numbers doesn't accept the last.
    yield from (value, value - 1, value + 1, value + 0.5)


def patterns(text: str) -> Iterator[str]:
    """Yield a text that matches *text* as a pattern, one in the other case, and *text*."""
    if "%" in text or "_" in text:
        instance = text.replace("%", "x").replace("_", "x")
        yield from (instance, instance.swapcase())
    yield text


def moments(base: str, constants: Iterable[Constant]) -> Iterator[str]:
    """Yield moments before, between and after those of the constants; intervals count from now, both ways."""
    ages = sorted({_seconds(one.value) for one in constants if one.kind == "interval"} - {0.0})
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for lower, upper in zip([0.0, *ages], [*ages, None], strict=True):
        middle = (lower + upper) / 2 if upper is not None else lower * 1.5
        if middle:
            for moment in (now - timedelta(seconds=middle), now + timedelta(seconds=middle)):
                yield moment.isoformat(sep=" ") if base.startswith("timestamp") else moment.date().isoformat()
    for one in constants:
        if one.kind in ("timestamp", "text"):
            try:
                moment = datetime.fromisoformat(one.value)
            except ValueError:
                continue
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            for near in (moment, moment - timedelta(days=1), moment + timedelta(days=1)):
                yield near.isoformat(sep=" ") if base.startswith("timestamp") else near.date().isoformat()


def _seconds(interval: str) -> float:
    """Return the length of an interval in words, or as Postgres prints it; 0 for others."""
    total, words = 0.0, interval.split()
    for number, unit in zip(words, [*words[1:], ""], strict=True):
        if ":" in number:
            hours, minutes, seconds = ([float(each) for each in number.split(":")] + [0.0])[:3]
            total += hours * 3600 + minutes * 60 + seconds
        elif number.lstrip("-").isdecimal():
            total += float(number) * _UNITS.get(unit.rstrip("s") or "s", 0.0)
    return abs(total)
