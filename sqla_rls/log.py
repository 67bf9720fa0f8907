"""The log of autogenerate, and the warnings that its revision repeats as comments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

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
