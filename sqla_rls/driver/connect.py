"""Opens an engine's connections with startup parameters.

The parameters are the public key of pg_session_jwt; and a role, empty claims and local_preload_libraries,
which win over ``ALTER ROLE … SET``.  A pooler refuses them.  Therefore the first connection opens without
parameters, and its answer tells whether a pooler is in between.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import dropwhile, islice
from typing import TYPE_CHECKING, Any, Final, Protocol

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection

from sqla_rls.driver import server_info
from sqla_rls.driver.base import CLAIMS, BindingTemplate, DriverConnection, Reset
from sqla_rls.driver.server_info import ServerInfo
from sqla_rls.driver.unprepared import Unnamed, unprepared_by_driver
from sqla_rls.exc import DeclarationError

if TYPE_CHECKING:
    from sqla_rls.tokens.signing import Ed25519Signer

#: The keys of ``Connection.info`` for the ServerInfo, and for the signer whose key the server has.
SERVER_INFO: Final = "sqla_rls.server_info"
SIGNER: Final = "sqla_rls.signer"


class DriverModule(Protocol):
    """The members of a driver's module."""

    @property
    def UNPREPARED(self) -> dict[str, Any]:
        """Arguments of connect() that keep the driver from caching prepared statements."""
        ...

    def connect(self, dialect: Dialect, cargs: Any, cparams: dict[str, Any]) -> Any:
        """Open a connection that sends bindings, or one of a class of the application."""

    def with_settings(self, cparams: dict[str, Any], settings: dict[str, str]) -> dict[str, Any]:
        """Return *cparams* with *settings* added to the startup parameters; existing parameters win."""
        ...

    def startup(self, driver_connection: Any) -> dict[str, Any]:
        """Return the arguments of connect() that ``with_settings()`` overrides, as a connection has them."""
        ...

    def listen(self, engine: Engine) -> None:
        """Listen to the events of *engine* that the driver needs."""


def install(
    engine: Engine, *, sign: bool, reset: Reset, leftovers: Callable[[ServerInfo], BindingTemplate]
) -> bool:
    """Let *engine* open connections that send bindings; return False if its driver can't.

    Open connections don't change.  The creator or the connection class of an application stays in use.

    Args:
        engine: the engine.
        sign: whether each connection gets a key for pg_session_jwt.
        reset: "settings" and "all" give each connection the role ``none``.  With "all" the driver prepares
            no statement.
        leftovers: returns the template by which a connection resets what the caller of another client has
            left.  A connection through a pooler does so from its first transaction on.

    Raises:
        DeclarationError: the engine is enforced with another *sign* or *reset* already.
    """
    if (driver := _module(engine.dialect.driver)) is None:
        return False
    wanted = (sign, reset)
    for listener in engine.dialect.dispatch.do_connect:
        if isinstance(found := getattr(listener, "__self__", None), _Opening):
            if found.wanted != wanted:
                raise DeclarationError(
                    "row security can't be enforced: another session factory of this engine has other values "
                    "of signing= and reset=. Give both the same values, or engines of their own"
                )
            return True
    event.listen(engine, "do_connect", _Opening(driver, wanted, leftovers).open)
    driver.listen(engine)
    return True


def _module(driver: str) -> DriverModule | None:
    # Imported here, since an application may have only one of the drivers.
    if driver == "psycopg":
        from sqla_rls.driver import psycopg

        return psycopg
    if driver == "asyncpg":
        from sqla_rls.driver import asyncpg

        return asyncpg
    return None


class _Opening:
    def __init__(
        self,
        driver: DriverModule,
        wanted: tuple[bool, Reset],
        leftovers: Callable[[ServerInfo], BindingTemplate],
    ) -> None:
        self.driver, self.wanted, self._leftovers = driver, wanted, leftovers
        self._sign, self._reset = wanted
        #: None until the first connection has answered.
        self._direct: bool | None = None
        #: local_preload_libraries of the first connection.  Injected SQL can name a missing library with
        #: ALTER ROLE, and then every new connection fails.
        self._libraries = ""
        #: Whether the database has had pg_session_jwt.  Without it, a connection needs no key.
        self._extension = False
        #: Arguments that the driver has read from elsewhere, such as a service file.
        self._startup: dict[str, Any] = {}

    def open(self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        if self._reset == "all":
            cparams.update(self.driver.UNPREPARED)
        if not self._sign and self._reset == "none":
            return self._connect(dialect, record, cargs, cparams)
        if self._direct is None:
            connection, found = self._first(dialect, record, cargs, cparams)
            if not found.direct:
                self._direct = False
                return self._kept(dialect, record, connection, found)
            dialect.do_close(connection)
            self._direct, self._libraries, self._extension = True, found.libraries, found.extension
        if not self._direct:
            return self._kept(dialect, record, *self._asked(dialect, record, cargs, cparams))
        connection, found, signer = self._with_parameters(dialect, record, cargs, cparams)
        if self._sign and found.extension and not self._extension:
            # The extension is new, and this connection has no key.
            dialect.do_close(connection)
            self._extension = True
            connection, found, signer = self._with_parameters(dialect, record, cargs, cparams)
        return self._kept(dialect, record, connection, found, signer)

    def _with_parameters(
        self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]
    ) -> tuple[DBAPIConnection, ServerInfo, Ed25519Signer | None]:
        settings = {"role": "none", CLAIMS: "", "local_preload_libraries": self._libraries}
        signer = None
        if self._sign and self._extension:
            # Imported here, since an app without signatures needs neither PyJWT nor cryptography.
            from sqla_rls.tokens.signing import Ed25519Signer

            signer = Ed25519Signer()
            settings["pg_session_jwt.jwk"] = signer.jwk
        try:
            with_settings = self.driver.with_settings({**self._startup, **cparams}, settings)
            return *self._asked(dialect, record, cargs, with_settings), signer
        except dialect.loaded_dbapi.Error:
            # A pooler that QUERY doesn't reveal may have refused the parameters.  If the server has
            # failed, the second attempt fails, too.
            connection, found = self._asked(dialect, record, cargs, cparams)
            if self._sign and found.extension:
                # A failure must not weaken the binding of callers.
                dialect.do_close(connection)
                raise
            return connection, found, None

    def _first(
        self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]
    ) -> tuple[DBAPIConnection, ServerInfo]:
        try:
            connection, found = self._asked(dialect, record, cargs, cparams)
            self._startup = self.driver.startup(dialect.get_driver_connection(connection))
            return connection, found
        except Exception:
            with suppress(Exception):
                none = self.driver.with_settings(cparams, {"local_preload_libraries": ""})
                return self._asked(dialect, record, cargs, none)
            raise

    def _kept(
        self,
        dialect: Dialect,
        record: Any,
        connection: Any,
        found: ServerInfo,
        signer: Ed25519Signer | None = None,
    ) -> Any:
        record.info[SERVER_INFO], record.info[SIGNER] = found, signer
        driver_connection = dialect.get_driver_connection(connection)
        if self._reset != "none" and not found.direct and isinstance(driver_connection, DriverConnection):
            driver_connection.leftovers = self._leftovers(found)
        return connection

    def _asked(
        self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]
    ) -> tuple[DBAPIConnection, ServerInfo]:
        connection = self._connect(dialect, record, cargs, cparams)
        try:
            # On a server connection of a pooler, a caller of another client may have been the last one.
            with unprepared_by_driver(dialect, connection, Unnamed()):
                cursor = connection.cursor()
                cursor.execute(server_info.QUERY)
                answer: Any = cursor.fetchone()
                cursor.close()
            connection.rollback()
        except BaseException:
            dialect.do_terminate(connection)
            raise
        return connection, server_info.read(answer[0], dialect.get_driver_connection(connection), is_new=True)

    def _connect(self, dialect: Dialect, record: Any, cargs: Any, cparams: dict[str, Any]) -> Any:
        # A returned connection ends the event.  Later listeners may still be needed, for example for a
        # password that changes daily.
        later = dropwhile(lambda listener: listener != self.open, dialect.dispatch.do_connect)
        for listener in islice(later, 1, None):
            if (connection := listener(dialect, record, cargs, cparams)) is not None:
                return connection
        return self.driver.connect(dialect, cargs, cparams)
