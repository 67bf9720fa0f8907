"""The clocks of the library, which a test moves instead of waiting."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

_MODULES = ("tokens.clock", "tokens.signing", "tokens.verifier")


class Clocks(SimpleNamespace):
    """All clocks that a caller's end is read from, and how many seconds they run ahead."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def replace_clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Have the library read clocks that can be moved."""
    clocks = Clocks()
    for module in _MODULES:
        monkeypatch.setattr(f"sqla_rls.{module}.time", clocks)
    return clocks
