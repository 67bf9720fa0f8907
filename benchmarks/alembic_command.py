"""The command ``alembic``; with ``LIBRARY=alone``, as in a project without sqla_rls.

``entry_points()`` leaves out the plugin then, which Alembic would import although it is switched off.
"""

from __future__ import annotations

import os
from importlib import metadata
from typing import Any

_PLUGIN = "alembic.autogenerate.sqla_rls"


def main() -> None:
    if os.environ["LIBRARY"] != "sqla-rls":
        entry_points: Any = metadata.entry_points
        metadata.entry_points = lambda **selected: [  # type: ignore[assignment]
            one for one in entry_points(**selected) if one.name != _PLUGIN
        ]
    # Alembic asks for the plugins when it is imported.
    from alembic.config import main as alembic

    alembic(prog="alembic")


if __name__ == "__main__":
    main()
