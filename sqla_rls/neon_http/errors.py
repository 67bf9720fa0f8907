"""The answers to requests that fail, before or after Postgres."""

from __future__ import annotations


class BadRequest(Exception):
    """A request that no statement runs for; *status* is that of the answer."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
