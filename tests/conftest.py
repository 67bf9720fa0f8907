"""What the tests share: the Postgres servers of a run, a database for each test, people."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls import Caller
from sqla_rls.testing.pgbouncer import find_pgbouncer
from sqla_rls.testing.postgres import Installation, Server
from tests.support.clocks import Clocks, replace_clocks
from tests.support.suite import (
    CHOICE,
    VERSIONS,
    adds_nothing,
    find_installation,
    missing,
    newest,
    on_servers,
    parametrize,
    said_of_skipped,
)

pytest_plugins = [
    "sqla_rls.testing.pytest_plugin",
    "tests.support.browser",
    "tests.support.sessions",
    "tests.support.supabase",
]

# Under nohup, or in the background of a script, these are ignored, by the children that tests interrupt, too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sqla_rls")
    group.addoption(
        "--postgres",
        choices=["newest", "all", *map(str, reversed(VERSIONS))],
        default=CHOICE.postgres,
        help="the servers: the newest at hand (default); that, 15, and for some tests 16 and 17; or one",
    )
    group.addoption(
        "--transports",
        choices=["auto", "all"],
        default=CHOICE.transports,
        help="how bindings travel: as `transport='auto'` chooses for each driver (default), or in all ways",
    )


def pytest_configure(config: pytest.Config) -> None:
    CHOICE.postgres = str(config.getoption("--postgres"))
    CHOICE.transports = str(config.getoption("--transports"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't import a module of which no test would run."""
    if "not exhaustive" not in config.option.markexpr or collection_path.suffix != ".py":
        return None
    named = {config.invocation_params.dir / argument.partition("::")[0] for argument in config.args}
    if collection_path in named:
        return None
    marks = [
        line for line in collection_path.read_text("utf-8").splitlines() if line.startswith("pytestmark")
    ]
    return True if any("pytest.mark.exhaustive" in line for line in marks) else None


def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """Don't generate the cases of a test of which none would run: there are thousands."""
    if "not exhaustive" not in collector.config.option.markexpr:
        return None
    marks = getattr(obj, "pytestmark", None)
    is_left_out = isinstance(marks, list) and any(mark.name == "exhaustive" for mark in marks)
    return [] if is_left_out else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the variations that a second server adds nothing to."""
    left_out = {item for item in items if adds_nothing(item)}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_collection_finish() -> None:
    # The tests themselves are no garbage: the collector need not look at them again.
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(session.config, "workerinput"):
        skipped = reporter.stats.get("skipped", [])
        reporter.write_line(said_of_skipped(report.longrepr[2] for report in skipped))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "SQLA_RLS_TEST_URL" in os.environ:
        servers = [pytest.param(None, id="given")]
    elif metafunc.definition.get_closest_marker("one_postgres"):
        servers = [pytest.param(newest(), id="one_postgres")]
    else:
        servers = on_servers(every=metafunc.definition.get_closest_marker("every_postgres") is not None)
    parametrize(metafunc, "installation", servers)


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation | None:
    """The programs to start the server with; none, if a server is given."""
    return None if request.param is None else find_installation(request.param)


@pytest.fixture(scope="session")
def server(installation: Installation | None) -> Iterator[Server]:
    """Each of the run's servers."""
    with (
        Server.start(installation)
        if installation
        else Server.connect(os.environ["SQLA_RLS_TEST_URL"]) as found
    ):
        yield found


@pytest.fixture
def database(server: Server) -> Iterator[URL]:
    """The superuser's URL of an empty database."""
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    """Connects to it as the superuser."""
    engine = create_engine(database, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def pgbouncer() -> None:
    """For tests that start one."""
    if find_pgbouncer() is None:
        missing("pgbouncer", "apt install pgbouncer")


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """The library's, which run ahead by ``clocks.ahead`` seconds."""
    return replace_clocks(monkeypatch)


@pytest.fixture
def alice() -> Caller:
    return Caller(role="authenticated", subject="alice")


@pytest.fixture
def bob() -> Caller:
    return Caller(role="authenticated", subject="bob")
