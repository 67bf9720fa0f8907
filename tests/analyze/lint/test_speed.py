"""The rules of speed find the slow faults, and nothing in clean schemas."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.database import Database
from sqla_rls.analyze.lint.run import lint, selected
from sqla_rls.catalog.query import undone
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from tests.analyze.lint.faults import CLEAN, FAULTS
from tests.analyze.lint.faults.observe import prepare
from tests.support.servers import cleared_server


@pytest.fixture(scope="module")
def connections() -> Iterator[dict[bool, Connection]]:
    """To a database with schema ``auth``, and to one without."""
    with cleared_server() as server:
        engines = [create_engine(server.url(server.create_database()), poolclass=NullPool) for _ in range(2)]
        with engines[0].connect() as with_auth, engines[1].connect() as without:
            with_auth.execute(CreateAuthFunctions())
            with_auth.commit()
            yield {True: with_auth, False: without}


def findings(connection: Connection, schema: Any) -> set[tuple[str, str]]:
    with undone(connection):
        driver_connection: Any = connection.connection.driver_connection
        prepare(driver_connection, schema)
        database = Database(
            connection=connection, open_scratch=lambda: nullcontext(connection), is_scratch=True
        )
        report = lint(database, target="app", select=["speed"])
    assert report.left_out == ()
    return {(one.rule, one.object) for one in report.findings}


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_each_slow_fault_is_found(connections: dict[bool, Connection], subtests: pytest.Subtests) -> None:
    for fault in (one for one in FAULTS if one.group == "speed"):
        with subtests.test(fault.name):
            found = findings(connections[True], fault)
            assert found & {(fault.rule, name) for name in fault.objects}, found


@pytest.mark.exhaustive
@pytest.mark.one_postgres
def test_a_clean_schema_is_fast(connections: dict[bool, Connection], subtests: pytest.Subtests) -> None:
    for schema in CLEAN:
        with subtests.test(schema.name):
            assert findings(connections[schema.has_auth], schema) == set()


@pytest.mark.one_postgres
def test_a_limit_of_time_leaves_tables_unknown(connections: dict[bool, Connection]) -> None:
    connection = connections[True]
    with undone(connection):
        driver_connection: Any = connection.connection.driver_connection
        prepare(driver_connection, next(one for one in FAULTS if one.group == "speed"))
        database = Database(
            connection=connection,
            open_scratch=lambda: nullcontext(connection),
            is_scratch=True,
            seconds=0,
        )
        report = lint(database, target="app", select=["missing-index"])

    protected = {one.name for one in database.tables if one.policies}
    assert {(one.rule, one.level, one.object) for one in report.findings} == {
        ("unknown", "warning", name) for name in protected
    }
    assert report.findings[0].evidence[0].text == "the rules of speed had 0 seconds. Give more: --seconds"


def test_the_rules_of_speed_run_on_demand() -> None:
    assert "speed" not in {one.group for one in selected()}
    assert "speed" in {one.group for one in selected(speed=True)}
    assert {one.group for one in selected(["missing-index"])} == {"speed", "unknown"}
    assert {one.group for one in selected(["notes"], speed=True)} == {"notes", "speed", "unknown"}
    assert selected(ignore=["speed"], speed=True) == selected()
