"""Modules of models that a test imports for itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imported_anew(*names: str) -> Iterator[None]:
    """Import the modules *names* again in the block, and leave none of them.

    A module may add tables to the models of another, which other tests compare as they are.
    """
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)
