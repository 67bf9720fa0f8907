"""Resets connections of the application's own when they return to their pool.

They can't send a reset with BEGIN, as the connections of sqla_rls do.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Dialect, event

from sqla_rls.driver.base import BindingTemplate
from sqla_rls.driver.unprepared import Unnamed, unprepared_by_driver

#: The key of ``Connection.info`` for the template of the last binding.
_LEFTOVERS: Final = "sqla_rls.leftovers"
_DRIVERS: Final = ("psycopg", "psycopg_async", "asyncpg")


def reset_when_returned(connection: Connection, template: BindingTemplate) -> None:
    """Reset what a caller leaves on *connection* when it returns to its pool.

    Emits:
        RESET ROLE and the resets of *template*, in one message outside a transaction.
    """
    if connection.dialect.driver in _DRIVERS:
        connection.connection.info[_LEFTOVERS] = template


def listen(connection: Connection) -> None:
    """Listen to the returns to the pool of *connection*, once."""
    returns: Any = connection.engine.pool.dispatch.checkin
    if not any(isinstance(getattr(one, "__self__", None), _Returns) for one in returns):
        event.listen(connection.engine, "checkin", _Returns(connection.dialect).reset)


class _Returns:
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def reset(self, dbapi_connection: Any, record: Any) -> None:
        if dbapi_connection is None or (template := record.info.pop(_LEFTOVERS, None)) is None:
            return
        resets = "; ".join(template.resets(local=False))
        try:
            # The pool may have been told to leave the transaction open.
            dbapi_connection.rollback()
            if self._dialect.driver == "asyncpg":
                dbapi_connection.run_async(lambda driver_connection: driver_connection.execute(resets))
            else:
                self._execute(dbapi_connection, resets)
        except BaseException as error:
            record.invalidate(error)
            if not isinstance(error, Exception):
                raise

    def _execute(self, dbapi_connection: Any, resets: str) -> None:
        asked = dbapi_connection.autocommit
        dbapi_connection.autocommit = True
        with unprepared_by_driver(self._dialect, dbapi_connection, Unnamed()):
            cursor = dbapi_connection.cursor()
            cursor.execute(resets)
            cursor.close()
        dbapi_connection.autocommit = asked
