"""Fixtures for pytest: a Postgres, a database for each test, a token issuer.

Load it in a ``conftest.py``: ``pytest_plugins = ["sqla_rls.testing.pytest_plugin"]``.  It doesn't load
itself, since then every run of pytest in your environment would import SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sqla_rls.testing.issuer import Issuer
    from sqla_rls.testing.postgres import Server


@pytest.fixture(scope="session")
def rls_postgres() -> Iterator[Server]:
    """A Postgres server, as ``sqla_rls.testing.postgres.find_server()`` finds it.

    Under pytest-xdist, every worker starts its own server.  With ``SQLA_RLS_TEST_URL`` all workers share that
    server: each has its own databases, and they share the roles.
    """
    from sqla_rls.testing.postgres import find_server

    with find_server() as server:
        yield server


@pytest.fixture
def rls_database(rls_postgres: Server) -> Iterator[URL]:
    """The URL of a new, empty database, as the superuser; it is dropped after the test."""
    name = rls_postgres.create_database()
    yield rls_postgres.url(name)
    rls_postgres.drop_database(name)


@pytest.fixture(scope="session")
def rls_issuer() -> Iterator[Issuer]:
    """An identity provider on this machine: ``Verifier(rls_issuer.provider)``, ``rls_issuer.token("alice")``.

    The whole run has one, so that you configure your app once.  A test that changes its answers calls
    ``rls_issuer.reset()`` afterwards.
    """
    from sqla_rls.testing.issuer import Issuer

    with Issuer() as issuer:
        yield issuer
