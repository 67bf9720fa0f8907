"""The facts of a server and a connection that no caller can change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from sqla_rls.driver.base import Modes

#: Loads the library of pg_session_jwt, too.
# reset_val is the value after RESET ALL.  On a server connection of a pooler, the current value may differ.
# The search_path may differ, too, so every name has its schema.
QUERY: Final = (resources.files("sqla_rls.driver") / "sql" / "server_info.sql").read_text(encoding="utf-8")
#: The settings that PgBouncer makes on a server connection for its client; RESET ALL undoes them.
_POOLER_SETTINGS: Final = ("application_name", "client_encoding", "DateStyle", "TimeZone")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The server of a connection, as the answer to QUERY describes it."""

    backend_pid: int
    #: The version of the server, such as 180000.
    version: int
    #: Whether no pooler is between the connection and the server.
    direct: bool
    #: Whether the database has the extension pg_session_jwt.
    extension: bool
    #: Whether the database has the functions of ``op.create_auth_functions(signed=True)``.
    verifier: bool
    #: Whether the functions of schema ``auth`` belong to another program, and may read claims one by one.
    separate_claims: bool
    #: The public key with which the extension verifies on this connection; empty for none.
    jwk: str
    #: The default search_path.
    search_path: str
    #: The default modes of a transaction.
    modes: Modes
    #: The value of local_preload_libraries.
    libraries: str
    #: The settings that a pooler has made for this client.
    pooler_settings: dict[str, str]
    #: Whether RESET ALL is known to leave request.jwt.claims empty.
    starts_without_claims: bool


def read(answer: str, driver_connection: Any, *, is_new: bool) -> ServerInfo:
    """Return the facts in the *answer* to QUERY about *driver_connection*.

    Args:
        answer: the answer, as JSON.
        driver_connection: the connection.
        is_new: whether QUERY was its first statement.
    """
    found = json.loads(answer)
    reset, session = found["reset"], found["session"] or {}
    direct = found["backend_pid"] == _backend_pid(driver_connection)
    return ServerInfo(
        backend_pid=found["backend_pid"],
        version=found["version"],
        direct=direct,
        extension=found["extension"],
        verifier=found["verifier"],
        separate_claims=found["separate_claims"],
        jwk=found["jwk"] or "",
        search_path=reset["search_path"],
        modes=Modes(
            isolation_level=reset["default_transaction_isolation"],
            # A standby refuses READ WRITE.
            read_only=None if found["in_recovery"] else reset["default_transaction_read_only"] == "on",
            deferrable=reset["default_transaction_deferrable"] == "on",
        ),
        libraries=reset["local_preload_libraries"],
        pooler_settings={}
        if direct
        else {name: session[name] for name in _POOLER_SETTINGS if name in session},
        # On another connection, the empty text may be what a caller has left, and not the default.
        starts_without_claims=direct and is_new and found["has_empty_claims"],
    )


def _backend_pid(driver_connection: Any) -> int | None:
    """Return the process id that the server told the driver; None if the driver doesn't expose it."""
    if hasattr(driver_connection, "get_server_pid"):
        return int(driver_connection.get_server_pid())  # asyncpg
    info = getattr(driver_connection, "info", None)
    return getattr(info, "backend_pid", None)  # psycopg
