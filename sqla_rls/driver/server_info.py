"""What a connection is before anybody uses it, and what none of its callers can change."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqla_rls.driver.base import Modes

#: Loads the library of pg_session_jwt.  A function whose body is the first to load it finds no claims that
#: were set before (0.5.0, PostgreSQL 15).  A role that may call a function may call its validator, too.
LOAD: Final = """
SELECT pg_catalog.count(pg_catalog.fmgr_c_validator(p.oid))
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid OPERATOR(pg_catalog.=) p.prolang
 WHERE n.nspname OPERATOR(pg_catalog.=) 'auth' AND p.proname OPERATOR(pg_catalog.=) 'user_id'
   AND l.lanname OPERATOR(pg_catalog.=) 'c' AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
"""

# The verifier is known by its owner, who owns the key as well: neither is a caller's to make.
# reset_val is what a setting is after RESET ALL: a pooler may lend a server connection on which it is
# something else.  That may be so of the search_path, too: hence every name with its schema.
QUERY: Final = f"""
SELECT pg_catalog.jsonb_build_object(
  'backend_pid', pg_catalog.pg_backend_pid(),
  'in_recovery', pg_catalog.pg_is_in_recovery(),
  'loaded', ({LOAD}),
  'extension', EXISTS (SELECT FROM pg_catalog.pg_extension
                        WHERE extname OPERATOR(pg_catalog.=) 'pg_session_jwt'),
  'verifier', EXISTS (
    SELECT FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
      JOIN pg_catalog.pg_class AS k ON k.relowner OPERATOR(pg_catalog.=) p.proowner
      JOIN pg_catalog.pg_namespace AS s ON s.oid OPERATOR(pg_catalog.=) k.relnamespace
     WHERE n.nspname OPERATOR(pg_catalog.=) 'auth' AND p.proname OPERATOR(pg_catalog.=) 'session'
       AND p.pronargs OPERATOR(pg_catalog.=) 0 AND p.prosecdef
       AND s.nspname OPERATOR(pg_catalog.=) 'sqla_rls_secret'
       AND k.relname OPERATOR(pg_catalog.=) 'signing_key'),
  'jwk', pg_catalog.current_setting('pg_session_jwt.jwk', true),
  'reset', pg_catalog.jsonb_object_agg(name, reset_val),
  'session', pg_catalog.jsonb_object_agg(name, setting) FILTER (WHERE source OPERATOR(pg_catalog.=) 'session')
)::pg_catalog.text
  FROM pg_catalog.pg_settings
 WHERE name OPERATOR(pg_catalog.=) ANY (ARRAY[
   'search_path', 'default_transaction_isolation', 'default_transaction_read_only',
   'default_transaction_deferrable', 'application_name', 'client_encoding', 'DateStyle', 'TimeZone',
   'local_preload_libraries'])
"""  # noqa: S608 - LOAD is a constant
#: What PgBouncer sets on the server connection that it lends to a client; RESET ALL would take it away.
_LENT: Final = ("application_name", "client_encoding", "DateStyle", "TimeZone")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What the answer to QUERY says."""

    backend_pid: int
    #: No pooler is between it and the server.
    direct: bool
    #: The extension pg_session_jwt is in the database.
    extension: bool
    #: The functions of ``op.create_auth_functions(signed=True)`` are.
    verifier: bool
    #: The public key that the extension verifies with on this connection; empty for none.
    jwk: str
    #: What it is when nobody has set another.
    search_path: str
    modes: Modes
    #: The value of local_preload_libraries.
    libraries: str
    #: What a pooler has set for this client.
    pooler_settings: dict[str, str]


def read(answer: str, driver_connection: Any) -> ServerInfo:
    """What the *answer* to QUERY says of *driver_connection*."""
    found = json.loads(answer)
    reset, session = found["reset"], found["session"] or {}
    direct = found["backend_pid"] == _backend_pid(driver_connection)
    return ServerInfo(
        backend_pid=found["backend_pid"],
        direct=direct,
        extension=found["extension"],
        verifier=found["verifier"],
        jwk=found["jwk"] or "",
        search_path=reset["search_path"],
        modes=Modes(
            isolation_level=reset["default_transaction_isolation"],
            # On a standby nothing can be READ WRITE.
            read_only=None if found["in_recovery"] else reset["default_transaction_read_only"] == "on",
            deferrable=reset["default_transaction_deferrable"] == "on",
        ),
        libraries=reset["local_preload_libraries"],
        pooler_settings={} if direct else {name: session[name] for name in _LENT if name in session},
    )


def _backend_pid(driver_connection: Any) -> int | None:
    """The process that the driver was told it is connected to; None if the driver doesn't say."""
    if hasattr(driver_connection, "get_server_pid"):
        return int(driver_connection.get_server_pid())  # asyncpg
    info = getattr(driver_connection, "info", None)
    return getattr(info, "backend_pid", None)  # psycopg
