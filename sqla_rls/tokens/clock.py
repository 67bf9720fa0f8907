"""The clock by which tokens and callers expire.  Tests freeze it: ``sqla_rls.testing.clock``."""

from __future__ import annotations

import time

#: The frozen time, in seconds since the epoch; None is the machine's time.
frozen_at: float | None = None


def now() -> float:
    """Return the time by which tokens and callers expire, in seconds since the epoch."""
    return time.time() if frozen_at is None else frozen_at


def machine_time(at: float | None) -> float | None:
    """Return the machine's time for *at*, a time of this clock: a database has the machine's."""
    return at if at is None or frozen_at is None else at + time.time() - frozen_at
