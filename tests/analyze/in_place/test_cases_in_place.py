"""In place, no verdict contradicts the real commands of tests/analyze/cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection

from sqla_rls.analyze.in_place import Side, compare_in_place
from sqla_rls.analyze.worlds.schema import Schema, read_profiles
from tests.analyze.cases import CASES
from tests.analyze.cases.case import Case
from tests.analyze.cases.scratch import Servers

pytestmark = [pytest.mark.exhaustive, pytest.mark.one_postgres]

#: The processes of a test run share them; the long run has those of the other groups.
_GROUPS = 8
_SHORT = 3


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers.start() as found:
        yield found


def side(connection: Connection, case: Case) -> Side:
    schema = Schema.read(connection)
    return Side(schema=schema, profiles=read_profiles(connection, schema.relations.values(), case.roles))


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param(CASES[n::_GROUPS], id=f"group {n}", marks=[] if n < _SHORT else pytest.mark.long)
        for n in range(_GROUPS)
    ],
)
def test_no_verdict_contradicts_real_commands(
    servers: Servers, cases: list[Case], subtests: pytest.Subtests
) -> None:
    for case in cases:
        with subtests.test(case.name), servers.sides(case) as (before, after):
            sides = side(before, case), side(after, case)
            names = {*sides[0].schema.relations, *sides[1].schema.relations}

            found = compare_in_place(before, *sides, names=names)

            unknown = {(one.object, one.role, one.command) for one in found.unknown}
            assert {
                key: verdict
                for one in found.changes
                for key, verdict in [((one.object, one.role, one.command), one.verdict)]
            } == {
                key: verdict
                for key, verdict in case.expected.items()
                if verdict != "unknown" and key not in unknown
            }
