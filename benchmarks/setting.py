"""The setting of a run, for the file of its results."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any


def read_setting(postgresql: object, load: float, *packages: str) -> dict[str, Any]:
    """Return the versions of Python, the server and *packages*, and the load before and after the run."""
    return {
        "python": platform.python_version(),
        "postgresql": postgresql,
        **{package: version(package) for package in packages},
        "cpus": os.cpu_count(),
        "load": [load, os.getloadavg()[0]],
    }


def shown(setting: dict[str, Any]) -> str:
    """Return a setting in one line."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())
