"""What ``alembic check`` costs when nothing changed, beside Alembic alone.

``python -m benchmarks.autogenerate``.  Each table has four policies.  Alone means the same tables without
them, in a process that imports nothing of sqla_rls; the two take turns on one database in one run.  The
command is a process of its own, with its imports and the making of the models; the comparison is what Alembic
does in it.  Times are medians in milliseconds, ratios medians of each round's ratio, and the least.

Other libraries take part where they are installed, each with a database of its own, as it spells its policies
in its own way: ``uv run --with rls --with pgalchemy --with alembic_utils …``.  Differences are what a library
finds in a database that is as declared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL

from benchmarks import peers
from benchmarks.alembic_env import Run
from sqla_rls.testing.postgres import Server, find_server

_ENV = "from benchmarks.alembic_env import environment\n\nenvironment()\n"


def check(folder: Path, url: URL, tables: int, library: str, *, create: bool = False) -> Run:
    """``alembic check`` with the models of *library*; with *create*, what they declare is made before."""
    # An installed library has bytecode.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.alembic_command", "-c", str(folder / "alembic.ini"), "check"],
        env={
            **inherited,
            "URL": url.render_as_string(hide_password=False),
            "TABLES": str(tables),
            "LIBRARY": library,
            "CREATE": "1" * create,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    command = time.perf_counter() - begin
    try:
        return Run(*json.loads(done.stdout.partition("\n")[0]))._replace(command=command)
    except ValueError:
        raise SystemExit(f"{library} could not be measured: {done.stdout}{done.stderr}") from None


def measure(
    folder: Path, url: URL, tables: int, library: str, rounds: int, seconds: float
) -> list[tuple[Run, Run]]:
    """Alone and with *library* by turns, until *seconds* have passed."""
    check(folder, url, tables, library, create=True)
    found: list[tuple[Run, Run]] = []
    end = time.monotonic() + seconds
    while not found or (len(found) < rounds and time.monotonic() < end):
        found.append((check(folder, url, tables, "alone"), check(folder, url, tables, library)))
    return found


def ratios(server: Server, tables: list[int], rounds: int, seconds: float) -> dict[int, tuple[float, float]]:
    """The ratio of the command to Alembic alone, and the seconds of a table, by the number of tables.

    The ratio is that of the least times: other work on the machine only adds to a time.
    """
    found = {}
    with alembic_folder() as folder:
        for number in tables:
            database = server.create_database()
            pairs = measure(folder, server.url(database), number, "sqla-rls", rounds, seconds)
            server.drop_database(database)
            ratio = min(beside.command for _, beside in pairs) / min(alone.command for alone, _ in pairs)
            found[number] = ratio, statistics.median(beside.comparison for _, beside in pairs) / number
            if any(beside.differences for _, beside in pairs):
                raise SystemExit("sqla-rls finds differences where there are none")
    return found


@contextmanager
def alembic_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "versions").mkdir()
        (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {name}\npath_separator = os\n")
        (folder / "env.py").write_text(_ENV)
        yield folder


def show(tables: int, library: str, found: list[tuple[Run, Run]]) -> None:
    alone, beside = found[-1]
    more = beside.statements - alone.statements
    print(f"{tables:6}  {library:20}{alone.statements:7}{more:+7}{beside.differences:13}", end="")
    for kind in ("comparison", "command"):
        pairs = [(getattr(one, kind), getattr(other, kind)) for one, other in found]
        for side in (0, 1):
            print(f"{statistics.median(pair[side] for pair in pairs) * 1000:10.0f}", end="")
        ratios = [other / one for one, other in pairs]
        print(f"{statistics.median(ratios):8.2f}{min(ratios):7.2f}", end="")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=180, help="for each library and number of tables")
    arguments = parser.parse_args()
    versions = peers.installed()
    print(f"{'comparison: ms':>72}{'command: ms':>35}")
    times = "     alone      with   ratio  least"
    print(f"tables  {'':20}  statements   differences{times}{times}")
    took: dict[str, float] = {}
    with find_server() as server, alembic_folder() as folder:
        for tables in arguments.tables:
            for library, version in versions.items():
                if (expected := took.get(library, 0) * tables) > arguments.seconds:
                    print(f"{tables:6}  {library} {version} isn't tried: {expected:.0f} s or more a time")
                    continue
                database = server.create_database()
                url = server.url(database)
                found = measure(folder, url, tables, library, arguments.rounds, arguments.seconds)
                server.drop_database(database)
                show(tables, f"{library} {version}", found)
                took[library] = found[-1][1].comparison / tables
                if library == "sqla-rls" and found[-1][1].differences:
                    raise SystemExit("sqla-rls finds differences where there are none")


if __name__ == "__main__":
    main()
