"""The parts of the suite that a run tries: which servers, which transports, and what this machine lacks."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NoReturn

import pytest
from _pytest.mark import ParameterSet

from sqla_rls.testing.postgres import Installation, installations
from tests.support.npm_postgres import fetch

#: With ``all``, those between the newest and the oldest are for tests with the marker ``every_postgres``.
VERSIONS: Final = (18, 17, 16, 15)


@dataclass
class Choice:
    """The options of the command line; ``pytest_configure()`` fills them in."""

    postgres: str = "newest"
    transports: str = "auto"


CHOICE: Final = Choice()

#: Repeats a test of ``make test`` on another server, or by another transport.
on_another_server: Final = pytest.mark.repeats("server")
by_another_transport: Final = pytest.mark.repeats("transport")


@cache
def at_hand() -> Mapping[int, Installation]:
    """The servers of this machine by their version; of two, the wheel's."""
    return {found.version: found for found in reversed(installations())}


def newest() -> int:
    return max(at_hand(), default=VERSIONS[0])


def versions(*, every: bool = False) -> list[int]:
    """The servers of this run, the newest first.

    Args:
        every: whether ``--postgres all`` means those between the newest and the oldest, too.
    """
    match CHOICE.postgres:
        case "newest":
            return [newest()]
        case "all":
            rest = [version for version in VERSIONS if version != newest()]
            return [newest(), *(rest if every else rest[-1:])]
        case version:
            return [int(version)]


def on_servers(*, every: bool = False) -> list[ParameterSet]:
    """Parameters for a fixture: a version each."""
    return [
        pytest.param(version, id=f"postgres{version}", marks=_marks(version))
        for version in versions(every=every)
    ]


def on_servers_of_kinds(
    kinds: Callable[[int], Iterable[str]], *, exhaustive: Collection[str] = ()
) -> list[ParameterSet]:
    """Parameters for a fixture: a pair each of a kind that *kinds* says of a version, and that version.

    Args:
        exhaustive: the kinds that ``make test`` leaves out.
    """
    return [
        pytest.param(
            (kind, version),
            id=f"{kind}-postgres{version}",
            marks=[*_marks(version), *([pytest.mark.exhaustive] if kind in exhaustive else [])],
        )
        for version in versions()
        for kind in kinds(version)
    ]


def _marks(version: int) -> list[pytest.MarkDecorator]:
    return [on_another_server] if CHOICE.postgres == "all" and version != newest() else []


#: What they emit or read differs from version to version, also in a table.
_ROOMS_OF_VERSIONS: Final = ("catalog", "ddl", "diff", "introspect")


def adds_nothing(item: pytest.Item) -> bool:
    """Whether a test on another server is a variation that doesn't depend on the server's version."""
    repeated = [argument for mark in item.iter_markers("repeats") for argument in mark.args]
    if "server" not in repeated or item.get_closest_marker("every_postgres"):
        return "server" in repeated and "transport" in repeated
    is_of_versions = item.nodeid.split("/")[1] in _ROOMS_OF_VERSIONS
    return "transport" in repeated or (
        not is_of_versions and item.get_closest_marker("exhaustive") is not None
    )


def transports(params: Mapping[str, object], auto: Collection[str]) -> list[ParameterSet]:
    """Parameters by their ids: those in *auto* always, the others with ``--transports all``."""
    return [
        pytest.param(value, id=name, marks=[] if name in auto else [by_another_transport])
        for name, value in params.items()
        if name in auto or CHOICE.transports == "all"
    ]


def parametrize(metafunc: pytest.Metafunc, name: str, params: list[ParameterSet]) -> None:
    """Give *params* to the fixture *name* where a test takes it, unless that has parameters of its own."""
    if name not in metafunc.fixturenames:
        return
    for mark in metafunc.definition.iter_markers("parametrize"):
        names = mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]
        if name in [one.strip() for one in names]:
            return
    metafunc.parametrize(name, params, indirect=True)


def missing(what: str, hint: str) -> NoReturn:
    """Skip a test, because this machine lacks *what*; fail if ``SQLA_RLS_TEST_REQUIRE`` has it.

    Args:
        what: a word, as in that variable.
        hint: a command.
    """
    reason = f"{what} is missing: {hint}"
    if what in os.environ.get("SQLA_RLS_TEST_REQUIRE", "").split():
        pytest.fail(reason)
    pytest.skip(reason)


def find_installation(version: int) -> Installation:
    """The server of *version*: this machine's, or npm's; where there is none, the test is skipped."""
    found = at_hand().get(version) or fetch(version)
    if isinstance(found, Installation):
        return found
    missing(f"postgresql-{version}", f"apt install postgresql-{version} ({found})")


def said_of_skipped(reasons: Iterable[str]) -> str:
    """The last line of a run: how many tests were skipped for each reason."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason.removeprefix("Skipped: ")] = counts.get(reason.removeprefix("Skipped: "), 0) + 1
    missing_first = sorted(counts, key=lambda reason: (" is missing: " not in reason, -counts[reason]))
    said = "; ".join(f"{counts[reason]} since {reason}" for reason in missing_first)
    return f"Skipped: {said}." if said else "Skipped: nothing."


def table(
    names: str | Sequence[str],
    rows: Iterable[Any],
    *,
    kind: Callable[[Any], object] = lambda row: None,
    **options: Any,
) -> pytest.MarkDecorator:
    """``pytest.mark.parametrize`` for a table.  The first row of each *kind* is enough for ``make test``."""
    several = not isinstance(names, str) or "," in names
    kinds: set[object] = set()
    params = []
    for row in rows:
        marks = [pytest.mark.exhaustive] if kind(row) in kinds else []
        params.append(pytest.param(*(row if several else (row,)), marks=marks))
        kinds.add(kind(row))
    return pytest.mark.parametrize(names, params, **options)


def first_and_rest(name: str, rows: Iterable[Any]) -> pytest.MarkDecorator:
    """``table()`` for a test that tries several of *rows* on one set-up, each as a subtest."""
    first, *rest = rows
    parts = [
        pytest.param([first], id="the first"),
        pytest.param(rest, id="the rest", marks=pytest.mark.exhaustive),
    ]
    return pytest.mark.parametrize(name, parts)
