"""How an engine's connections are opened: with what only startup parameters can do.

Those are the public key that pg_session_jwt is to verify with, and a role and local_preload_libraries that
win over ``ALTER ROLE … SET``.  A pooler refuses them, so that the first connection is opened without, and
asked whether one is in between.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import dropwhile, islice
from typing import Any, Final, Protocol

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from sqla_rls.driver import server_info
from sqla_rls.driver.base import Reset
from sqla_rls.driver.server_info import ServerInfo
from sqla_rls.exc import DeclarationError
from sqla_rls.tokens.signing import Ed25519Signer

#: Where ``Connection.info`` keeps the ServerInfo, and the signer whose key the server was given.
SERVER_INFO: Final = "sqla_rls.server_info"
SIGNER: Final = "sqla_rls.signer"


class DriverModule(Protocol):
    """What a module for a driver has."""

    @property
    def UNPREPARED(self) -> dict[str, Any]:
        """Arguments of connect() by which it keeps no prepared statement."""
        ...

    def connect(self, dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
        """Open one of its connections that send bindings, or the application's own."""

    def with_settings(self, cparams: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
        """*cparams* with *settings* among the startup parameters; those that are there win."""
        ...

    def listen(self, engine: Engine) -> None:
        """Listen to what else it must know about the connections of *engine*."""


def install(engine: Engine, *, sign: bool, reset: Reset) -> bool:
    """Let *engine* open connections that send bindings; return False if its driver can't.

    Connections that are open stay as they are.  An engine with a creator or a connection class of the
    application's own keeps it.

    Args:
        engine: the engine.
        sign: each connection gets a key for pg_session_jwt.
        reset: "settings" and "all" give each connection the role ``none``; with "all" it prepares no
            statement.

    Raises:
        DeclarationError: the engine opens its connections in another way already.
    """
    if (driver := _module(engine.dialect.driver)) is None:
        return False
    wanted = (sign, reset)
    for listener in engine.dialect.dispatch.do_connect:
        if isinstance(found := getattr(listener, "__self__", None), _Opening):
            if found.wanted != wanted:
                raise DeclarationError(
                    "the engine is enforced with other options: the sessions of one engine must agree on "
                    "signing= and reset=. Give the others an engine of their own"
                )
            return True
    event.listen(engine, "do_connect", _Opening(driver, wanted).open)
    driver.listen(engine)
    return True


def _module(driver: str) -> DriverModule | None:
    # Not above: an application has one of them.
    if driver == "psycopg":
        from sqla_rls.driver import psycopg

        return psycopg
    if driver == "asyncpg":
        from sqla_rls.driver import asyncpg

        return asyncpg
    return None


class _Opening:
    def __init__(self, driver: DriverModule, wanted: tuple[bool, Reset]) -> None:
        self.driver, self.wanted = driver, wanted
        self._sign, self._reset = wanted
        #: None until a connection was asked.
        self._direct: bool | None = None
        #: local_preload_libraries of the first connection: injected SQL can ALTER ROLE name a library that
        #: isn't there, so that every connection fails.
        self._libraries = ""

    def open(self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        if self._reset == "all":
            cparams.update(self.driver.UNPREPARED)
        if not self._sign and self._reset == "none":
            return self._connect(dialect, record, cargs, cparams)
        if self._direct is None:
            connection, found = self._first(dialect, record, cargs, cparams)
            if not found.direct:
                self._direct = False
                return self._kept(record, connection, found)
            dialect.do_close(connection)
            self._direct, self._libraries = True, found.libraries
        if self._direct:
            settings = {"role": "none", "local_preload_libraries": self._libraries}
            signer = Ed25519Signer() if self._sign else None
            if signer is not None:
                settings["pg_session_jwt.jwk"] = signer.jwk
            try:
                connection, found = self._asked(
                    dialect, record, cargs, self.driver.with_settings(cparams, settings)
                )
            except dialect.loaded_dbapi.Error:
                # Perhaps a pooler that doesn't show.  If it is the server, this fails, too.
                connection, found = self._asked(dialect, record, cargs, cparams)
                if signer is not None and found.extension:
                    # Whatever it was, callers aren't to be bound by less for it.
                    dialect.do_close(connection)
                    raise
                return self._kept(record, connection, found)
            return self._kept(record, connection, found, signer)
        return self._kept(record, *self._asked(dialect, record, cargs, cparams))

    def _first(
        self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]
    ) -> tuple[DBAPIConnection, ServerInfo]:
        try:
            return self._asked(dialect, record, cargs, cparams)
        except Exception:
            with suppress(Exception):
                none = self.driver.with_settings(cparams, {"local_preload_libraries": ""})
                return self._asked(dialect, record, cargs, none)
            raise

    def _kept(
        self, record: Any, connection: Any, found: ServerInfo, signer: Ed25519Signer | None = None
    ) -> Any:
        record.info[SERVER_INFO], record.info[SIGNER] = found, signer
        return connection

    def _asked(
        self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]
    ) -> tuple[DBAPIConnection, ServerInfo]:
        connection = self._connect(dialect, record, cargs, cparams)
        try:
            cursor = connection.cursor()
            cursor.execute(server_info.QUERY)
            answer: Any = cursor.fetchone()
            cursor.close()
            connection.rollback()
        except BaseException:
            dialect.do_terminate(connection)
            raise
        return connection, server_info.read(answer[0], dialect.get_driver_connection(connection))

    def _connect(self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        # What we return ends the search: ask those that come later, for a password of today perhaps.
        later = dropwhile(lambda listener: listener != self.open, dialect.dispatch.do_connect)
        for listener in islice(later, 1, None):
            if (connection := listener(dialect, record, cargs, cparams)) is not None:
                return connection
        return self.driver.connect(dialect, cargs, cparams)
