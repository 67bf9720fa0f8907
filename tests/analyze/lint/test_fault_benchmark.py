"""The benchmark of faults: every program sees the fault, and then the mended schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from benchmarks.faults import Part, Program, Score, try_fault
from sqla_rls.analyze.lint.finding import Finding, Remedy
from sqla_rls.server.postgres import Server
from tests.analyze.lint.faults import FAULTS
from tests.support.servers import cleared_server

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]


@pytest.fixture
def server() -> Iterator[Server]:
    with cleared_server() as found:
        yield found


def finding(text: str) -> Finding:
    return Finding(
        rule="other/RULE", object="public.docs", kind="table", text=text, evidence=[], remedy=Remedy()
    )


def own_connection(connection: Connection, _part: Part) -> list[Finding]:
    """As a program does: it sees what is committed."""
    with create_engine(connection.engine.url, poolclass=NullPool).connect() as own:
        is_on = own.exec_driver_sql(
            "SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass('public.docs')"
        ).scalar_one()
    return [] if is_on else [finding("row security is off")]


def same_connection(connection: Connection, _part: Part) -> list[Finding]:
    is_on = connection.exec_driver_sql(
        "SELECT relrowsecurity FROM pg_class WHERE oid = 'public.docs'::regclass"
    ).scalar_one()
    return [finding(f"row security: {is_on}")]


def unmoved(_connection: Connection, _part: Part) -> list[Finding]:
    return [finding("a finding about another matter")]


def test_each_program_sees_the_schema_with_the_fault_and_without(server: Server) -> None:
    (fault,) = (one for one in FAULTS if one.rule == "row-security-off")
    looks = {"first": same_connection, "own": own_connection, "same": same_connection, "unmoved": unmoved}
    scores = {name: Score() for name in looks}

    try_fault(server, fault, [Program(look, {name: ()}) for name, look in looks.items()], scores)

    rules = ["other/RULE"]
    assert {name: score.by[fault.name] for name, score in scores.items()} == {
        "first": rules,
        "own": rules,
        "same": rules,
        "unmoved": [],
    }
