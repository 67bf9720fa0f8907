"""The ``env.py`` of ``benchmarks/autogenerate.py``, by the variables that it sets."""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

from alembic import context
from alembic.operations import ops
from sqlalchemy import create_engine, event

from benchmarks import peers


class Run(NamedTuple):
    statements: int
    differences: int
    comparison: float  # seconds
    command: float = 0


def environment() -> None:
    """What ``env.py`` does; it prints a Run."""
    metadata, create = peers.LIBRARIES.get(os.environ["LIBRARY"], peers.alone)(int(os.environ["TABLES"]))
    statements = 0

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1

    def report(_: object, __: object, scripts: list[ops.MigrationScript]) -> None:
        taken = time.perf_counter() - begin
        assert scripts[0].upgrade_ops
        print(json.dumps(Run(statements, _operations(scripts[0].upgrade_ops), taken)))

    engine = create_engine(os.environ["URL"])
    if os.environ["CREATE"]:
        create(engine)
    with engine.connect() as connection:
        event.listen(connection, "before_cursor_execute", count)
        context.configure(connection=connection, target_metadata=metadata, process_revision_directives=report)
        begin = time.perf_counter()
        with context.begin_transaction():
            context.run_migrations()


def _operations(container: ops.OpContainer) -> int:
    return sum(_operations(one) if isinstance(one, ops.OpContainer) else 1 for one in container.ops)
