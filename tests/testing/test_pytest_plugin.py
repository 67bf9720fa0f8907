"""The plugin for pytest gives each test an empty database, and costs other tests nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL

from sqla_rls.testing.postgres import Server
from tests.support.own_servers import ask


def test_every_test_has_an_empty_database_of_its_own(rls_postgres: Server, rls_database: URL) -> None:
    assert rls_database.database != "postgres"
    assert ask(rls_database, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


@pytest.mark.exhaustive
def test_the_plugin_costs_pytest_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pytest, sqla_rls; before = set(sys.modules)\n"
        "import sqla_rls.testing.pytest_plugin; print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-P", "-c", code]
    loaded = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == ["sqla_rls.testing", "sqla_rls.testing.pytest_plugin"]
