"""Fixtures for pytest: a Postgres, a database for each test, a token issuer; and the coverage of policies.

Load it in a ``conftest.py``: ``pytest_plugins = ["sqla_rls.testing.pytest_plugin"]``.  It doesn't load
itself, since then every run of pytest in your environment would import SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import URL

    from sqla_rls.testing.issuer import Issuer
    from sqla_rls.testing.postgres import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of policy coverage."""
    group = parser.getgroup("sqla_rls")
    group.addoption(
        "--rls-coverage",
        action="append",
        default=[],
        metavar="PACKAGE.MODULE:BASE",
        help="print which policies of these models no test exercises, by command and role",
    )
    group.addoption(
        "--rls-coverage-fail-under",
        type=float,
        metavar="PERCENT",
        help="fail if less of the policies, by command and role, is exercised",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Record the statements of callers, if policy coverage is asked for."""
    if config.getoption("--rls-coverage"):
        config.pluginmanager.register(_PolicyCoverage(config), "sqla_rls_coverage")
    elif config.getoption("--rls-coverage-fail-under") is not None:
        raise pytest.UsageError("--rls-coverage-fail-under needs --rls-coverage=package.module:Base")


class _PolicyCoverage:
    """Records in each worker of pytest-xdist, and sums up in the controller."""

    def __init__(self, config: pytest.Config) -> None:
        from sqla_rls.testing.coverage import Recorder

        self._models: list[str] = config.getoption("--rls-coverage") or []
        self._fail_under: float | None = config.getoption("--rls-coverage-fail-under")
        self._recorder = Recorder()
        self._result: tuple[float, list[str]] | None = None
        self._recorder.start()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        uses = getattr(node, "workeroutput", {}).get("sqla_rls_uses", ())
        self._recorder.uses |= {tuple(use) for use in uses}

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from sqla_rls.analyze.sides.models import load_metadata
        from sqla_rls.exc import AnalysisError
        from sqla_rls.testing.coverage import exercises, summary

        self._recorder.stop()
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            # execnet takes no subclass of str, such as a quoted_name.
            output["sqla_rls_uses"] = [tuple(map(str.__str__, use)) for use in sorted(self._recorder.uses)]
            return
        try:
            wanted = exercises(map(load_metadata, self._models))
        except AnalysisError as error:
            raise pytest.UsageError(str(error)) from None
        self._result = summary(wanted, self._recorder.uses)
        is_low = self._fail_under is not None and self._result[0] < self._fail_under
        if is_low and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._result is None:
            return
        percent, lines = self._result
        terminalreporter.section("policy coverage")
        for line in lines:
            terminalreporter.write_line(line)
        if self._fail_under is not None and percent < self._fail_under:
            terminalreporter.write_line(f"less than the required {self._fail_under:g} %", red=True)


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
