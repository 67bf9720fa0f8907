"""One changed policy among many: the others cost no statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import event

from benchmarks.analyze import many_tables
from sqla_rls.analyze.verdict import Comparison
from sqla_rls.analyze.worlds.compare import compare_databases
from tests.analyze.cases.scratch import Servers

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers.start() as found:
        yield found


def compared(servers: Servers, tables: int) -> tuple[Comparison, int]:
    """Compare the schema before and after, and count the statements that are sent."""
    sent = 0

    def count(*_: object) -> None:
        nonlocal sent
        sent += 1

    with servers.sides(many_tables(tables)) as sides:
        for connection in sides:
            event.listen(connection, "before_cursor_execute", count)
        return compare_databases(*sides), sent


def test_tables_that_did_not_change_cost_nothing(servers: Servers) -> None:
    few, sent_for_few = compared(servers, 5)
    many, sent_for_many = compared(servers, 60)

    assert [(one.object, one.role, one.command, one.verdict) for one in many.changes] == [
        ("public.table_0", "authenticated", "DELETE", "opens")
    ]
    assert many.scope.objects == few.scope.objects == 1
    assert many.scope.statements == few.scope.statements
    assert sent_for_many == sent_for_few
