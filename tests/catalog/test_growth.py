"""The queries over the catalog take time in proportion to its tables, also without statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from sqla_rls.catalog.read import read_database

TABLES = 200

_TABLES = """
DO $$ BEGIN
  FOR i IN 1 .. %d LOOP
    EXECUTE format('CREATE TABLE t%%s (id integer GENERATED ALWAYS AS IDENTITY, n serial, user_id text)', i);
    EXECUTE format('ALTER TABLE t%%s ENABLE ROW LEVEL SECURITY', i);
    EXECUTE format('CREATE POLICY p ON t%%s USING (user_id = current_user)', i);
    EXECUTE format('GRANT SELECT ON t%%s TO PUBLIC', i);
  END LOOP;
END $$
"""


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _most_rows(connection: Connection, statement: str, parameters: Any) -> float:
    """Return the most rows that one node of the plan returns or leaves out."""
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", parameters)
    ((((found,),),),) = [cursor.fetchall()]
    rows: float = max(
        (node["Actual Rows"] + node.get("Rows Removed by Join Filter", 0)) * node["Actual Loops"]
        for node in _nodes(found["Plan"])
    )
    return rows


@pytest.mark.exhaustive
def test_no_query_of_the_catalog_compares_all_with_all(engine: Engine, subtests: pytest.Subtests) -> None:
    with engine.begin() as connection:
        connection.execute(text(_TABLES % TABLES))
    queries: list[tuple[str, Any]] = []
    with engine.connect() as connection:

        def remember(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
            queries.append((statement, parameters))

        event.listen(connection, "before_cursor_execute", remember)
        found = read_database(connection, default_schema="public", schemas=["public"])
        event.remove(connection, "before_cursor_execute", remember)
        assert len(found.policies) == TABLES
        assert len(found.sequences) == len(found.identity_sequences) == TABLES
        for statement, parameters in queries:
            with subtests.test(statement[:80]):
                assert _most_rows(connection, statement, parameters) < TABLES * TABLES / 2
