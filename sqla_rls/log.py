"""The log of autogenerate, the warnings that its revision repeats as comments, and text that no log shows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


class AutogenerateLog(logging.LoggerAdapter[logging.Logger]):
    """Passes messages on; ``hearing_warnings()`` gets the warnings, also those below the logger's level."""

    def warning(self, msg: object, *args: Any, **kw: Any) -> None:
        if (heard := _heard.get()) is not None:
            heard.append(str(msg) % args if args else str(msg))
        kw["stacklevel"] = kw.get("stacklevel", 1) + 1
        super().warning(msg, *args, **kw)


def autogenerate_log(name: str) -> AutogenerateLog:
    """The log of the module *name*.

    It is below ``alembic.autogenerate``, where ``fileConfig()`` of an env.py leaves loggers enabled.
    """
    return AutogenerateLog(logging.getLogger(f"alembic.autogenerate.{name}"), {})


@contextmanager
def hearing_warnings() -> Iterator[list[str]]:
    """The warnings that are logged meanwhile, as they come."""
    heard: list[str] = []
    before = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(before)


class Unlogged(str):
    """Text that SQLAlchemy doesn't write into logs and errors: it writes the repr of parameters and rows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class UnloggedText(TypeDecorator[str]):
    """The type of a column whose values are Unlogged."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> Unlogged | None:
        return None if value is None else Unlogged(value)
