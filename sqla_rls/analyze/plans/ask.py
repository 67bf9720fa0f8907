"""Asks Postgres for plans, in a transaction that is read only and rolled back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

from sqlalchemy import ARRAY, Connection, Executable, Text, bindparam, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.catalog.query import undone

#: SQL text, or a statement of SQLAlchemy.
Query: TypeAlias = str | ClauseElement

_CANCELLED: Final = "57014"
#: A statement that is faster runs twice, and the shorter time counts.
_REPEATED: Final = 100.0  # milliseconds
_OWN_FUNCTIONS: Final = text(
    "SELECT p.proname FROM pg_catalog.pg_proc AS p WHERE p.proname = ANY (:names) "
    "AND p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND pg_catalog.pg_function_is_visible(p.oid)"
).bindparams(bindparam("names", type_=ARRAY(Text())))


class _Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: ClauseElement, words: str) -> None:
        self.statement = statement
        self.words = words


@compiles(_Explain)
def _compile_explain(element: _Explain, compiler: SQLCompiler, **kw: Any) -> str:
    return f"EXPLAIN ({element.words}) {compiler.process(element.statement, **kw)}"


@contextmanager
def read_only(connection: Connection, timeout: float) -> Iterator[None]:
    """Make the block's transaction read only, and roll it back.

    Args:
        connection: the connection; a transaction that is in progress continues afterwards.
        timeout: the most seconds of each statement; a lock is waited for half as long.

    Emits:
        A savepoint, and ``SET LOCAL`` of transaction_read_only, statement_timeout and lock_timeout.
    """
    with connection.begin_nested() if connection.in_transaction() else connection.begin() as transaction:
        milliseconds = str(max(int(timeout * 1000), 1))
        for name, value in (
            ("transaction_read_only", "on"),
            ("statement_timeout", milliseconds),
            # Less: its error names the lock.
            ("lock_timeout", str(max(int(timeout * 500), 1))),
        ):
            connection.execute(
                text("SELECT pg_catalog.set_config(:name, :value, true)"), {"name": name, "value": value}
            )
        yield
        transaction.rollback()


def plan_of(
    connection: Connection,
    query: Query,
    parameters: Mapping[str, Any] | None = None,
    *,
    analyze: bool,
    timeout: float,
    repeat: int = 2,
) -> Plan:
    """Return the plan of *query* in the transaction as it is.

    Args:
        connection: a connection in a transaction.
        query: one statement.
        parameters: the values of the parameters of a statement of SQLAlchemy.
        analyze: run the statement, and measure it.  A statement that takes longer than the timeout gets a
            plan without times.
        timeout: the statement_timeout that is in force, in seconds.
        repeat: how often a fast statement runs; the shortest time counts.

    Emits:
        ``EXPLAIN (FORMAT JSON, VERBOSE)``, with ANALYZE in a savepoint.
    """
    if not analyze:
        return _read(connection, _explained(connection, query, parameters, "FORMAT JSON, VERBOSE"))
    options = "ANALYZE, TIMING OFF, FORMAT JSON, VERBOSE"
    best: Mapping[str, Any] | None = None
    try:
        for _ in range(repeat):
            with undone(connection):
                found = _explained(connection, query, parameters, options)
            if best is None or found["Execution Time"] < best["Execution Time"]:
                best = found
            if found["Execution Time"] > _REPEATED:
                break
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        found = _explained(connection, query, parameters, "FORMAT JSON, VERBOSE")
        return _read(connection, found, timed_out_after=timeout * 1000)
    assert best is not None
    return _read(connection, best)


def _explained(
    connection: Connection, query: Query, parameters: Mapping[str, Any] | None, options: str
) -> Mapping[str, Any]:
    if isinstance(query, str):
        found = connection.exec_driver_sql(
            f"EXPLAIN ({options}) {query}", execution_options={"no_parameters": True}
        ).scalar_one()
    else:
        found = connection.execute(_Explain(query, options), parameters or {}).scalar_one()
    plans = json.loads(found) if isinstance(found, str) else found
    explained: Mapping[str, Any] = plans[0]
    return explained


def _read(connection: Connection, source: Mapping[str, Any], *, timed_out_after: float | None = None) -> Plan:
    names: set[str] = set()

    def note(name: str) -> bool:
        names.add(name)
        return True

    Plan.of(source, is_own=note)
    bare = [name.strip('"') for name in names if "." not in name]
    own = set(connection.scalars(_OWN_FUNCTIONS, {"names": bare})) if bare else set()
    return Plan.of(
        source,
        is_own=lambda name: ("." in name and not name.startswith("pg_catalog.")) or name.strip('"') in own,
        timed_out_after=timed_out_after,
    )
