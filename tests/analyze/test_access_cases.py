"""The changes of access in tests/analyze/cases: their verdicts, by real commands on real rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.testing.postgres import Server
from tests.analyze.cases import CASES, QUICK
from tests.analyze.cases.case import Case
from tests.analyze.cases.evidence import gather
from tests.support.suite import first_and_rest


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


@first_and_rest("cases", CASES)
def test_the_verdict_of_a_case_is_that_of_real_commands(
    superuser: psycopg.Connection[Any], cases: list[Case], subtests: pytest.Subtests
) -> None:
    for case in cases:
        with subtests.test(case.name):
            evidence = gather(superuser, case)

            decidable = {key: verdict for key, verdict in case.expected.items() if verdict != "unknown"}
            assert evidence.verdicts == decidable, [one.as_json() for one in evidence.witnesses]
            assert evidence.worlds


def test_the_cases_have_names_of_their_own_and_some_are_quick() -> None:
    names = [case.name for case in CASES]

    assert len(set(names)) == len(names)
    assert len(QUICK) < 12
