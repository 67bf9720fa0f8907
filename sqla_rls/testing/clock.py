"""A frozen time, for tests of callers and tokens that expire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqla_rls.exc import DeclarationError
from sqla_rls.tokens import clock

__all__ = ["FrozenTime", "frozen_time"]


class FrozenTime:
    """The time by which tokens and callers expire; it stands still until you move it."""

    @property
    def now(self) -> datetime:
        """The frozen time."""
        return datetime.fromtimestamp(clock.now(), UTC)

    def move_to(self, at: datetime | float) -> None:
        """Move the time to *at*: an aware datetime, or seconds since the epoch."""
        clock.frozen_at = seconds_of(at)

    def advance(self, by: timedelta | float) -> None:
        """Move the time by *by*, a timedelta or seconds."""
        clock.frozen_at = clock.now() + (by.total_seconds() if isinstance(by, timedelta) else by)


@contextmanager
def frozen_time(at: datetime | float | None = None) -> Iterator[FrozenTime]:
    """Freeze the time by which tokens and callers expire, in all threads of this process.

    A ``Verifier``, an ``Issuer`` and the bindings of sessions have the frozen time.  The database has its own
    clock: ``now()`` in a policy isn't frozen.  It accepts a signed caller for the time that the caller has
    left.

    Args:
        at: an aware datetime, or seconds since the epoch; None is the present, in whole seconds.

    Raises:
        DeclarationError: the datetime has no time zone.
    """
    before = clock.frozen_at
    clock.frozen_at = float(int(clock.now())) if at is None else seconds_of(at)
    try:
        yield FrozenTime()
    finally:
        clock.frozen_at = before


def seconds_of(at: datetime | float) -> float:
    """Return *at* in seconds since the epoch."""
    if not isinstance(at, datetime):
        return float(at)
    if at.tzinfo is None:
        raise DeclarationError(
            f"the time {at} can't be used: it has no time zone. Give datetime(…, tzinfo=UTC), for example"
        )
    return at.timestamp()
