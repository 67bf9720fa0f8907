"""The faults of tests/analyze/lint/faults: each shows on a real Postgres, and is gone once it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from sqla_rls.analyze.lint.registry import rules
from sqla_rls.ddl.auth_functions import CreateAuthFunctions
from sqla_rls.server.postgres import Server
from tests.analyze.lint.faults import CLEAN, FAULTS
from tests.analyze.lint.faults.case import Clean, Fault, Look
from tests.analyze.lint.faults.measure import findings_above_info, findings_of
from tests.analyze.lint.faults.observe import fill, mend, outcome, prepare, work
from tests.support.servers import cleared_server
from tests.support.suite import first_and_rest

_QUICK = [next(faults) for _, faults in groupby(FAULTS, key=lambda fault: fault.group)]
_REST = [fault for fault in FAULTS if fault not in _QUICK]
#: Its rule has the most code of its own.
_FUNCTION = "A function that asks whether the caller is signed in shows all rows"


@pytest.fixture(scope="module")
def lint_server() -> Iterator[Server]:
    """A server of its own: rules look at the roles of a cluster."""
    with cleared_server() as found:
        yield found


@pytest.fixture(scope="module")
def superusers(lint_server: Server) -> Iterator[dict[bool, psycopg.Connection[Any]]]:
    """Connected to a database with the functions of schema ``auth``, and to one without."""
    names = {has_auth: lint_server.create_database() for has_auth in (True, False)}
    with create_engine(lint_server.url(names[True]), poolclass=NullPool).begin() as connection:
        connection.execute(CreateAuthFunctions())
    urls = {
        has_auth: lint_server.url(name).set(drivername="postgresql").render_as_string(hide_password=False)
        for has_auth, name in names.items()
    }
    with (
        psycopg.connect(urls[True], autocommit=True) as with_auth,
        psycopg.connect(urls[False], autocommit=True) as without,
    ):
        yield {True: with_auth, False: without}


@pytest.mark.exhaustive
@pytest.mark.one_postgres
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(_QUICK, id="one of each group"),
        pytest.param(_REST, id="the rest", marks=pytest.mark.exhaustive),
    ],
)
def test_a_fault_shows_until_it_is_mended(
    superusers: dict[bool, psycopg.Connection[Any]],
    lint_server: Server,
    faults: list[Fault],
    subtests: pytest.Subtests,
) -> None:
    for fault in faults:
        if fault.since > lint_server.version:
            continue
        with subtests.test(fault.name):
            connection = superusers[True]
            with connection.transaction(force_rollback=True):
                prepare(connection, fault)
                fill(connection, fault)
                looks = [one for one in fault.shows if isinstance(one, Look)]
                slow = [one for one in fault.shows if not isinstance(one, Look)]
                assert [outcome(connection, one) for one in looks] == [one.faulty for one in looks]
                before = [work(connection, one) for one in slow]

                mend(connection, fault)

                assert [outcome(connection, one) for one in looks] == [one.mended for one in looks]
                after = [work(connection, one) for one in slow]
                for one, with_fault, without in zip(slow, before, after, strict=True):
                    assert with_fault >= one.factor * without, (with_fault, without)


@pytest.mark.one_postgres
@first_and_rest("schemas", CLEAN)
def test_a_clean_schema_works(
    superusers: dict[bool, psycopg.Connection[Any]], schemas: list[Clean], subtests: pytest.Subtests
) -> None:
    for schema in schemas:
        with subtests.test(schema.name):
            connection = superusers[schema.has_auth]
            with connection.transaction(force_rollback=True):
                prepare(connection, schema)
                fill(connection, schema)
                assert [outcome(connection, one) for one in schema.works] == [
                    one.outcome for one in schema.works
                ]


@pytest.fixture(scope="module")
def connections(lint_server: Server) -> Iterator[dict[bool, Connection]]:
    """As of ``superusers``, by SQLAlchemy."""
    with ExitStack() as stack:
        found = {}
        for has_auth in (True, False):
            name = lint_server.create_database()
            engine = create_engine(lint_server.url(name), poolclass=NullPool)
            found[has_auth] = stack.enter_context(engine.connect())
            if has_auth:
                found[has_auth].execute(CreateAuthFunctions())
                found[has_auth].commit()
        yield found


@pytest.mark.one_postgres
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([one for one in FAULTS if one.name == _FUNCTION], id="a function that asks who calls"),
        pytest.param(
            [one for one in _QUICK if one.group != "speed"],
            id="one of each group",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            [one for one in _REST if one.group != "speed"], id="the rest", marks=pytest.mark.exhaustive
        ),
        pytest.param(
            [one for one in FAULTS if one.group == "speed"], id="speed", marks=pytest.mark.exhaustive
        ),
    ],
)
def test_a_rule_finds_a_fault_until_it_is_mended(
    connections: dict[bool, Connection],
    lint_server: Server,
    faults: list[Fault],
    subtests: pytest.Subtests,
) -> None:
    for fault in faults:
        if fault.since > lint_server.version or fault.rule not in rules():
            continue
        with subtests.test(fault.name):
            found = findings_of(connections[True], fault)
            shown = [(one.level, one.rule, one.object) for one in found.gone()]
            assert found.found(fault), shown


@pytest.mark.one_postgres
@first_and_rest("schemas", CLEAN)
def test_no_rule_has_a_finding_above_info_on_a_clean_schema(
    connections: dict[bool, Connection], schemas: list[Clean], subtests: pytest.Subtests
) -> None:
    for schema in schemas:
        with subtests.test(schema.name):
            found = findings_above_info(connections[schema.has_auth], schema)
            assert [(one.level, one.rule, one.object, one.text) for one in found] == []


def test_the_faults_are_many_and_have_names_of_their_own() -> None:
    names = [*(one.name for one in FAULTS), *(one.name for one in CLEAN)]

    assert len(set(names)) == len(names)
    assert len(FAULTS) >= 60
    assert len(CLEAN) >= 15
    assert {fault.group for fault in FAULTS} == {"openings", "dead-ends", "speed", "notes"}
