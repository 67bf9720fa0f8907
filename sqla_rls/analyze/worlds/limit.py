"""The time limit of a comparison: a part of it for each group of roles, and the rest for the last tries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

#: The part of the time for worlds; the rest is for trying each difference again.
_FOR_WORLDS: Final = 0.9
#: Milliseconds between two limits of a statement that count as different.
_STEP: Final = 500


class TimeIsOver(Exception):  # it ends a part of the work, and is no failure
    """The time of the part in progress is over."""


@dataclass(slots=True)
class TimeLimit:
    """A time limit, also for a part of the work; without seconds, time is never over."""

    seconds: float | None = None
    _end: float = field(init=False, default=math.inf)
    _end_of_worlds: float = field(init=False, default=math.inf)
    _end_of_part: float = field(init=False, default=math.inf)

    def __post_init__(self) -> None:
        if self.seconds is not None:
            now = time.monotonic()
            self._end = now + self.seconds
            self._end_of_worlds = self._end_of_part = now + self.seconds * _FOR_WORLDS

    def share(self, parts: int) -> float:
        """Return the seconds of one of *parts* that are left of the time for worlds."""
        return max(self._end_of_worlds - time.monotonic(), 0) / parts

    @property
    def is_over(self) -> bool:
        """Whether the time of the part in progress is over."""
        return time.monotonic() >= self._end_of_part

    @contextmanager
    def one_of(self, parts: int) -> Iterator[None]:
        """Limit the block to its share of the time for worlds, as one of *parts* that are left."""
        self._end_of_part = time.monotonic() + self.share(parts)
        try:
            yield
        finally:
            self._end_of_part = self._end_of_worlds

    def is_late(self) -> Callable[[], bool]:
        """Return a function that says whether the time of the part in progress is over."""
        end = self._end_of_part
        return lambda: time.monotonic() >= end

    @contextmanager
    def last(self) -> Iterator[None]:
        """Let the block use the time that is for the last tries."""
        self._end_of_part, earlier = self._end, self._end_of_part
        try:
            yield
        finally:
            self._end_of_part = earlier

    def check(self) -> None:
        """Raise an error if the time is over.

        Raises:
            TimeIsOver: it is.
        """
        if self.is_over:
            raise TimeIsOver

    def milliseconds(self, most: int) -> int:
        """Return the milliseconds that a statement may take, up to *most*."""
        left = self._end_of_part - time.monotonic()
        return most if left * 1000 > most else min(most, max(math.ceil(left * 1000 / _STEP), 1) * _STEP)
