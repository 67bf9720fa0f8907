"""A connection to the database of which a module asks who can do what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine


@pytest.fixture
def connection(owner: Engine) -> Iterator[Connection]:
    """The superuser's; each module has its own ``owner``."""
    with owner.connect() as connection:
        yield connection
