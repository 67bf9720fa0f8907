"""The roles of the databases that ``sqla-rls import`` reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from sqla_rls.testing.postgres import Server

_ROLES = ("rls_adopt_app", "rls_adopt_admin", 'Rls adopt "odd" it\'s', "rls_adopt_etl", "rls_adopt_none")


@pytest.fixture(autouse=True)
def roles(server: Server) -> Iterator[None]:
    """The roles of these tests, and neither "authenticated" nor "anonymous"."""
    engine = create_engine(server.url(), poolclass=NullPool)
    quote = engine.dialect.identifier_preparer.quote
    with engine.begin() as connection:
        for name in _ROLES:
            connection.execute(text(f"CREATE ROLE {quote(name)}"))
        connection.execute(text("ALTER ROLE rls_adopt_app LOGIN NOINHERIT"))
        connection.execute(text("ALTER ROLE rls_adopt_admin BYPASSRLS"))
        connection.execute(text("GRANT rls_adopt_etl TO rls_adopt_app"))
    yield
    with engine.begin() as connection:
        for name in _ROLES:
            connection.execute(text(f"DROP ROLE {quote(name)}"))
