"""Each test on all that verify a signature, or on those that it is about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from sqla_rls import BindingOptions, enforce_row_security
from sqla_rls.driver.base import Transport
from sqla_rls.testing.postgres import Server
from tests.support.sessions import on_signing_servers, start_signing_server
from tests.support.verified import FUNCTIONS, database_for_signatures, make_key


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try each test with all that verify a signature, or with those that it is about."""
    # pytest reads this file before the options of the command line, if an argument names its directory.
    servers = on_signing_servers(FUNCTIONS)
    for about in ("by_functions", "by_extension"):
        if about in metafunc.fixturenames:
            servers = [one for one in servers if is_functions(one) == (about == "by_functions")]
    if "verified_by" in metafunc.fixturenames:
        metafunc.parametrize("verified_by", servers, indirect=True, scope="session")


def is_functions(server: ParameterSet) -> bool:
    name, _ = server.values[0]  # type: ignore[misc]
    return bool(name == FUNCTIONS)


@pytest.fixture(scope="session")
def verified_by(request: pytest.FixtureRequest) -> Iterator[tuple[str, Server]]:
    name, version = request.param
    with start_signing_server(name, version) as server:
        yield name, server


@pytest.fixture(scope="session")
def server(verified_by: tuple[str, Server]) -> Server:
    return verified_by[1]


@pytest.fixture(scope="session")
def template(verified_by: tuple[str, Server]) -> Iterator[str]:
    with database_for_signatures(*verified_by) as database:
        yield database


@pytest.fixture
def key(verified_by: tuple[str, Server], admin: Engine) -> str | None:
    """The key of the database, where one is shared."""
    return make_key(admin) if verified_by[0] == FUNCTIONS else None


@pytest.fixture
def by_functions() -> None:
    """For a test about the shared key."""


@pytest.fixture
def by_extension() -> None:
    """For a test about the key of each connection."""


@pytest.fixture
def maker(pool: Engine, transport: Transport, key: str | None) -> sessionmaker[Session]:
    maker = sessionmaker(pool)
    enforce_row_security(
        maker, signing_key=key, options=BindingOptions(transport=transport, signing="required")
    )
    return maker
