"""Runs the queries of sql/, with settings that make the text of expressions unambiguous."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from sqlalchemy import ARRAY, Connection, CursorResult, RowMapping, Text, bindparam, text
from sqlalchemy.exc import DBAPIError

from sqla_rls.ddl.script import PINNED, sql_script, with_parts
from sqla_rls.log import autogenerate_log
from sqla_rls.snapshot import ObjectKey, TableKey

log = autogenerate_log(__name__)

_T = TypeVar("_T")

#: Queries that are parts of others.
_PARTS = ("dropped_columns", "functions", "grown_tables", "policies", "sequence_owner")


# insufficient_privilege, read_only_sql_transaction
_MAY_NOT_TRY = {"42501", "25006"}


# The owner of a database keeps TEMPORARY when it is revoked from PUBLIC; an owner of tables doesn't.
_MAY_MAKE_TEMPORARY = """
SELECT format('. Have the owner of the database run: GRANT TEMPORARY ON DATABASE %I TO %I',
              current_database(), current_user)
 WHERE NOT pg_catalog.has_database_privilege(current_database(), 'TEMPORARY')
"""


def is_autocommit(connection: Connection) -> bool:
    """Return whether each statement of *connection* commits by itself."""
    dbapi_connection = connection.connection.dbapi_connection
    return dbapi_connection is not None and connection.dialect.detect_autocommit_setting(dbapi_connection)


@contextmanager
def pinned(connection: Connection) -> Iterator[None]:
    """Make Postgres read and spell expressions independently of the session's settings, in the block."""
    # undone() needs a transaction.
    autocommit = is_autocommit(connection)
    if autocommit:
        connection.exec_driver_sql("BEGIN")
    try:
        with undone(connection):
            connection.execute(text(f"SELECT {PINNED}"))
            yield
    finally:
        if autocommit:
            connection.exec_driver_sql("ROLLBACK")


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    """Roll back the block, including its settings."""
    savepoint = connection.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


@contextmanager
def trying(connection: Connection, otherwise: str | None = None) -> Iterator[None]:
    """Roll back the block, as ``undone()`` does.

    If the role may not create temporary objects, log the text *otherwise*, if any, instead of an error.
    """
    try:
        with undone(connection):
            yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _MAY_NOT_TRY:
            raise
        if otherwise is None:
            return
        hint = "".join(connection.scalars(text(_MAY_MAKE_TEMPORARY)))
        log.warning(
            "%s: the role may not create the temporary objects of the comparison (%s)%s",
            otherwise,
            str(error.orig).strip(),
            hint,
        )


@contextmanager
def reading_ahead(connection: Connection) -> Iterator[Callable[[Callable[[], _T]], Callable[[], _T]]]:
    """Lend a function that starts a read, and returns one that waits for its result.

    A thread waits for Postgres, one read after the other, while the block does what needs no *connection*.
    The connection of an async driver belongs to its greenlet, so it reads at once.
    """
    if connection.dialect.is_async:
        yield _read_now
        return
    with ThreadPoolExecutor(1) as thread:
        try:
            yield lambda read: thread.submit(copy_context().run, read).result
        except KeyboardInterrupt:
            # Ctrl-C would wait for the thread, and the thread perhaps for a lock.
            thread.shutdown(wait=False, cancel_futures=True)
            if cancel := getattr(connection.connection.dbapi_connection, "cancel", None):
                cancel()
            raise


def _read_now(read: Callable[[], _T]) -> Callable[[], _T]:
    found = read()
    return lambda: found


def schemas_of(keys: Iterable[TableKey | ObjectKey], default_schema: str) -> list[str]:
    """Return the name of the schema of each of *keys*, as in the catalog."""
    return [key.schema or default_schema for key in keys]


def key_of(row: RowMapping, default_schema: str, schema: str = "nspname", name: str = "relname") -> TableKey:
    return TableKey.of(row[schema], row[name], default_schema)


@cache
def sql_file(name: str) -> str:
    """Return a query of sql/ with its parts."""
    text = (resources.files("sqla_rls.catalog") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    text = with_parts(text, _PARTS, sql_file)
    return text.replace("{made_auth_functions}", sql_script("made_auth_functions.sql").rstrip())


def fetch_rows(
    connection: Connection, query: str, parameters: dict[str, Any] | None = None
) -> list[RowMapping]:
    return list(_result(connection, query, parameters).mappings().all())


def fetch_tuples(
    connection: Connection, query: str, parameters: dict[str, Any] | None = None
) -> Sequence[Sequence[Any]]:
    """Return the rows of a query that has thousands: a RowMapping of each takes as long as the row."""
    return _result(connection, query, parameters).all()


def _result(connection: Connection, query: str, parameters: dict[str, Any] | None) -> CursorResult[Any]:
    arrays = [bindparam(name, type_=ARRAY(Text())) for name in parameters or ()]
    return connection.execute(text(query).bindparams(*arrays), parameters or {})
