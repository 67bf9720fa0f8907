"""Shared by the commands that may take long: a progress bar."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any, Final

import click


class Progress:
    """A bar on a terminal, if the work takes long."""

    _AFTER: Final = 2.0  # seconds

    def __init__(self, label: str) -> None:
        self._label = label
        self._start = time.monotonic()
        self._undo = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def __call__(self, done: int, total: int, name: str) -> None:
        if not sys.stderr.isatty() or time.monotonic() - self._start < self._AFTER:
            return
        if self._bar is None:
            bar: Any = click.progressbar(length=total, label=self._label, file=sys.stderr)
            self._bar = self._undo.enter_context(bar)
        self._bar.update(done - self._bar.pos)
