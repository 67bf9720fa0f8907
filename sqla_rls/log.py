"""The log of autogenerate, the warnings that a revision repeats as comments, and text that no log shows."""

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
    """A logger whose warnings ``hearing_warnings()`` collects, even below the logger's level."""

    def warning(self, msg: object, *args: Any, **kw: Any) -> None:
        if (heard := _heard.get()) is not None:
            heard.append(str(msg) % args if args else str(msg))
        kw["stacklevel"] = kw.get("stacklevel", 1) + 1
        super().warning(msg, *args, **kw)


def autogenerate_log(name: str) -> AutogenerateLog:
    """Return the log of the module *name*.

    Its name begins with ``alembic.autogenerate``.  The ``fileConfig()`` call of an env.py disables other
    loggers.
    """
    return AutogenerateLog(logging.getLogger(f"alembic.autogenerate.{name}"), {})


@contextmanager
def hearing_warnings() -> Iterator[list[str]]:
    """Collect the warnings that are logged inside the block.

    Yields:
        The list that the warnings are added to.
    """
    heard: list[str] = []
    before = _heard.set(heard)
    try:
        yield heard
    finally:
        _heard.reset(before)


class Unlogged(str):
    """Text that SQLAlchemy's logs and errors don't show, since they show the repr of parameters and rows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


class UnloggedText(TypeDecorator[str]):
    """A type of columns whose values are ``Unlogged``."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> Unlogged | None:
        return None if value is None else Unlogged(value)
