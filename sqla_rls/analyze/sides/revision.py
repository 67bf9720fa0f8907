"""Fills a scratch database by ``alembic upgrade``, in a Python of its own.

The project's env.py runs as it is.  Each connection that it makes goes to the scratch database, also if it
has the URL of another one: see upgrade.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from sqla_rls.analyze.sides.scratch import Owner, Scratch
from sqla_rls.exc import AnalysisError

#: The files that Alembic reads by itself.
_DEFAULTS: Final = ("alembic.ini", "pyproject.toml")
_HAS_RELATIONS: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c
                WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
"""


def upgrade(revision: str, configs: Sequence[str], scratch: Scratch, owner: Owner) -> None:
    """Upgrade the scratch database to *revision*, as *owner*.

    Args:
        revision: the revision, ``head`` for example; ``base`` is the empty database.
        configs: the paths of alembic.ini or pyproject.toml; empty for Alembic's defaults.
        scratch: the scratch server.
        owner: the role that owns the objects.

    Raises:
        AnalysisError: the upgrade fails, or the migrations ran elsewhere.
    """
    is_named = configs or os.environ.get("ALEMBIC_CONFIG")
    if not is_named and not any(Path(name).exists() for name in _DEFAULTS):
        raise AnalysisError(
            f"rev:{revision} can't be built: this folder has no {' and no '.join(_DEFAULTS)}. "
            "Run it in the folder of alembic.ini, or add --alembic-config PATH"
        )
    with scratch.owned_by(owner) as url:
        if revision == "base":
            return
        order = {
            "revision": revision,
            "configs": list(configs),
            "url": url.render_as_string(hide_password=False),
            "cluster_name": scratch.cluster_name,
        }
        done = subprocess.run(
            [sys.executable, "-m", "sqla_rls.analyze.sides.upgrade"],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            env={**os.environ, **_environment(url)},
        )
        if done.returncode:
            reason = done.stdout.rpartition("\0")[2] or done.stderr or done.stdout
            raise AnalysisError(f"rev:{revision} can't be built: {' '.join(reason.split())}")
        with scratch.connect() as superuser:
            if superuser.execute(_HAS_RELATIONS).fetchone() == (False,):
                raise AnalysisError(
                    f"rev:{revision} can't be built: the upgrade left the scratch database empty. Let env.py "
                    "connect with SQLAlchemy, to the URL in sqlalchemy.url or DATABASE_URL"
                )


def _environment(url: URL) -> dict[str, str]:
    """Return the variables by which env.py may find its database."""
    found = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return {
        "DATABASE_URL": found,
        "PGHOST": url.host or "",
        "PGPORT": str(url.port),
        "PGUSER": url.username or "",
        "PGDATABASE": url.database or "",
    }
