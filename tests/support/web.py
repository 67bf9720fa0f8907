"""What an HTTP client sends, the two challenges that it gets, and an app that listens."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn

from sqla_rls.testing.issuer import Issuer

INVALID: Final = 'Bearer realm="api", error="invalid_token"'
MISSING: Final = 'Bearer realm="api"'


def sent_by(issuer: Issuer, subject: str, **kw: Any) -> dict[str, str]:
    """The header of a request with a token for *subject*."""
    return {"Authorization": f"Bearer {issuer.token(subject, **kw)}"}


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The URL at which uvicorn serves *app*."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
