"""Explains how fast a query is under the policies, and why."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, overload

from sqlalchemy import URL, ColumnElement, Connection, Engine, Executable, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ClauseElement

from sqla_rls.analyze.plans.ask import Query, plan_of, read_only
from sqla_rls.analyze.plans.bench import Bench
from sqla_rls.analyze.plans.explained import ExplainedQuery
from sqla_rls.analyze.plans.forms import command_of, is_read_only, with_condition
from sqla_rls.analyze.plans.plan import Plan
from sqla_rls.analyze.plans.rows import ROWS
from sqla_rls.analyze.plans.search import Advice, find_advice
from sqla_rls.analyze.sides.side import Side
from sqla_rls.analyze.sides.statements import split
from sqla_rls.analyze.why.acting import as_caller, require_known_caller
from sqla_rls.analyze.why.target import first_line, is_of_server
from sqla_rls.analyze.worlds.schema import Schema
from sqla_rls.catalog.query import undone
from sqla_rls.exc import AnalysisError
from sqla_rls.tokens.caller import Caller
from sqla_rls.tokens.signing import SigningKey

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

TIMEOUT: Final = 10.0
_NOT_RUN: Final = (
    "The query isn't one SELECT that only reads, so that it didn't run: the plans have no times."
)


def explain_query(
    connection: Connection,
    caller: Caller,
    query: Query,
    parameters: Mapping[str, Any] | None = None,
    *,
    where: str | ColumnElement[bool] | None = None,
    signing_key: SigningKey | None = None,
    timeout: float = TIMEOUT,
) -> ExplainedQuery:
    """Explain the plan of *query* under the policies of *caller*, beside the plan without row security.

    Nothing is written: the transaction is read only and rolled back.  A SELECT runs; of anything else, only
    the plan is made.  Under asyncio, ``await connection.run_sync(explain_query, caller, …)``.

    Args:
        connection: a connection of a role that row security doesn't hold for.  It must be a member of the
            caller's role.  Another role gets the caller's plan alone.
        caller: the caller.
        query: one statement, as SQL or as a statement of SQLAlchemy.
        parameters: the values of the parameters of a statement of SQLAlchemy.
        where: a hand-written condition that does the same as the policies; it is added to the WHERE of the
            query without row security.
        signing_key: the key, where the database verifies callers.
        timeout: the most seconds that a statement takes; it waits for a lock half as long.  A query that
            takes longer gets a plan without times.

    Raises:
        AnalysisError: the query isn't one statement, Postgres refuses it, or the caller can't be bound.
        BindingError: the connection's role isn't a member of the caller's role.

    Emits:
        ``EXPLAIN (FORMAT JSON, VERBOSE)``, with ANALYZE for a SELECT, and ``set_config(…, true)`` for the
        caller, in a savepoint.  A SELECT takes no lock above ACCESS SHARE; the plan of another statement
        takes the lock of that statement.
    """
    analyze = _require_one(query)
    limited: Any = {"analyze": analyze, "timeout": timeout}
    with read_only(connection, timeout):
        require_known_caller(connection, caller, signing_key)
        role = connection.scalar(text("SELECT pg_catalog.current_setting('role')"))
        with as_caller(connection, caller, signing_key):
            under = _planned(connection, query, parameters, limited)
        explained = ExplainedQuery(
            query=_shown(connection, query),
            role=caller.role,
            under_policies=under,
            notes=() if analyze else (_NOT_RUN,),
        )
        with as_caller(connection, caller, signing_key):
            connection.execute(_WITHOUT, {"role": role})
            return _beside(connection, explained, query, parameters, where, limited)


_WITHOUT: Final = text(
    "SELECT pg_catalog.set_config('role', :role, true), pg_catalog.set_config('row_security', 'off', true)"
)


@overload
def explain(
    session: AsyncSession,
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
    *,
    where: str | ColumnElement[bool] | None = None,
    owner: Engine | AsyncEngine | None = None,
    advise: bool = False,
    timeout: float = TIMEOUT,
) -> Awaitable[ExplainedQuery]: ...
@overload
def explain(
    session: Session,
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
    *,
    where: str | ColumnElement[bool] | None = None,
    owner: Engine | AsyncEngine | None = None,
    advise: bool = False,
    timeout: float = TIMEOUT,
) -> ExplainedQuery: ...
def explain(
    session: Any,
    statement: Executable,
    parameters: Mapping[str, Any] | None = None,
    *,
    where: str | ColumnElement[bool] | None = None,
    owner: Engine | AsyncEngine | None = None,
    advise: bool = False,
    timeout: float = TIMEOUT,
) -> Any:
    """Explain the plan of *statement* under the policies of the session's caller.

    Nothing is written, and the session isn't flushed: a savepoint is read only and rolled back.  For an
    AsyncSession, await the result.

    Args:
        session: a session with a caller.
        statement: one statement, for example ``select(Todo)``.
        parameters: the values of its parameters.
        where: a hand-written condition that does the same as the policies.
        owner: an engine of a role that row security doesn't hold for.  Without it, the plan without row
            security is missing.
        advise: measure changes on generated rows in a scratch database of *owner*'s database.
        timeout: the most seconds that a statement takes; it waits for a lock half as long.

    Raises:
        AnalysisError: Postgres refuses the statement, or ``advise`` has no owner.

    Emits:
        As of ``explain_query()``.
    """
    if hasattr(session, "run_sync"):
        return session.run_sync(
            lambda inner: explain(
                inner,
                statement,
                parameters,
                where=where,
                owner=owner,
                advise=advise,
                timeout=timeout,
            )
        )
    if not isinstance(statement, ClauseElement):
        raise AnalysisError("the statement can't be explained: it isn't one of SQLAlchemy. Write text(…)")
    if advise and owner is None:
        raise AnalysisError("no advice can be measured: a scratch database needs the schema. Give owner=…")
    analyze = _require_one(statement)
    limited: Any = {"analyze": analyze, "timeout": timeout}
    connection: Connection = session.connection()
    with read_only(connection, timeout):
        role = str(connection.scalar(text("SELECT current_user")))
        under = _planned(connection, statement, parameters, limited)
    explained = ExplainedQuery(
        query=_shown(connection, statement),
        role=role,
        under_policies=under,
        notes=() if analyze else (_NOT_RUN,),
    )
    if owner is None:
        note = "The plan without row security is missing: its role sees all rows. Give owner=…"
        return replace(explained, notes=(*explained.notes, note))
    engine = owner if isinstance(owner, Engine) else owner.sync_engine
    with engine.connect() as other, read_only(other, timeout):
        other.execute(_ROW_SECURITY)
        explained = _beside(other, explained, statement, parameters, where, limited)
    return advised(explained, engine.url, statement, parameters) if advise else explained


_ROW_SECURITY: Final = text("SELECT pg_catalog.set_config('row_security', 'off', true)")


def advised(
    explained: ExplainedQuery,
    url: URL,
    query: Query,
    parameters: Mapping[str, Any] | None = None,
    *,
    claims: Mapping[str, Any] | None = None,
    rows: int = ROWS,
) -> ExplainedQuery:
    """Return *explained* with the changes that make its query faster on generated rows.

    Args:
        explained: the plans.
        url: the database, as its owner.  It is only read: pg_dump copies its schema to a scratch server.
        query: the query.
        parameters: the values of its parameters.
        claims: the claims of the caller that generated rows don't decide.
        rows: the rows of each table.

    Raises:
        AnalysisError: the scratch database can't be built.
    """
    side = Side.parse(url.render_as_string(hide_password=False))
    with side.build() as built:
        schema = Schema.read(built.connection, of_new_rows=True)
        built.connection.rollback()
        scanned = {(scan.schema, scan.table) for scan in explained.under_policies.scans}
        names = [
            one.name
            for one in schema.relations.values()
            if (one.schema, one.relname) in scanned and one.row_security
        ]
        if not names:
            note = "There is no advice: the query reads no table with row security."
            return replace(explained, notes=(*explained.notes, note))
        with Bench.open(built.connection, names, rows) as bench:
            advice, notes = _measured(bench, explained, names, query, parameters, claims)
            return replace(
                explained,
                advice=tuple(advice),
                notes=(*explained.notes, *built.left_out, *_without_rows(bench), *notes),
            )


def _without_rows(bench: Bench) -> Iterator[str]:
    return (f"{name} has no generated rows: {reason}." for name, reason in bench.left_out.items())


def _measured(
    bench: Bench,
    explained: ExplainedQuery,
    names: list[str],
    query: Query,
    parameters: Mapping[str, Any] | None,
    claims: Mapping[str, Any] | None,
) -> tuple[list[Advice], list[str]]:
    actor = bench.actor(query, explained.role, parameters, claims)
    if actor is None:
        return [], ["There is no advice: the query is an error in the scratch database."]
    found: dict[str, Advice] = {}
    command = command_of(_sql(query))
    for name in names:
        for one in find_advice(bench, query, actor, name, command, parameters):
            found.setdefault(one.change.statement, one)
    if found:
        return list(found.values()), []
    milliseconds = bench.measure(query, actor, parameters).milliseconds or 0.0
    note = (
        f"There is no advice: no change that sqla_rls knows makes the query faster on generated rows, where "
        f"it takes {milliseconds:.1f} ms."
    )
    return [], [note]


def _beside(
    connection: Connection,
    explained: ExplainedQuery,
    query: Query,
    parameters: Mapping[str, Any] | None,
    where: str | ColumnElement[bool] | None,
    limited: Any,
) -> ExplainedQuery:
    """Add the plans without row security, as far as the connection may see all rows."""
    try:
        with undone(connection):
            without = plan_of(connection, query, parameters, **limited)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        note = (
            f"The plan without row security is missing: {first_line(error)}. Connect as the owner of the "
            "tables, as a superuser, or as a role with BYPASSRLS."
        )
        return replace(explained, notes=(*explained.notes, note))
    explained = replace(explained, without_row_security=without)
    if where is None:
        return explained
    found = _planned(connection, _with_where(query, where), parameters, limited)
    return replace(explained, with_where=found)


def _with_where(query: Query, where: str | ColumnElement[bool]) -> Query:
    if isinstance(query, str):
        if not isinstance(where, str):
            raise AnalysisError("where= can't be added: the query is a text. Give a text")
        found = with_condition(query, where)
        if found is None:
            raise AnalysisError(
                "the condition can't be added: the query has no WHERE of its own, such as a UNION, or one of "
                "both can't be parsed. Write it into a SELECT"
            )
        return found
    if not hasattr(query, "where"):
        raise AnalysisError("where= can't be added: the statement has no where(). Give a select()")
    statement: Any = query
    made: Query = statement.where(text(where) if isinstance(where, str) else where)
    return made


def _planned(
    connection: Connection, query: Query, parameters: Mapping[str, Any] | None, limited: Any
) -> Plan:
    try:
        with undone(connection):
            return plan_of(connection, query, parameters, **limited)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        step = "Try again, or give a longer timeout" if is_of_server(error) else "Correct the query"
        raise AnalysisError(f"the query can't be explained: {first_line(error)}. {step}") from error


def _require_one(query: Query) -> bool:
    """Return whether *query* is a SELECT that only reads; raise AnalysisError if it isn't one statement."""
    sql = _sql(query)
    if len(split(sql)) != 1:
        raise AnalysisError("the query can't be explained: it isn't one statement. Give one SELECT")
    return bool(is_read_only(sql))


def _sql(query: Query) -> str:
    if isinstance(query, str):
        return query
    return str(query.compile(dialect=_NUMBERED, compile_kwargs={"render_postcompile": True}))


#: Its parameters are $1, $2 and so on, which the parser knows.
_NUMBERED: Final = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]


def _shown(connection: Connection, query: Query) -> str:
    if isinstance(query, str):
        return " ".join(query.split())
    with suppress(Exception):
        return " ".join(str(query.compile(dialect=connection.dialect)).split())
    return type(query).__name__
