"""What ``alembic check`` costs when nothing changed, beside Alembic alone.

``python -m benchmarks.autogenerate``.  Each table has the four policies of a ``crud_policy``.  Alone means
the same tables without them, and this library's plugin left out.  They take turns on one database in one run;
the comparison is timed in this process (statements are counted), the command as a process of its own, with
its imports and the making of the models.  Times are medians in milliseconds, ratios medians of each
round's ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Column, Connection, Integer, MetaData, Table, Text, create_engine, event
from sqlalchemy.schema import SchemaItem

from sqla_rls.testing.postgres import find_server

ALONE = ["alembic.autogenerate.*", "~alembic.autogenerate.sqla_rls"]
WITH_US = ["alembic.autogenerate.*"]

_ENV = """
import os
from alembic import context
from benchmarks.autogenerate import ALONE, WITH_US, models
from sqlalchemy import create_engine

alone = "ALONE" in os.environ
with create_engine(os.environ["URL"]).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=models(int(os.environ["TABLES"]), policies=not alone),
        autogenerate_plugins=ALONE if alone else WITH_US,
    )
    with context.begin_transaction():
        context.run_migrations()
"""


def models(tables: int, *, policies: bool = True) -> MetaData:
    metadata = MetaData()
    for number in range(tables):
        Table(
            f"table_{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("user_id", Text, index=True),
            *(_policies() if policies else ()),
        )
    return metadata


def _policies() -> list[SchemaItem]:
    # Not above: alone means without its import, too.
    from sqla_rls import auth_uid, authenticated, crud_policy

    return [crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id"))]


def compare(connection: Connection, metadata: MetaData, plugins: list[str]) -> tuple[int, float]:
    """The number of statements and the seconds that a comparison takes."""
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    event.listen(connection, "before_cursor_execute", count)
    context = MigrationContext.configure(connection, opts={"autogenerate_plugins": plugins})
    begin = time.perf_counter()
    changes = compare_metadata(context, metadata)
    seconds = time.perf_counter() - begin
    event.remove(connection, "before_cursor_execute", count)
    if changes:
        raise SystemExit(f"not a comparison without changes: {changes[:3]}")
    return statements, seconds


def check(folder: Path, url: URL, tables: int, *, alone: bool) -> float:
    """The seconds that the command takes."""
    environment = {**os.environ, "URL": url.render_as_string(hide_password=False), "TABLES": str(tables)}
    environment |= {"ALONE": "1"} if alone else {}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(folder / "alembic.ini"), "check"],
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - begin


def measure(server_url: URL, tables: int, rounds: int, folder: Path) -> None:
    engine = create_engine(server_url)
    bare, protected = models(tables, policies=False), models(tables)
    protected.create_all(engine)
    compared, commands = [], []
    with engine.connect() as connection:
        compare(connection, protected, WITH_US)  # SQLAlchemy remembers some answers
    for _ in range(rounds):
        with engine.connect() as connection:
            compared.append((compare(connection, bare, ALONE), compare(connection, protected, WITH_US)))
        commands.append(
            (
                check(folder, server_url, tables, alone=True),
                check(folder, server_url, tables, alone=False),
            )
        )
    engine.dispose()
    (alone, _), (ours, _) = compared[-1]
    print(f"{tables:6}{alone:11}{ours - alone:+5}", end="")
    for pairs in ([(a[1], b[1]) for a, b in compared], commands):
        for side in (0, 1):
            print(f"{statistics.median(pair[side] for pair in pairs) * 1000:11.1f}", end="")
        print(f"{statistics.median(b / a for a, b in pairs):7.2f}", end="")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print("                         comparison: ms                  command: ms")
    print("tables  statements       alone  sqla_rls  ratio      alone  sqla_rls  ratio")
    with find_server() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "versions").mkdir()
        (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {name}\npath_separator = os\n")
        (folder / "env.py").write_text(_ENV)
        for tables in arguments.tables:
            measure(server.url(server.create_database()), tables, arguments.rounds, folder)


if __name__ == "__main__":
    main()
