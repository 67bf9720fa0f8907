"""The log of autogenerate appears under the env.py of each template of Alembic."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

pytestmark = pytest.mark.exhaustive

_MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
from sqla_rls import Policy, authenticated

metadata = MetaData()
Table(
    "todos",
    metadata,
    Column("id", Integer, primary_key=True),
    Policy("read", "SELECT", authenticated, using="id > 0"),
)
"""


@pytest.mark.one_postgres
@pytest.mark.parametrize("template", ["generic", "async", "pyproject", "pyproject_async", "multidb"])
def test_a_template_of_alembic_shows_the_log(template: str, tmp_path: Path, database: URL) -> None:
    def alembic(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    (tmp_path / "models.py").write_text(_MODELS)
    alembic("init", "-t", template, "migrations")
    settings, env = tmp_path / "alembic.ini", tmp_path / "migrations" / "env.py"
    url = database.render_as_string(hide_password=False).replace("%", "%%")
    lines = [
        f"sqlalchemy.url = {url}" if line.startswith("sqlalchemy.url") else line
        for line in settings.read_text().splitlines()
    ]
    settings.write_text("\n".join(lines).replace("databases = engine1, engine2", "databases = engine1"))
    before = env.read_text()
    after = before.replace("target_metadata = None", "from models import metadata as target_metadata")
    after = after.replace(
        "target_metadata = {}", "from models import metadata\ntarget_metadata = {'engine1': metadata}"
    )
    assert after != before
    env.write_text(after)

    log = alembic("revision", "--autogenerate", "-m", "first")
    own = "alembic.autogenerate.sqla_rls.alembic.autogenerate.policies"
    assert f"INFO  [{own}] Detected added policy 'read' on 'todos'" in log
