"""Keeps drivers from preparing statements of sqla_rls.

SQL of the last caller may have replaced a prepared statement by another one of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import urandom
from typing import Any, Final

from sqlalchemy import Connection, Dialect, event

#: The key of ``Connection.info`` for the unnamed statements of asyncpg.
_UNNAMED: Final = "sqla_rls.unnamed"


@contextmanager
def unprepared(connection: Connection) -> Iterator[None]:
    """Run statements on *connection* that no earlier SQL on it can have replaced.

    psycopg doesn't prepare them.  asyncpg sends each as an unnamed statement, with its text.  With another
    driver, a random comment makes each a new statement.
    """
    proxied: Any = connection.connection
    info = proxied.info
    if (unnamed := info.get(_UNNAMED)) is None:
        unnamed = info[_UNNAMED] = Unnamed()
    with unprepared_by_driver(connection.dialect, proxied.dbapi_connection, unnamed) as is_unprepared:
        if is_unprepared:
            yield
            return
        event.listen(connection, "before_cursor_execute", _with_comment, retval=True)
        try:
            yield
        finally:
            event.remove(connection, "before_cursor_execute", _with_comment)


class Unnamed(dict[str, Any]):
    """The unnamed statements of an asyncpg connection by their texts, in place of SQLAlchemy's cache."""

    def __setitem__(self, text: str, prepared: Any) -> None:
        # From now on, each execution sends the text in one message with the parameters.
        prepared[0]._state.mark_unprepared()
        super().__setitem__(text, prepared)


@contextmanager
def unprepared_by_driver(dialect: Dialect, dbapi_connection: Any, unnamed: Unnamed) -> Iterator[bool]:
    """Let the driver prepare no statement; the value is False if that is impossible."""
    if dialect.driver in ("psycopg", "psycopg_async"):
        # Imported here, since an application may have only one of the drivers.
        import psycopg

        driver_connection = dialect.get_driver_connection(dbapi_connection)
        if isinstance(driver_connection, psycopg.Connection | psycopg.AsyncConnection):
            threshold = driver_connection.prepare_threshold
            driver_connection.prepare_threshold = None
            try:
                yield True
            finally:
                driver_connection.prepare_threshold = threshold
            return
    elif dialect.driver == "asyncpg" and hasattr(dbapi_connection, "_prepared_statement_name_func"):
        cache = dbapi_connection._prepared_statement_cache
        name = dbapi_connection._prepared_statement_name_func
        dbapi_connection._prepared_statement_cache = unnamed
        dbapi_connection._prepared_statement_name_func = _no_name
        try:
            yield True
        finally:
            dbapi_connection._prepared_statement_cache = cache
            dbapi_connection._prepared_statement_name_func = name
        return
    yield False


def _no_name() -> str:
    return ""


def _with_comment(
    connection: Connection, cursor: Any, statement: str, parameters: Any, *more: Any
) -> tuple[str, Any]:
    return f"/* {urandom(16).hex()} */ {statement}", parameters
