"""Tests in a folder of their own, whose conftest has the fixture ``access``."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL

_CONFTEST = """
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqla_rls.testing.access import Access

@pytest.fixture
def access():
    engine = create_engine({url!r}, poolclass=NullPool)
    with engine.connect() as connection, connection.begin() as transaction:
        yield Access(connection)
        transaction.rollback()
"""


def write_conftest(directory: Path, url: URL, *more: str) -> None:
    """Write the conftest of *directory*: ``access`` is a connection to *url*, and *more* lines follow."""
    fixture = _CONFTEST.format(url=url.render_as_string(hide_password=False))
    (directory / "conftest.py").write_text("\n".join([fixture, *more]))
