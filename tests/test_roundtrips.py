"""The benchmark of round trips: it ends well, and finds what the documentation says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sqla_rls.testing.postgres import Server

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]


def test_every_way_spends_what_it_may(server: Server) -> None:
    options = ["--delays", "0", "--seconds", "0", "--drivers", "psycopg", "asyncpg"]
    url = server.url().render_as_string(hide_password=False)
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.roundtrips", *options],
        cwd=ROOT,
        env={**os.environ, "SQLA_RLS_TEST_URL": url},
        capture_output=True,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = re.findall(r"^(psycopg|asyncpg) +(\S.*?) +0 +(\d+) ", ended.stdout, re.MULTILINE)
    found = {(driver, transport): int(round_trips) for driver, transport, round_trips in rows}
    expected = {
        ("psycopg", "plain"): 3,
        ("psycopg", "with_begin"): 3,
        ("psycopg", "pipeline"): 2,
        ("psycopg", "statement"): 4,
        ("psycopg", "one-shot"): 1,
        ("psycopg", "two statements"): 5,
        ("asyncpg", "plain"): 3,
        ("asyncpg", "with_begin"): 3,
        ("asyncpg", "pipeline"): 2,
        ("asyncpg", "statement"): 4,
        ("asyncpg", "one-shot"): 1,
        ("asyncpg", "two statements"): 5,
    }
    # Packages of others take part where they are installed.
    assert found.items() >= expected.items()
