"""In a pipeline, the claims are parameters, whatever the first statement is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.orm import sessionmaker

from sqla_rls import BindingOptions, Caller, enforce_row_security, identify
from sqla_rls.driver.base import Transport
from tests.support.sessions import ANYTHING, by_transports


def by_executemany(connection: Any, sql: str) -> None:
    connection.cursor().executemany(sql + " WHERE %s", [[True]])


def by_server_cursor(connection: Any, sql: str) -> None:
    with connection.cursor("named") as cursor:
        cursor.execute(sql)


def by_stream(connection: Any, sql: str) -> None:
    list(connection.cursor().stream(sql))


def by_copy(connection: Any, sql: str) -> None:
    with connection.cursor().copy(f"COPY ({sql}) TO STDOUT") as copy:
        list(copy)


def by_several_statements(connection: Any, sql: str) -> None:
    connection.execute(f"{sql}; {sql}")


def by_a_transaction(connection: Any, sql: str) -> None:
    with connection.transaction():
        connection.execute(sql)


@pytest.mark.parametrize(
    "first", [by_executemany, by_server_cursor, by_stream, by_copy, by_several_statements, by_a_transaction]
)
@by_transports("pipeline")
def test_in_a_pipeline_no_statement_has_the_claims(
    url: URL, alice: Caller, bob: Caller, first: Any, transport: Transport, tmp_path: Path
) -> None:
    engine = create_engine(url, pool_size=1, max_overflow=0)
    maker = sessionmaker(engine)
    enforce_row_security(maker, options=BindingOptions(transport=transport))
    with maker() as session:
        # The checks of a pool's first caller.
        identify(session, alice)
        session.execute(ANYTHING)
    with maker() as session, (tmp_path / "trace").open("w+") as trace:
        identify(session, bob)
        connection: Any = session.connection().connection.driver_connection
        connection.pgconn.trace(trace.fileno())
        first(connection, "SELECT current_user")
        connection.pgconn.untrace()
        trace.seek(0)
        # Others see the texts of these messages, and not the values of Bind.
        texts = [line for line in trace if "\tQuery\t" in line or "\tParse\t" in line]
    assert any("SELECT current_user" in line for line in texts)
    assert not any("bob" in line for line in texts)
    engine.dispose()
