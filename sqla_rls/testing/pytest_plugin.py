"""Fixtures for pytest: a Postgres, a database for each test, a token issuer.

In a ``conftest.py``: ``pytest_plugins = ["sqla_rls.testing.pytest_plugin"]``.  It isn't loaded on its own,
since that would import SQLAlchemy in every run of everybody who has this library installed.
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

    Under pytest-xdist every worker starts its own.  With ``SQLA_RLS_TEST_URL`` all share that one, with
    databases of their own; only roles are common to them.
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

    One for the whole run, so that an app may be configured with it once; a test that breaks it calls
    ``rls_issuer.reset()`` afterwards.
    """
    from sqla_rls.testing.issuer import Issuer

    with Issuer() as issuer:
        yield issuer
