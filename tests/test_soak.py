"""The soak: nobody sees what is another's, and if somebody did, it would tell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sqla_rls.testing.postgres import Server, installations

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]


def soak(*options: str) -> tuple[int, dict[str, int], str]:
    """Its exit status, the figures in its table, and all that it said."""
    command = [sys.executable, "-m", "benchmarks.soak", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=3600)
    said = ended.stdout + ended.stderr
    figures = re.findall(r"^ *(\S.*?) +([\d,]+)$", ended.stdout, re.MULTILINE)
    return ended.returncode, {name: int(count.replace(",", "")) for name, count in figures}, said


def assert_nobody_saw_what_is_anothers(server: Server, transactions: int, *options: str) -> None:
    url = server.url().render_as_string(hide_password=False)
    status, figures, said = soak("--transactions", str(transactions), "--url", url, *options)
    assert status == 0, said
    assert figures["transactions"] >= transactions
    assert figures["rows of another caller"] == figures["notes in another's name"] == 0
    # Most faults hit a transaction before it is checked, if they hit one at all.
    assert figures["bound to a caller"] - figures["bound and checked"] < figures["faults"]
    assert figures["backend killed"] >= transactions // 500
    for refusal in ("no caller", "expired caller", "wrong role", "forged write", "unbound connection"):
        assert figures[refusal], refusal


def test_nobody_sees_what_is_anothers(server: Server) -> None:
    assert_nobody_saw_what_is_anothers(server, 1000)


@pytest.mark.usefixtures("pgbouncer")
def test_nobody_sees_what_is_anothers_through_pgbouncer(server: Server) -> None:
    assert_nobody_saw_what_is_anothers(server, 700, "--through-pgbouncer")


@pytest.mark.long
def test_nobody_sees_what_is_anothers_for_long(server: Server) -> None:
    assert_nobody_saw_what_is_anothers(server, 100_000, "--seed", "1")


@pytest.mark.skipif(not installations(), reason="no Postgres to start")
@pytest.mark.parametrize(
    ("sabotage", "transactions", "finding"),
    [
        ("unbound", 900, "permission denied for (schema|table)"),
        ("another", 900, "got \\['user-0'\\]|'user-0', 1, 1, ''\\) found"),
        ("lasting", 900, "left on a connection: |\\('authenticated', None, \\d+\\) found"),
        # Only the transport "statement" leaves a setting for the next transaction.
        ("unreset", 5000, "'user-\\d+', \\d+, 0, 'user-\\d+'\\) found"),
    ],
)
def test_a_broken_binding_is_found(sabotage: str, transactions: int, finding: str) -> None:
    status, figures, said = soak(
        "--transactions", str(transactions), "--without-faults", "--sabotage", sabotage
    )
    assert status == 1
    assert figures["violations"] > 0
    assert re.search(finding, said), said
