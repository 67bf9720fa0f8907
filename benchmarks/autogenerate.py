"""What a comparison without changes costs, beside Alembic alone: ``python -m benchmarks.autogenerate``.

Each table has the four policies of a ``crud_policy``.  The two are interleaved on one database in one
run; statements are counted, times are medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, create_engine, event

from sqla_rls import auth_uid, authenticated, crud_policy
from sqla_rls.testing.postgres import find_server

ALONE = ["alembic.autogenerate.*", "~alembic.autogenerate.sqla_rls"]
WITH_US = ["alembic.autogenerate.*"]


def models(tables: int) -> MetaData:
    metadata = MetaData()
    for number in range(tables):
        Table(
            f"table_{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("user_id", Text, index=True),
            crud_policy(authenticated, read=auth_uid("user_id"), modify=auth_uid("user_id")),
        )
    return metadata


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print("tables  statements alone  with sqla_rls  ms alone  with sqla_rls  ratio")
    with find_server() as server:
        for tables in arguments.tables:
            engine = create_engine(server.url(server.create_database()))
            metadata = models(tables)
            metadata.create_all(engine)
            with engine.connect() as connection:
                compare(connection, metadata, WITH_US)  # SQLAlchemy remembers some answers
                rounds = [
                    (compare(connection, metadata, ALONE), compare(connection, metadata, WITH_US))
                    for _ in range(arguments.rounds)
                ]
            engine.dispose()
            (alone, _), (ours, _) = rounds[-1]
            times = [statistics.median(pair[side][1] for pair in rounds) * 1000 for side in (0, 1)]
            ratio = statistics.median(pair[1][1] / pair[0][1] for pair in rounds)
            print(f"{tables:6}{alone:18}{ours:15}{times[0]:10.1f}{times[1]:15.1f}{ratio:7.2f}")


if __name__ == "__main__":
    main()
