"""The clocks of the library, which a test moves instead of waiting."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

_MODULES = ("driver.base", "tokens.caller", "tokens.signing", "tokens.verifier")


class Clocks(SimpleNamespace):
    """All clocks that a caller's end is read from, and how many seconds they run ahead."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def replace_clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Have the library, and PyJWT, read clocks that can be moved."""
    clocks = Clocks()

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Ahead:
            return super().now(tz) + timedelta(seconds=clocks.ahead)

    for module in _MODULES:
        monkeypatch.setattr(f"sqla_rls.{module}.time", clocks)
    monkeypatch.setattr("jwt.api_jwt.datetime", Ahead)
    return clocks
