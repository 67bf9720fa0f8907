"""The files that initdb makes, for all clusters of this process.

initdb takes 0.4 seconds of CPU, and a copy of its files a tenth of that.  The files are in the directory of
the running cluster that needed them first, so they are removed with it, however this process ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqla_rls.server.installation import Installation

_places: Final[dict[Installation, Path]] = {}
_lock = threading.Lock()


@contextmanager
def of(installation: Installation, directory: Path) -> Iterator[tuple[Path, bool]]:
    """Give the place of the files, and whether they exist; other threads wait until the block ends.

    The block makes them if they don't exist.

    Args:
        installation: the binaries.
        directory: the directory of the cluster that makes the files, if no running cluster has them.
    """
    with _lock:
        initial = _places.get(installation, directory / "initial")
        # The files of a server that has crashed are gone, too.
        exist = initial.exists()
        if not exist:
            initial = directory / "initial"
        yield initial, exist
        _places[installation] = initial


def withdraw(directory: Path) -> None:
    """Forget the files in *directory*, which is about to be removed; wait for those that copy them."""
    with _lock:
        for installation, initial in list(_places.items()):
            if initial.parent == directory:
                del _places[installation]


def _forget() -> None:
    global _lock
    # Another thread of the parent may hold its lock, and the parent's clusters may end.
    _lock = threading.Lock()
    _places.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
