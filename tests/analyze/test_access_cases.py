"""The changes of access in tests/analyze/cases: their verdicts, by real commands on real rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.verdict import Budget
from sqla_rls.analyze.worlds.compare import compare_databases
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.cases import CASES, QUICK
from tests.analyze.cases.case import Case
from tests.analyze.cases.evidence import gather
from tests.analyze.cases.scratch import Servers
from tests.support.replay import replay


@pytest.fixture(scope="module")
def superuser(server: Server) -> Iterator[psycopg.Connection[Any]]:
    """Connected to a database with the functions of schema ``auth``."""
    name = server.create_database()
    with create_engine(server.url(name), poolclass=NullPool).begin() as connection:
        connection.execute(CreateAuthFunctions())
    url = server.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as found:
        yield found
    server.drop_database(name)


@pytest.mark.one_postgres
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "cases", [pytest.param(QUICK, id="quick"), pytest.param(CASES, id="all", marks=pytest.mark.long)]
)
def test_the_verdict_of_a_case_is_that_of_real_commands(
    superuser: psycopg.Connection[Any], cases: list[Case], subtests: pytest.Subtests
) -> None:
    for case in cases:
        with subtests.test(case.name):
            evidence = gather(superuser, case)

            decidable = {key: verdict for key, verdict in case.expected.items() if verdict != "unknown"}
            assert evidence.verdicts == decidable, [one.as_json() for one in evidence.witnesses]
            assert evidence.worlds


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement may take long: on a busy machine, a verdict must not become unknown."""
    monkeypatch.setattr("sqla_rls.analyze.worlds.scratch.STATEMENT_TIMEOUT", 600_000)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers.start() as found:
        yield found


#: The processes of a test run share them.
_OTHERS = [one for one in CASES if not one.is_quick]
_GROUPS = 8


#: A custom setting that a session once had is an empty text there, and absent in a new session.
_ONCE_SET = {"A setting that may be absent"}


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(QUICK, id="quick"),
        *(
            pytest.param(_OTHERS[n::_GROUPS], id=f"others-{n}", marks=pytest.mark.exhaustive)
            for n in range(_GROUPS)
        ),
    ],
)
@pytest.mark.one_postgres
@pytest.mark.exhaustive
def test_a_comparison_finds_the_verdict_and_rows_that_replay(
    servers: Servers, cases: list[Case], subtests: pytest.Subtests
) -> None:
    for case in cases:
        with subtests.test(case.name), servers.sides(case) as (before, after):
            found = compare_databases(before, after, budget=Budget(worlds=60) if case.is_quick else None)

            changes = {(one.object, one.role, one.command): one.verdict for one in found.changes}
            unknown = {(one.object, one.role, one.command): "unknown" for one in found.unknown}
            assert {**changes, **unknown} == case.expected
            for one in found.changes:
                for example in filter(None, (one.counterexample, one.closing)):
                    if case.name in _ONCE_SET:
                        continue
                    assert example.before.startswith(replay(before, one.role, example))
                    assert example.after.startswith(replay(after, one.role, example))
                    assert example.before != example.after


def test_the_cases_have_names_of_their_own_and_some_are_quick() -> None:
    names = [case.name for case in CASES]

    assert len(set(names)) == len(names)
    assert len(QUICK) < 12
